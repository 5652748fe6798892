//! Progress where there is no terminal: a line for each destination every few seconds, or JSON lines.

use super::tally::Tally;
use super::terminal::{json_line, line, lock};
use crate::error::printable;
use crate::progress::{Event, Outcome};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Lines of destinations in that time.
const LINES_AT_ONCE: usize = 10;
/// Between two JSON lines about bytes.
const JSON_EVERY: Duration = Duration::from_millis(500);

/// Of each destination, in their order by name; of the only one under no name.
type Tallies = BTreeMap<Option<String>, Tally>;

fn tally<'t>(tallies: &'t mut Tallies, whose: Option<&str>) -> &'t mut Tally {
    tallies.entry(whose.map(str::to_owned)).or_default()
}

/// A plain line every few seconds, one for each destination.
pub struct Lines {
    tallies: Arc<Mutex<Tallies>>,
    ticker: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
}

impl Lines {
    pub fn new() -> Lines {
        Lines { tallies: Arc::default(), ticker: Mutex::new(None) }
    }

    pub fn event(&self, whose: Option<&str>, event: &Event<'_>) {
        tally(&mut lock(&self.tallies), whose).count(event);
        let mut ticker = lock(&self.ticker);
        if ticker.is_none() {
            let (send, receive) = mpsc::channel::<()>();
            let (tallies, began) = (self.tallies.clone(), Instant::now());
            let tick = move || {
                let mut last = Instant::now();
                while receive.recv_timeout(LINE_EVERY) == Err(RecvTimeoutError::Timeout) {
                    let tallies = lock(&tallies);
                    // Fifty hosts tell no more in a minute than five.
                    let due = LINE_EVERY * u32::try_from(tallies.len().div_ceil(LINES_AT_ONCE)).unwrap_or(1);
                    if last.elapsed() + LINE_EVERY / 2 < due {
                        continue;
                    }
                    last = Instant::now();
                    for (name, tally) in &*tallies {
                        let name = name.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
                        line(&format!("{name}{}", tally.told(began.elapsed())));
                    }
                }
            };
            *ticker = Some((send, thread::spawn(tick)));
        }
    }

    pub fn leave(&self, name: &str) {
        lock(&self.tallies).remove(&Some(name.to_owned()));
    }

    pub fn end(&self) {
        if let Some((send, ticker)) = lock(&self.ticker).take() {
            drop(send);
            let _ = ticker.join();
        }
    }
}

/// One JSON object a line.
#[derive(Default)]
pub struct Json(Mutex<(Tallies, HashMap<Option<String>, Instant>)>);

impl Json {
    pub fn event(&self, whose: Option<&str>, event: &Event<'_>) {
        let mut state = lock(&self.0);
        let (tallies, last) = &mut *state;
        let tally = tally(tallies, whose);
        tally.count(event);
        let mut told = match event {
            Event::Plan { blobs, bytes, held_blobs, held_bytes } => json!({
                "event": "plan",
                "blobs": blobs,
                "bytes": bytes,
                "existing_blobs": held_blobs,
                "existing_bytes": held_bytes,
            }),
            Event::BlobStart { id, label, size } => {
                json!({ "event": "blob_start", "id": id, "label": printable(label), "size": size })
            }
            Event::BlobEnd { id, outcome } => {
                let outcome = match outcome {
                    Outcome::Moved => "transferred",
                    Outcome::Held => "existing",
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
                let key = whose.map(str::to_owned);
                if last.get(&key).is_some_and(|last| last.elapsed() < JSON_EVERY) {
                    return;
                }
                last.insert(key, Instant::now());
                json!({ "event": "progress", "transferred_bytes": tally.done, "total_bytes": tally.total })
            }
        };
        if let (Some(name), Some(told)) = (whose, told.as_object_mut()) {
            told.insert("destination".to_owned(), name.into());
        }
        json_line(&told);
    }

    pub fn leave(&self, name: &str) {
        let (tallies, last) = &mut *lock(&self.0);
        tallies.remove(&Some(name.to_owned()));
        last.remove(&Some(name.to_owned()));
    }
}
