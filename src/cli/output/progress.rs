//! What a person or a machine sees on standard error while the engine works: bars on a terminal, a line every few
//! seconds elsewhere, JSON lines, or nothing.

use super::bars::Bars;
use super::line_progress::{Json, Lines};
use crate::cli::args::{OutputOptions, Progress};
use imgmv::error::on_one_line;
use imgmv::progress::{Event, Outcome, Watch};
use indicatif::HumanBytes;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// How loud the talk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Loudness {
    Quiet,
    Normal,
    Verbose,
}

/// Listens to the engine and shows it on standard error.
pub struct Screen {
    loudness: Loudness,
    face: Face,
    retries: AtomicUsize,
}

enum Face {
    Bars(Bars),
    Lines(Lines),
    Json(Json),
    Bare,
}

impl Screen {
    pub fn new(talk: &OutputOptions) -> Screen {
        let loudness = match (talk.quiet, talk.verbose) {
            (true, _) => Loudness::Quiet,
            (false, true) => Loudness::Verbose,
            (false, false) => Loudness::Normal,
        };
        let terminal = io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let face = match talk.progress {
            Progress::Json => Face::Json(Json::default()),
            _ if talk.quiet => Face::Bare,
            Progress::None => Face::Bare,
            Progress::Auto | Progress::Bar if terminal => Face::Bars(Bars::new()),
            Progress::Auto | Progress::Bar | Progress::Plain => Face::Lines(Lines::new()),
        };
        Screen { loudness, face, retries: AtomicUsize::new(0) }
    }

    /// The part of the screen that is one of several destinations', called `name`; gone when it is dropped.
    pub fn member(screen: &Arc<Screen>, name: &str) -> Arc<dyn Watch> {
        let name: Arc<str> = on_one_line(name).into();
        Arc::new(Member { screen: screen.clone(), name })
    }

    fn show(&self, whose: Option<&str>, event: &Event<'_>) {
        let told = |text: &str| match whose {
            // Much of what is said of a host begins with its name.
            Some(name) if !begins_with_host(text, name) => format!("{name}: {text}"),
            _ => text.to_owned(),
        };
        match event {
            Event::Say(text) => return self.message(Loudness::Normal, "say", &told(text)),
            Event::Detail(text) => return self.message(Loudness::Verbose, "detail", &told(text)),
            Event::Retry { what, why, after } => {
                self.retries.fetch_add(1, Ordering::Relaxed);
                let text = format!("{what}: {why}; again in {:.1} s", after.as_secs_f64());
                return self.message(Loudness::Normal, "retry", &told(&text));
            }
            _ => {}
        }
        match &self.face {
            Face::Bars(bars) => bars.event(whose, event),
            Face::Lines(lines) => lines.event(whose, event),
            Face::Json(json) => json.event(whose, event),
            Face::Bare => {}
        }
    }

    /// Leaves the terminal clean; to be called before an answer or an error is printed.
    pub fn end(&self) {
        match &self.face {
            Face::Bars(bars) => bars.clear(),
            Face::Lines(lines) => lines.end(),
            Face::Json(_) | Face::Bare => {}
        }
    }

    /// How often something failed and was tried again.
    pub fn retries(&self) -> usize {
        self.retries.load(Ordering::Relaxed)
    }

    /// A sentence that is shown even when quiet.
    pub fn error(&self, text: &str) {
        self.message(Loudness::Quiet, "error", text);
    }

    fn message(&self, least: Loudness, event: &str, text: &str) {
        if self.loudness < least {
            return;
        }
        let text = on_one_line(text);
        match &self.face {
            Face::Bars(bars) => bars.above(|| line(&text)),
            Face::Json(_) => json_line(&json!({ "event": event, "text": text })),
            Face::Lines(_) | Face::Bare => line(&text),
        }
    }
}

impl Watch for Screen {
    fn event(&self, event: Event<'_>) {
        self.show(None, &event);
    }
}

/// One of several destinations.
struct Member {
    screen: Arc<Screen>,
    name: Arc<str>,
}

