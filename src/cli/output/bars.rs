//! Bars on a terminal: one for everything, and one each for the first few blobs that are on their way.

use super::tally::Tally;
use super::terminal::lock;
use crate::error::on_one_line;
use crate::progress::Event;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

/// Bars for blobs at once; more would push the one that matters off a small terminal.
const SHOWN: usize = 4;
/// Blobs below this many bytes are gone before a bar is seen.
const WORTH_A_BAR: u64 = 1 << 20;
/// Destinations with a bar of their own at once.
const MEMBERS_SHOWN: usize = 20;
const MEMBER: &str = "{prefix:24!} {bar:20} {bytes:>10} of {total_bytes:<10} {bytes_per_sec:>12}  {msg}";
const MEMBER_UNPLANNED: &str = "{prefix:24!} {bytes:>10} {bytes_per_sec:>12}";
const REDRAWS_A_SECOND: u8 = 10;
/// What passes once has no total.
const UNPLANNED: &str = "{spinner} {bytes}  {bytes_per_sec}";

pub struct Bars {
    all: MultiProgress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tally: Tally,
    overall: Option<ProgressBar>,
    blobs: HashMap<u64, ProgressBar>,
    members: HashMap<String, (Tally, Option<ProgressBar>)>,
}

impl Bars {
    pub fn new() -> Bars {
        let target = ProgressDrawTarget::stderr_with_hz(REDRAWS_A_SECOND);
        Bars { all: MultiProgress::with_draw_target(target), state: Mutex::default() }
    }

    /// Runs `print` with the bars out of the way.
    pub fn above(&self, print: impl FnOnce()) {
        self.all.suspend(print);
    }

    /// Takes every bar off the terminal.
    pub fn clear(&self) {
        let mut state = lock(&self.state);
        let overall = state.overall.take();
        let members: Vec<ProgressBar> = state.members.drain().filter_map(|(_, (_, bar))| bar).collect();
        for bar in state.blobs.drain().map(|(_, bar)| bar).chain(overall).chain(members) {
            bar.finish_and_clear();
        }
        let _ = self.all.clear();
    }

    pub fn event(&self, whose: Option<&str>, event: &Event<'_>) {
        let mut state = lock(&self.state);
        if let Some(name) = whose {
            return self.member(&mut state, name, event);
        }
        state.tally.count(event);
        if state.overall.is_none() {
            let bar = self.all.add(ProgressBar::no_length().with_style(style(UNPLANNED)));
            bar.enable_steady_tick(Duration::from_millis(200));
            state.overall = Some(bar);
        }
        match *event {
            Event::BlobStart { id, label, size } => {
                if state.blobs.len() < SHOWN && size.is_none_or(|size| size >= WORTH_A_BAR) {
                    state.blobs.insert(id, self.blob(label, size));
                }
            }
            Event::BlobMoved { id, bytes } => {
                if let Some(bar) = state.blobs.get(&id) {
                    bar.inc(bytes);
                }
            }
            Event::BlobEnd { id, .. } => {
                if let Some(bar) = state.blobs.remove(&id) {
                    bar.finish_and_clear();
                    self.all.remove(&bar);
                }
            }
            Event::Plan { .. } | Event::Say(_) | Event::Detail(_) | Event::Retry { .. } => {}
        }
        state.show();
    }

    /// One of several destinations: a bar for each, as far as there is room.
    fn member(&self, state: &mut State, name: &str, event: &Event<'_>) {
        let shown = state.members.values().filter(|(_, bar)| bar.is_some()).count();
        let (tally, bar) = state.members.entry(name.to_owned()).or_default();
        tally.count(event);
        if bar.is_none() && shown < MEMBERS_SHOWN {
            let label: String = name.chars().take(40).collect();
            *bar = Some(self.all.add(ProgressBar::no_length().with_style(style(MEMBER_UNPLANNED))).with_prefix(label));
        }
        let Some(bar) = bar else { return };
        if let Some(total) = tally.total {
            if bar.length() != Some(total) {
                bar.set_style(style(MEMBER));
                bar.set_length(total);
            }
            bar.set_message(format!("{} of {} blobs", tally.blobs_done, tally.blobs));
        }
        bar.set_position(tally.done);
    }

    /// The destination `name` is done.
    pub fn leave(&self, name: &str) {
        if let Some((_, Some(bar))) = lock(&self.state).members.remove(name) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
    }

    fn blob(&self, label: &str, size: Option<u64>) -> ProgressBar {
        let label: String = on_one_line(label).chars().take(40).collect();
        let bar = match size {
            Some(size) => ProgressBar::new(size).with_style(style("  {msg:20!} {bar:24} {bytes:>10}")),
            None => ProgressBar::no_length().with_style(style("  {msg:20!} {bytes:>10}")),
        };
        self.all.add(bar).with_message(label)
    }
}

impl State {
    fn show(&self) {
        let Some(bar) = &self.overall else { return };
        if self.tally.total != bar.length() || bar.position() == 0 {
            bar.set_style(match self.tally.total {
                Some(_) => style("{bar:30} {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left  {msg}"),
                None => style(UNPLANNED),
            });
        }
        if let Some(total) = self.tally.total {
            bar.set_length(total);
            bar.set_message(format!("{} of {} blobs", self.tally.blobs_done, self.tally.blobs));
        }
        bar.set_position(self.tally.done);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("written here and tested").progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Outcome;

    #[test]
    fn every_bar_has_a_style_and_is_gone_at_the_end() {
        let bars = Bars { all: MultiProgress::with_draw_target(ProgressDrawTarget::hidden()), state: Mutex::default() };
        for event in [
            Event::BlobStart { id: 0, label: "of unknown size\x1b[2J", size: None },
            Event::Plan { blobs: 2, bytes: 8 << 20, held_blobs: 0, held_bytes: 0 },
            Event::BlobStart { id: 1, label: "sha256:0123456789ab", size: Some(4 << 20) },
            Event::BlobMoved { id: 1, bytes: 1 << 20 },
            Event::BlobEnd { id: 1, outcome: Outcome::Moved },
        ] {
            bars.event(None, &event);
            bars.event(Some("ssh://node1"), &event);
        }
        assert_eq!(lock(&bars.state).blobs.len(), 1);
        assert_eq!(lock(&bars.state).blobs[&0].message(), "of unknown size?[2J");
        assert!(lock(&bars.state).members["ssh://node1"].1.is_some());
        bars.leave("ssh://node1");
        assert!(lock(&bars.state).members.is_empty());
        bars.clear();
        assert!(lock(&bars.state).blobs.is_empty() && lock(&bars.state).overall.is_none());
    }
}
