//! Who reads what, and who is still to come: the one state that all members and their readings share.
//!
//! A chunk is kept until everybody who follows the reading, or is going to, has taken it. Where there is no room for
//! the next one, whoever holds the oldest is waited for, as long as its patience lasts; then the chunk goes, and that
//! member reads by itself. All members open blobs in one order, and the reading that is first in it may always hold two
//! chunks: so the blob that somebody is furthest behind with always moves on, and nobody waits for himself.

use super::windows::{Follower, Member, Reading, State};
use super::{CHUNK, Limits};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::image::Digest;
use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::{Duration, Instant},
};

/// What a reading runs ahead of its quickest follower by, in bytes.
const AHEAD: u64 = 4 * CHUNK as u64;
/// How often who waits looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

pub(super) type Chunk = Arc<Vec<u8>>;
/// The blob's place in the common order, and a number.
pub(super) type Key = (usize, u64);

pub(super) struct Coordinator {
    state: Mutex<State>,
    /// For those who wait to read on: a chunk went, or a member.
    room: Condvar,
    limits: Limits,
    cancel: Cancel,
    began: Instant,
}

/// Where a member sits that wants a blob.
pub(super) enum Subscription {
    /// Behind a reading that is under way.
    Follows(Key, u64),
    /// Behind one that is to be started at this offset.
    Leads(Key, u64, u64),
    /// Nobody else wants the blob.
    Alone,
}

/// What a follower gets.
pub(super) enum Taken {
    /// A chunk, and where in the blob it begins.
    Chunk(Chunk, u64),
    End,
    /// Its bytes are gone: it has to read by itself.
    Behind,
}

