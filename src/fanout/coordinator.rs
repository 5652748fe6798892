//! The state that all subscribers and their reads share, behind one lock.
//!
//! A chunk is stored until every subscriber that follows the read, or will follow it, has taken it. A full window waits
//! for the slowest subscribers, at most for `max_delay`. Then the oldest chunk is dropped, and a subscriber without it
//! reads the blob itself. All subscribers open blobs in the same order. The read earliest in that order always has room
//! for two chunks, so the slowest subscriber makes progress and the copies cannot deadlock.

use super::windows::{Follower, SharedRead, SubscriberState, WindowState};
use super::{CHUNK_BYTES, FanoutLimits};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::image::Digest;
use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::{Duration, Instant},
};

/// The distance of a read to its fastest follower.
const MAX_AHEAD_BYTES: u64 = 4 * CHUNK_BYTES as u64;
/// A waiting thread checks this often whether it is to stop.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

pub(super) type Chunk = Arc<Vec<u8>>;
/// The blob's position in the common order, and a number.
pub(super) type Key = (usize, u64);

pub(super) struct Coordinator {
    state: Mutex<WindowState>,
    /// Wakes the reads: a chunk was dropped, or a subscriber changed.
    room: Condvar,
    limits: FanoutLimits,
    cancel: Cancel,
    started: Instant,
}

/// The way in which a subscriber reads a blob.
pub(super) enum Subscription {
    /// From a read that is active.
    Follow(Key, u64),
    /// From a read that the subscriber has to start at this offset.
    Lead(Key, u64, u64),
    /// By itself: the other subscribers do not need the blob.
    Alone,
}

/// The next bytes for a follower.
pub(super) enum Taken {
    /// A chunk, and its offset in the blob.
    Chunk(Chunk, u64),
    End,
    /// The bytes were dropped: the follower has to read them itself.
    Behind,
}

impl Coordinator {
    pub fn new(limits: FanoutLimits, cancel: &Cancel) -> Coordinator {
        let (state, room) = (Mutex::default(), Condvar::new());
        Coordinator { state, room, limits, cancel: cancel.clone(), started: Instant::now() }
    }

    fn state(&self) -> MutexGuard<'_, WindowState> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Adds a subscriber. It may open any blob until it announces which ones.
    pub fn add_subscriber(&self) -> usize {
        let mut state = self.state();
        state.subscribers.push(SubscriberState {
            wanted: None,
            gone: false,
            delay: Duration::ZERO,
            counted_until: Instant::now(),
        });
        state.subscribers.len() - 1
    }

    pub fn remove_subscriber(&self, subscriber: usize) {
        let mut state = self.state();
        state.subscribers[subscriber].gone = true;
        state.drop_unused(None);
        self.room.notify_all();
    }

    /// Notes that `subscriber` will open `wanted`, in the order of `all`.
    pub fn announce(&self, subscriber: usize, all: &[Digest], wanted: impl Iterator<Item = Digest>) {
        let mut state = self.state();
        for blob in all {
            state.position(blob);
        }
        state.subscribers[subscriber].wanted = Some(wanted.collect());
        state.drop_unused(None);
        self.room.notify_all();
    }

    /// Notes that `subscriber` will not open `blob` (again).
    pub fn skip_blob(&self, subscriber: usize, blob: &Digest) {
        let mut state = self.state();
        if let Some(wanted) = &mut state.subscribers[subscriber].wanted
            && wanted.remove(blob)
        {
            state.drop_unused(Some(blob));
            self.room.notify_all();
        }
    }

    pub fn has_announced(&self, subscriber: usize) -> bool {
        self.state().subscribers[subscriber].wanted.is_some()
    }

    /// The way in which `subscriber` reads `blob` from offset `from`.
    pub fn subscribe(&self, subscriber: usize, blob: &Digest, from: u64) -> Subscription {
        let mut state = self.state();
        state.next += 1;
        let id = state.next;
        let position = state.position(blob);
        if let Some(wanted) = &mut state.subscribers[subscriber].wanted {
            wanted.remove(blob);
        }
        let fits = |read: &&mut SharedRead| {
            let held = read.start <= from && from <= read.end;
            held && !read.seen.contains(&subscriber) && !matches!(read.ended, Some(Err(_)))
        };
        let of_blob = |state: &WindowState| -> Vec<Key> {
            state.reads.range((position, 0)..(position + 1, 0)).map(|(key, _)| *key).collect()
        };
        for key in of_blob(&state) {
            if let Some(read) = state.reads.get_mut(&key).filter(fits) {
                read.seen.insert(subscriber);
                read.followers.push(Follower { subscriber, id, at: from });
                return Subscription::Follow(key, id);
            }
        }
        let others = |state: &WindowState| {
            let coming =
                state.subscribers.iter().enumerate().any(|(at, other)| at != subscriber && other.may_want(blob));
            let behind =
                |key: &Key| state.reads[key].followers.iter().any(|f| f.subscriber != subscriber && f.at <= from);
            coming && from == 0 || of_blob(state).iter().any(behind)
        };
        if !others(&state) {
            state.drop_unused(Some(blob));
            self.room.notify_all();
            return Subscription::Alone;
        }
        // Subscribers that lost the same chunk share the next read.
        let begin = from - from % CHUNK_BYTES as u64;
        let key = (position, id);
        let read = SharedRead {
            blob: *blob,
            begin,
            start: begin,
            end: begin,
            chunks: VecDeque::new(),
            ended: None,
            followers: vec![Follower { subscriber, id, at: from }],
            seen: HashSet::from([subscriber]),
            fresh: Arc::default(),
        };
        state.reads.insert(key, read);
        Subscription::Lead(key, id, begin)
    }