impl Watch for Member {
    fn event(&self, event: Event<'_>) {
        self.screen.show(Some(&self.name), &event);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        match &self.screen.face {
            Face::Bars(bars) => bars.leave(&self.name),
            Face::Lines(lines) => lines.leave(&self.name),
            Face::Json(json) => json.leave(&self.name),
            Face::Bare => {}
        }
    }
}

/// Whether `text` begins with the host that the destination `name` is on (`node1: …` of `ssh://root@node1`).
fn begins_with_host(text: &str, name: &str) -> bool {
    let host = text.split_once(": ").map_or("", |(host, _)| host);
    !host.is_empty() && !host.contains(' ') && name.contains(host)
}

/// One line on standard error; nobody is told when that is closed.
pub fn line(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

pub(crate) fn json_line(value: &Value) {
    line(&value.to_string());
}

/// A lock that outlives a panic elsewhere: what is shown is never worth another one.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// What has happened so far, in the source's bytes.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    /// None until a plan came: what passes once is counted, not planned.
    pub total: Option<u64>,
    pub done: u64,
    pub blobs: usize,
    pub blobs_done: usize,
    pub held: u64,
    open: HashMap<u64, Open>,
}

/// A blob on its way.
#[derive(Debug, Default, Clone)]
struct Open {
    size: Option<u64>,
    moved: u64,
}

impl Tally {
    pub fn count(&mut self, event: &Event<'_>) {
        match *event {
            Event::Plan { blobs, bytes, held_bytes, .. } => {
                self.total = Some(self.total.unwrap_or(self.done) + bytes);
                self.blobs += blobs;
                self.held += held_bytes;
            }
            Event::BlobStart { id, size, .. } => {
                self.open.insert(id, Open { size, moved: 0 });
            }
            Event::BlobMoved { id, bytes } => {
                self.done += bytes;
                self.open.entry(id).or_default().moved += bytes;
            }
            Event::BlobEnd { id, outcome } => {
                let open = self.open.remove(&id).unwrap_or_default();
                self.blobs_done += usize::from(outcome != Outcome::Failed);
                match outcome {
                    // It was planned for, and need not move after all.
                    Outcome::Held => self.done += open.size.unwrap_or(0).saturating_sub(open.moved),
                    Outcome::Moved => {}
                    Outcome::Failed => self.done = self.done.saturating_sub(open.moved),
                }
            }
            Event::Say(_) | Event::Detail(_) | Event::Retry { .. } => {}
        }
    }

    /// One line for people: how much of how much, how fast, how long still.
    pub fn told(&self, elapsed: Duration) -> String {
        let rate = (self.done as f64 / elapsed.as_secs_f64().max(0.001)) as u64;
        let done = HumanBytes(self.done);
        let Some(total) = self.total else {
            return format!("{done} moved, {}/s", HumanBytes(rate));
        };
        let rest = match rate {
            0 => String::new(),
            rate => format!(", {} s left", total.saturating_sub(self.done) / rate),
        };
        let (blobs_done, blobs) = (self.blobs_done, self.blobs);
        format!("{done} of {}, {blobs_done} of {blobs} blobs, {}/s{rest}", HumanBytes(total), HumanBytes(rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_after_all_counts_as_done_and_what_failed_does_not() {
        let mut tally = Tally::default();
        tally.count(&Event::Plan { blobs: 3, bytes: 300, held_blobs: 0, held_bytes: 0 });
        for (id, moved, outcome) in [(1, 100, Outcome::Moved), (2, 0, Outcome::Held), (3, 50, Outcome::Failed)] {
            tally.count(&Event::BlobStart { id, label: "x", size: Some(100) });
            tally.count(&Event::BlobMoved { id, bytes: moved });
            tally.count(&Event::BlobEnd { id, outcome });
        }
        assert_eq!((tally.done, tally.total, tally.blobs_done), (200, Some(300), 2));
        assert_eq!(tally.told(Duration::from_secs(2)), "200 B of 300 B, 2 of 3 blobs, 100 B/s, 1 s left");
    }

    #[test]
    fn what_passes_once_is_told_without_a_total() {
        let mut tally = Tally::default();
        tally.count(&Event::BlobMoved { id: 1, bytes: 2048 });
        assert_eq!(tally.told(Duration::from_secs(1)), "2.00 KiB moved, 2.00 KiB/s");
    }
}
