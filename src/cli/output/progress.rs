//! What a person or a machine sees on standard error while the engine works: bars on a terminal, a line every few
//! seconds elsewhere, JSON lines, or nothing.

use super::bars::Bars;
use super::line_progress::{Json, Lines};
use super::options::{OutputOptions, Progress};
use super::terminal::{json_line, line};
use crate::error::on_one_line;
use crate::progress::{Event, Watch};
use serde_json::json;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
            Event::Say(text) => return self.message(Loudness::Normal, "info", &told(text)),
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
            Face::Json(_) => json_line(&json!({ "event": event, "message": text })),
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