impl Coordinator {
    pub fn new(limits: Limits, cancel: &Cancel) -> Coordinator {
        let (state, room) = (Mutex::default(), Condvar::new());
        Coordinator { state, room, limits, cancel: cancel.clone(), began: Instant::now() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// A new member, who may come for anything until it says what for.
    pub fn enter(&self) -> usize {
        let mut state = self.state();
        state.members.push(Member { wants: None, gone: false, held_up: Duration::ZERO, counted: Instant::now() });
        state.members.len() - 1
    }

    pub fn leave(&self, member: usize) {
        let mut state = self.state();
        state.members[member].gone = true;
        state.tidy(None);
        self.room.notify_all();
    }

    /// `member` is going to open `wanted`, which are among `all`, in that order.
    pub fn expect(&self, member: usize, all: &[Digest], wanted: impl Iterator<Item = Digest>) {
        let mut state = self.state();
        for blob in all {
            state.place(blob);
        }
        state.members[member].wants = Some(wanted.collect());
        state.tidy(None);
        self.room.notify_all();
    }

    /// `member` is not going to open `blob` any more.
    pub fn skip_blob(&self, member: usize, blob: &Digest) {
        let mut state = self.state();
        if let Some(wants) = &mut state.members[member].wants
            && wants.remove(blob)
        {
            state.tidy(Some(blob));
            self.room.notify_all();
        }
    }

    pub fn has_said(&self, member: usize) -> bool {
        self.state().members[member].wants.is_some()
    }

    /// A seat for `member`, which wants `blob` from `from` on.
    pub fn join(&self, member: usize, blob: &Digest, from: u64) -> Subscription {
        let mut state = self.state();
        state.next += 1;
        let id = state.next;
        let place = state.place(blob);
        if let Some(wants) = &mut state.members[member].wants {
            wants.remove(blob);
        }
        let fits = |reading: &&mut Reading| {
            let held = reading.start <= from && from <= reading.end;
            held && !reading.seen.contains(&member) && !matches!(reading.ended, Some(Err(_)))
        };
        let of_blob = |state: &State| -> Vec<Key> {
            state.readings.range((place, 0)..(place + 1, 0)).map(|(key, _)| *key).collect()
        };
        for key in of_blob(&state) {
            if let Some(reading) = state.readings.get_mut(&key).filter(fits) {
                reading.seen.insert(member);
                reading.followers.push(Follower { member, id, at: from });
                return Subscription::Follows(key, id);
            }
        }
        let others = |state: &State| {
            let coming = state.members.iter().enumerate().any(|(at, other)| at != member && other.may_want(blob));
            let behind = |key: &Key| state.readings[key].followers.iter().any(|f| f.member != member && f.at <= from);
            coming && from == 0 || of_blob(state).iter().any(behind)
        };
        if !others(&state) {
            state.tidy(Some(blob));
            self.room.notify_all();
            return Subscription::Alone;
        }
        // So that all who lost the same chunk meet again.
        let begin = from - from % CHUNK as u64;
        let key = (place, id);
        let reading = Reading {
            blob: *blob,
            begin,
            start: begin,
            end: begin,
            chunks: VecDeque::new(),
            ended: None,
            followers: vec![Follower { member, id, at: from }],
            seen: HashSet::from([member]),
            fresh: Arc::default(),
        };
        state.readings.insert(key, reading);
        Subscription::Leads(key, id, begin)
    }

    /// The chunk at `at`, waited for; what lies before it is given up.
    pub fn take(&self, key: Key, id: u64, at: u64) -> Result<Taken> {
        let mut state = self.state();
        loop {
            self.cancel.check()?;
            let Some(reading) = state.readings.get_mut(&key) else { return Ok(Taken::Behind) };
            let Some(follower) = reading.followers.iter_mut().find(|follower| follower.id == id) else {
                return Ok(Taken::Behind);
            };
            follower.at = at;
            if at < reading.start {
                return Ok(Taken::Behind);
            }
            if at < reading.end {
                let nth = (at - reading.start) as usize / CHUNK;
                let (chunk, from) = (reading.chunks[nth].clone(), reading.start + (nth * CHUNK) as u64);
                let blob = reading.blob;
                state.tidy(Some(&blob));
                self.room.notify_all();
                return Ok(Taken::Chunk(chunk, from));
            }
            if let Some(ended) = &reading.ended {
                return ended.clone().map(|()| Taken::End);
            }
            let (blob, fresh) = (reading.blob, reading.fresh.clone());
            state.tidy(Some(&blob));
            self.room.notify_all();
            state = fresh.wait_timeout(state, LOOK).unwrap_or_else(|e| e.into_inner()).0;
        }
    }

    /// The follower `id` goes.
    pub fn rise(&self, key: Key, id: u64) {
        let mut state = self.state();
        let Some(reading) = state.readings.get_mut(&key) else { return };
        reading.followers.retain(|follower| follower.id != id);
        let blob = reading.blob;
        state.tidy(Some(&blob));
        self.room.notify_all();
    }

    /// Waits until the reading may read its next chunk. False when nobody follows it any more.
    pub fn may_read(&self, key: Key) -> bool {
        let mut state = self.state();
        loop {
            let Some(reading) = state.readings.get(&key) else { return false };
            if self.cancel.raised() {
                return false;
            }
            let runner = reading.front_runner();
            let full = (reading.end - reading.start) as usize >= self.limits.window.max(CHUNK);
            let first = state.readings.keys().next() == Some(&key) && reading.chunks.len() < 2;
            let fits = !full && (state.used < self.limits.pool || first);
            if reading.end.saturating_sub(runner) < AHEAD && fits {
                return true;
            }
            let starved = reading.end <= runner && !reading.followers.is_empty();
            let since = Instant::now();
            state = self.room.wait_timeout(state, LOOK).unwrap_or_else(|e| e.into_inner()).0;
            if starved && !fits {
                self.make_room(&mut state, key, full, since);
            }
        }
    }

    /// Counts what the others have waited since `since`, and lets the oldest chunk go where nobody who holds it is to be
    /// waited for any longer.
    fn make_room(&self, state: &mut State, key: Key, full: bool, since: Instant) {
        let State { members, readings, used, .. } = state;
        let oldest = match full {
            true => readings.get_mut(&key),
            false => readings.values_mut().find(|reading| !reading.chunks.is_empty()),
        };
        let Some(reading) = oldest else { return };
        let (now, bearable) = (Instant::now(), self.limits.patience + self.began.elapsed() / 10);
        let laggards = reading.laggards(members);
        for &laggard in &laggards {
            let member = &mut members[laggard];
            member.held_up += now.saturating_duration_since(since.max(member.counted));
            member.counted = now;
        }
        if laggards.iter().all(|&laggard| members[laggard].held_up > bearable) {
            *used -= reading.drop_oldest();
            self.room.notify_all();
        }
    }

    pub fn push(&self, key: Key, chunk: Vec<u8>) {
        let mut state = self.state();
        let State { readings, used, .. } = &mut *state;
        let Some(reading) = readings.get_mut(&key) else { return };
        *used += chunk.len();
        reading.end += chunk.len() as u64;
        reading.chunks.push_back(Arc::new(chunk));
        reading.fresh.notify_all();
    }

    /// The reading has read its last.
    pub fn end(&self, key: Key, how: Result<()>) {
        if let Some(reading) = self.state().readings.get_mut(&key)
            && reading.ended.is_none()
        {
            reading.ended = Some(how);
            reading.fresh.notify_all();
        }
    }
}
