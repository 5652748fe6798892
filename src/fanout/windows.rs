//! What the desk writes down: members, what they are still going to open, and the readings with what they hold.

use super::coordinator::{Chunk, Key};
use crate::error::Result;
use crate::image::Digest;
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, Condvar},
    time::{Duration, Instant},
};

#[derive(Default)]
pub(super) struct State {
    pub members: Vec<Member>,
    pub order: HashMap<Digest, usize>,
    pub readings: BTreeMap<Key, Reading>,
    /// Bytes in all windows.
    pub used: usize,
    pub next: u64,
}

pub(super) struct Member {
    /// What it is still going to open; `None` until it has said so: it may come for anything.
    pub wants: Option<HashSet<Digest>>,
    pub gone: bool,
    /// How long others have waited for it, and until when that was counted.
    pub held_up: Duration,
    pub counted: Instant,
}

impl Member {
    pub fn may_want(&self, blob: &Digest) -> bool {
        !self.gone && self.wants.as_ref().is_none_or(|wants| wants.contains(blob))
    }
}

pub(super) struct Reading {
    pub blob: Digest,
    /// Where it began, in bytes of the blob.
    pub begin: u64,
    /// What it holds: from here to there.
    pub start: u64,
    pub end: u64,
    pub chunks: VecDeque<Chunk>,
    pub ended: Option<Result<()>>,
    pub followers: Vec<Follower>,
    /// Members that have followed it: one that comes again wants other bytes than these.
    pub seen: HashSet<usize>,
    pub fresh: Arc<Condvar>,
}

pub(super) struct Follower {
    pub member: usize,
    pub id: u64,
    pub at: u64,
}

impl Reading {
    pub fn front_runner(&self) -> u64 {
        self.followers.iter().map(|follower| follower.at).max().unwrap_or(self.begin)
    }

    /// Members that have still to come for its beginning.
    pub fn coming<'a>(&'a self, members: &'a [Member]) -> impl Iterator<Item = usize> + 'a {
        let fits = move |(at, member): &(usize, &Member)| {
            self.begin == 0 && self.start == 0 && member.may_want(&self.blob) && !self.seen.contains(at)
        };
        members.iter().enumerate().filter(fits).map(|(at, _)| at)
    }

    /// Those who hold its oldest chunk.
    pub fn laggards(&self, members: &[Member]) -> Vec<usize> {
        let oldest = self.start + self.chunks.front().map_or(0, |chunk| chunk.len() as u64);
        let behind = self.followers.iter().filter(|follower| follower.at < oldest).map(|follower| follower.member);
        behind.chain(self.coming(members)).collect()
    }

    pub fn drop_oldest(&mut self) -> usize {
        let bytes = self.chunks.pop_front().map_or(0, |chunk| chunk.len());
        self.start += bytes as u64;
        bytes
    }
}

impl State {
    /// Lets go of what nobody holds any more, in the readings of `blob` (none: in all), and of readings that nobody
    /// follows.
    pub fn tidy(&mut self, blob: Option<&Digest>) {
        let State { members, readings, used, .. } = self;
        readings.retain(|_, reading| {
            if blob.is_some_and(|blob| *blob != reading.blob) {
                return true;
            }
            let awaited = reading.coming(members).next().is_some();
            let slowest = reading.followers.iter().map(|follower| follower.at).min();
            let needed = if awaited { reading.begin } else { slowest.unwrap_or(reading.end) };
            while reading.chunks.front().is_some_and(|chunk| reading.start + chunk.len() as u64 <= needed) {
                *used -= reading.drop_oldest();
            }
            awaited || slowest.is_some()
        });
    }

    pub fn place(&mut self, blob: &Digest) -> usize {
        let next = self.order.len();
        *self.order.entry(*blob).or_insert(next)
    }
}
