//! Progress without a terminal: one line per destination every few seconds, or JSON lines.

use super::tally::Tally;
use super::terminal::{json_line, line, lock};
use crate::message::printable;
use crate::progress::{Event, Outcome};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Time between two plain lines of a destination.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Maximum number of lines per interval; more destinations print less often.
const MAX_LINES_PER_INTERVAL: usize = 10;
/// Time between two `progress` lines in JSON.
const JSON_INTERVAL: Duration = Duration::from_millis(500);

/// The counters of each destination, by name. A single destination has the key `None`.
type Tallies = BTreeMap<Option<String>, Tally>;

fn tally<'t>(tallies: &'t mut Tallies, destination: Option<&str>) -> &'t mut Tally {
    tallies.entry(destination.map(str::to_owned)).or_default()
}

/// Plain lines, printed by a thread.
pub struct Lines {
    tallies: Arc<Mutex<Tallies>>,
    ticker: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
}

impl Lines {
    pub fn new() -> Lines {
        Lines { tallies: Arc::default(), ticker: Mutex::new(None) }
    }

    pub fn event(&self, destination: Option<&str>, event: &Event<'_>) {
        tally(&mut lock(&self.tallies), destination).count(event);
        let mut ticker = lock(&self.ticker);
        if ticker.is_none() {
            let (send, receive) = mpsc::channel::<()>();
            let (tallies, started) = (self.tallies.clone(), Instant::now());
            let tick = move || {
                let mut last = Instant::now();
                while receive.recv_timeout(LINE_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                    let tallies = lock(&tallies);
                    // Fifty hosts print as many lines per minute as ten.
                    let due =
                        LINE_INTERVAL * u32::try_from(tallies.len().div_ceil(MAX_LINES_PER_INTERVAL)).unwrap_or(1);
                    if last.elapsed() + LINE_INTERVAL / 2 < due {
                        continue;
                    }
                    last = Instant::now();
                    for (name, tally) in &*tallies {
                        let name = name.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
                        line(&format!("{name}{}", tally.describe(started.elapsed())));
                    }
                }
            };
            *ticker = Some((send, thread::spawn(tick)));
        }
    }

    pub fn remove(&self, name: &str) {
        lock(&self.tallies).remove(&Some(name.to_owned()));
    }

    pub fn stop(&self) {
        if let Some((send, ticker)) = lock(&self.ticker).take() {
            drop(send);
            let _ = ticker.join();
        }
    }
}

/// One JSON object per line.
#[derive(Default)]
pub struct Json(Mutex<(Tallies, HashMap<Option<String>, Instant>)>);

impl Json {
    pub fn event(&self, destination: Option<&str>, event: &Event<'_>) {
        let mut state = lock(&self.0);
        let (tallies, last) = &mut *state;
        let tally = tally(tallies, destination);
        tally.count(event);
        let mut document = match event {
            Event::Plan { blobs, bytes, existing_blobs, existing_bytes } => json!({
                "event": "plan",
                "blobs": blobs,
                "bytes": bytes,
                "existing_blobs": existing_blobs,
                "existing_bytes": existing_bytes,
            }),
            Event::BlobStart { id, label, size } => {
                json!({ "event": "blob_start", "id": id, "label": printable(label), "size": size })
            }
            Event::BlobEnd { id, outcome } => {
                let outcome = match outcome {
                    Outcome::Transferred => "transferred",
                    Outcome::Existing => "existing",
                    Outcome::Failed => "failed",
                };
                json!({
                    "event": "blob_end",
                    "id": id,
                    "outcome": outcome,
                    "transferred_bytes": tally.done,
                    "total_bytes": tally.total,
                })
            }
            _ => {
                let key = destination.map(str::to_owned);
                if last.get(&key).is_some_and(|last| last.elapsed() < JSON_INTERVAL) {
                    return;
                }
                last.insert(key, Instant::now());
                json!({ "event": "progress", "transferred_bytes": tally.done, "total_bytes": tally.total })
            }
        };
        if let (Some(name), Some(object)) = (destination, document.as_object_mut()) {
            object.insert("destination".to_owned(), name.into());
        }
        json_line(&document);
    }

    pub fn remove(&self, name: &str) {
        let (tallies, last) = &mut *lock(&self.0);
        tallies.remove(&Some(name.to_owned()));
        last.remove(&Some(name.to_owned()));
    }
}