    /// Waits for the chunk at offset `at`. The follower needs no earlier chunk any more.
    pub fn take(&self, key: Key, id: u64, at: u64) -> Result<Taken> {
        let mut state = self.state();
        loop {
            self.cancel.check()?;
            let Some(read) = state.reads.get_mut(&key) else { return Ok(Taken::Behind) };
            let Some(follower) = read.followers.iter_mut().find(|follower| follower.id == id) else {
                return Ok(Taken::Behind);
            };
            follower.at = at;
            if at < read.start {
                return Ok(Taken::Behind);
            }
            if at < read.end {
                let nth = (at - read.start) as usize / CHUNK_BYTES;
                let (chunk, from) = (read.chunks[nth].clone(), read.start + (nth * CHUNK_BYTES) as u64);
                let blob = read.blob;
                state.drop_unused(Some(&blob));
                self.room.notify_all();
                return Ok(Taken::Chunk(chunk, from));
            }
            if let Some(ended) = &read.ended {
                return ended.clone().map(|()| Taken::End);
            }
            let (blob, fresh) = (read.blob, read.fresh.clone());
            state.drop_unused(Some(&blob));
            self.room.notify_all();
            state = fresh.wait_timeout(state, POLL_INTERVAL).unwrap_or_else(|e| e.into_inner()).0;
        }
    }

    /// Removes the follower `id`.
    pub fn unfollow(&self, key: Key, id: u64) {
        let mut state = self.state();
        let Some(read) = state.reads.get_mut(&key) else { return };
        read.followers.retain(|follower| follower.id != id);
        let blob = read.blob;
        state.drop_unused(Some(&blob));
        self.room.notify_all();
    }

    /// Waits until the read may read its next chunk. False when it has no follower any more.
    pub fn may_read(&self, key: Key) -> bool {
        let mut state = self.state();
        loop {
            let Some(read) = state.reads.get(&key) else { return false };
            if self.cancel.raised() {
                return false;
            }
            let runner = read.front_runner();
            let full = (read.end - read.start) as usize >= self.limits.window_bytes.max(CHUNK_BYTES);
            let is_first = state.reads.keys().next() == Some(&key) && read.chunks.len() < 2;
            let fits = !full && (state.used < self.limits.all_windows_bytes || is_first);
            if read.end.saturating_sub(runner) < MAX_AHEAD_BYTES && fits {
                return true;
            }
            let starved = read.end <= runner && !read.followers.is_empty();
            let since = Instant::now();
            state = self.room.wait_timeout(state, POLL_INTERVAL).unwrap_or_else(|e| e.into_inner()).0;
            if starved && !fits {
                self.make_room(&mut state, key, full, since);
            }
        }
    }

    /// Adds the time since `since` to the delay of the subscribers that hold the oldest chunk. Drops the chunk when all
    /// of them exceed the maximum delay.
    fn make_room(&self, state: &mut WindowState, key: Key, full: bool, since: Instant) {
        let WindowState { subscribers, reads, used, .. } = state;
        let oldest = match full {
            true => reads.get_mut(&key),
            false => reads.values_mut().find(|read| !read.chunks.is_empty()),
        };
        let Some(read) = oldest else { return };
        let (now, max_delay) = (Instant::now(), self.limits.max_delay + self.started.elapsed() / 10);
        let laggards = read.laggards(subscribers);
        for &laggard in &laggards {
            let subscriber = &mut subscribers[laggard];
            subscriber.delay += now.saturating_duration_since(since.max(subscriber.counted_until));
            subscriber.counted_until = now;
        }
        if laggards.iter().all(|&laggard| subscribers[laggard].delay > max_delay) {
            *used -= read.drop_oldest();
            self.room.notify_all();
        }
    }

    pub fn push(&self, key: Key, chunk: Vec<u8>) {
        let mut state = self.state();
        let WindowState { reads, used, .. } = &mut *state;
        let Some(read) = reads.get_mut(&key) else { return };
        *used += chunk.len();
        read.end += chunk.len() as u64;
        read.chunks.push_back(Arc::new(chunk));
        read.fresh.notify_all();
    }

    /// Ends the read.
    pub fn end_read(&self, key: Key, how: Result<()>) {
        if let Some(read) = self.state().reads.get_mut(&key)
            && read.ended.is_none()
        {
            read.ended = Some(how);
            read.fresh.notify_all();
        }
    }
}
