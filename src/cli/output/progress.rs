//! Progress and messages on standard error: bars on a terminal, else a line every few seconds, JSON lines, or nothing.

use super::bars::Bars;
use super::line_progress::{Json, Lines};
use super::options::{OutputOptions, Progress};
use super::terminal::{json_line, line, lock};
use crate::message::on_one_line;
use crate::progress::{Event, Watch};
use serde_json::json;
use std::collections::HashSet;
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// The amount of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verbosity {
    Quiet,
    Normal,
    Verbose,
}

/// Shows the engine's events on standard error.
pub struct Screen {
    verbosity: Verbosity,
    display: Display,
    retries: AtomicUsize,
    /// The texts of [`Watch::say_once`] that were printed.
    said: Mutex<HashSet<&'static str>>,
}

enum Display {
    Bars(Bars),
    Lines(Lines),
    Json(Json),
    None,
}

impl Screen {
    pub fn new(options: &OutputOptions) -> Screen {
        let verbosity = match (options.quiet, options.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, true) => Verbosity::Verbose,
            (false, false) => Verbosity::Normal,
        };
        let terminal = io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let display = match options.progress {
            Progress::Json => Display::Json(Json::default()),
            _ if options.quiet => Display::None,
            Progress::None => Display::None,
            Progress::Auto | Progress::Bar if terminal => Display::Bars(Bars::new()),
            Progress::Auto | Progress::Bar | Progress::Plain => Display::Lines(Lines::new()),
        };
        Screen { verbosity, display, retries: AtomicUsize::new(0), said: Mutex::default() }
    }

    /// Returns the part of the screen for one of several destinations. It is removed when dropped.
    pub fn for_destination(screen: &Arc<Screen>, name: &str) -> Arc<dyn Watch> {
        let name: Arc<str> = on_one_line(name).into();
        Arc::new(DestinationScreen { screen: screen.clone(), name })
    }

    fn show(&self, destination: Option<&str>, event: &Event<'_>) {
        let text_of = |text: &str| match destination {
            // Many messages about a host start with its name.
            Some(name) if !starts_with_host(text, name) => format!("{name}: {text}"),
            _ => text.to_owned(),
        };
        match event {
            Event::Info(text) => return self.message(Verbosity::Normal, "info", &text_of(text)),
            Event::Detail(text) => return self.message(Verbosity::Verbose, "detail", &text_of(text)),
            Event::Retry { what, why, after } => {
                self.retries.fetch_add(1, Ordering::Relaxed);
                let text = format!("{what}: {why}; retry in {:.1} s", after.as_secs_f64());
                return self.message(Verbosity::Normal, "retry", &text_of(&text));
            }
            _ => {}
        }
        match &self.display {
            Display::Bars(bars) => bars.event(destination, event),
            Display::Lines(lines) => lines.event(destination, event),
            Display::Json(json) => json.event(destination, event),
            Display::None => {}
        }
    }

    /// Removes the progress from the terminal. Called before an answer or an error is printed.
    pub fn clear(&self) {
        match &self.display {
            Display::Bars(bars) => bars.clear(),
            Display::Lines(lines) => lines.stop(),
            Display::Json(_) | Display::None => {}
        }
    }

    /// Number of retries so far.
    pub fn retries(&self) -> usize {
        self.retries.load(Ordering::Relaxed)
    }

    /// Prints a message, also with `--quiet`.
    pub fn error(&self, text: &str) {
        self.message(Verbosity::Quiet, "error", text);
    }

    fn message(&self, minimum: Verbosity, event: &str, text: &str) {
        if self.verbosity < minimum {
            return;
        }
        let text = on_one_line(text);
        match &self.display {
            Display::Bars(bars) => bars.suspend(|| line(&text)),
            Display::Json(_) => json_line(&json!({ "event": event, "message": text })),
            Display::Lines(_) | Display::None => line(&text),
        }
    }
}

impl Watch for Screen {
    fn event(&self, event: Event<'_>) {
        self.show(None, &event);
    }

    fn say_once(&self, text: &'static str) {
        if lock(&self.said).insert(text) {
            self.say(text);
        }
    }
}

/// The screen of one of several destinations.
struct DestinationScreen {
    screen: Arc<Screen>,
    name: Arc<str>,
}

impl Watch for DestinationScreen {
    fn event(&self, event: Event<'_>) {
        self.screen.show(Some(&self.name), &event);
    }

    fn say_once(&self, text: &'static str) {
        self.screen.say_once(text);
    }
}

impl Drop for DestinationScreen {
    fn drop(&mut self) {
        match &self.screen.display {
            Display::Bars(bars) => bars.remove(&self.name),
            Display::Lines(lines) => lines.remove(&self.name),
            Display::Json(json) => json.remove(&self.name),
            Display::None => {}
        }
    }
}

/// Whether `text` starts with the host of the destination `name` (`node1: …` for `ssh://root@node1`).
fn starts_with_host(text: &str, name: &str) -> bool {
    let host = text.split_once(": ").map_or("", |(host, _)| host);
    !host.is_empty() && !host.contains(' ') && name.contains(host)
}
