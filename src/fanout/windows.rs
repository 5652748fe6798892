//! The subscribers with the blobs that they will open, and the active reads with their windows of chunks.

use super::coordinator::{Chunk, Key};
use crate::error::Result;
use crate::image::Digest;
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, Condvar},
    time::{Duration, Instant},
};

#[derive(Default)]
pub(super) struct WindowState {
    pub subscribers: Vec<SubscriberState>,
    /// The position of each blob in the common order.
    pub order: HashMap<Digest, usize>,
    pub reads: BTreeMap<Key, SharedRead>,
    /// Bytes in all windows.
    pub used: usize,
    pub next: u64,
}

pub(super) struct SubscriberState {
    /// The blobs that it will open; `None` before it announced them: it may open any.
    pub wanted: Option<HashSet<Digest>>,
    pub gone: bool,
    /// The time that others waited for it, and the end of the last wait.
    pub delay: Duration,
    pub counted_until: Instant,
}

impl SubscriberState {
    pub fn may_want(&self, blob: &Digest) -> bool {
        !self.gone && self.wanted.as_ref().is_none_or(|wanted| wanted.contains(blob))
    }
}

pub(super) struct SharedRead {
    pub blob: Digest,
    /// The offset where it started.
    pub begin: u64,
    /// The offsets of its window.
    pub start: u64,
    pub end: u64,
    pub chunks: VecDeque<Chunk>,
    pub ended: Option<Result<()>>,
    pub followers: Vec<Follower>,
    /// Subscribers that followed it once: when they come again they need other bytes.
    pub seen: HashSet<usize>,
    pub fresh: Arc<Condvar>,
}

pub(super) struct Follower {
    pub subscriber: usize,
    pub id: u64,
    pub at: u64,
}

impl SharedRead {
    pub fn front_runner(&self) -> u64 {
        self.followers.iter().map(|follower| follower.at).max().unwrap_or(self.begin)
    }

    /// Subscribers that will follow it from its start.
    pub fn expected_followers<'a>(&'a self, subscribers: &'a [SubscriberState]) -> impl Iterator<Item = usize> + 'a {
        let fits = move |(at, subscriber): &(usize, &SubscriberState)| {
            self.begin == 0 && self.start == 0 && subscriber.may_want(&self.blob) && !self.seen.contains(at)
        };
        subscribers.iter().enumerate().filter(fits).map(|(at, _)| at)
    }

    /// The subscribers that still need its oldest chunk.
    pub fn laggards(&self, subscribers: &[SubscriberState]) -> Vec<usize> {
        let oldest = self.start + self.chunks.front().map_or(0, |chunk| chunk.len() as u64);
        let behind = self.followers.iter().filter(|follower| follower.at < oldest).map(|follower| follower.subscriber);
        behind.chain(self.expected_followers(subscribers)).collect()
    }

    pub fn drop_oldest(&mut self) -> usize {
        let bytes = self.chunks.pop_front().map_or(0, |chunk| chunk.len());
        self.start += bytes as u64;
        bytes
    }
}

impl WindowState {
    /// Drops chunks that no subscriber needs, and reads without a follower; only for `blob` where it is given.
    pub fn drop_unused(&mut self, blob: Option<&Digest>) {
        let WindowState { subscribers, reads, used, .. } = self;
        reads.retain(|_, read| {
            if blob.is_some_and(|blob| *blob != read.blob) {
                return true;
            }
            let awaited = read.expected_followers(subscribers).next().is_some();
            let slowest = read.followers.iter().map(|follower| follower.at).min();
            let needed = if awaited { read.begin } else { slowest.unwrap_or(read.end) };
            while read.chunks.front().is_some_and(|chunk| read.start + chunk.len() as u64 <= needed) {
                *used -= read.drop_oldest();
            }
            awaited || slowest.is_some()
        });
    }

    pub fn position(&mut self, blob: &Digest) -> usize {
        let next = self.order.len();
        *self.order.entry(*blob).or_insert(next)
    }
}
