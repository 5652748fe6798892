//! Progress bars on a terminal: one for the run, and one each for a few blobs in flight; or one per destination.

use super::tally::Tally;
use super::terminal::lock;
use crate::message::on_one_line;
use crate::progress::Event;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

/// Maximum number of blob bars, so that the bar of the run stays visible on a small terminal.
const MAX_BLOB_BARS: usize = 4;
/// Smaller blobs get no bar, because they are transferred before a bar is visible.
const MIN_BAR_BYTES: u64 = 1 << 20;
/// Maximum number of destination bars.
const MAX_DESTINATION_BARS: usize = 20;
const DESTINATION: &str = "{prefix:24!} {bar:20} {bytes:>10} of {total_bytes:<10} {bytes_per_sec:>12}  {msg}";
const DESTINATION_UNPLANNED: &str = "{prefix:24!} {bytes:>10} {bytes_per_sec:>12}";
const REDRAWS_PER_SECOND: u8 = 10;
/// For a streamed source, which has no total.
const UNPLANNED: &str = "{spinner} {bytes}  {bytes_per_sec}";

pub struct Bars {
    all: MultiProgress,
    state: Mutex<BarsState>,
}

#[derive(Default)]
struct BarsState {
    tally: Tally,
    overall: Option<ProgressBar>,
    blobs: HashMap<u64, ProgressBar>,
    destinations: HashMap<String, (Tally, Option<ProgressBar>)>,
}

impl Bars {
    pub fn new() -> Bars {
        let target = ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_SECOND);
        Bars { all: MultiProgress::with_draw_target(target), state: Mutex::default() }
    }

    /// Hides the bars while `print` runs.
    pub fn suspend(&self, print: impl FnOnce()) {
        self.all.suspend(print);
    }

    /// Removes every bar.
    pub fn clear(&self) {
        let mut state = lock(&self.state);
        let overall = state.overall.take();
        let destinations: Vec<ProgressBar> = state.destinations.drain().filter_map(|(_, (_, bar))| bar).collect();
        for bar in state.blobs.drain().map(|(_, bar)| bar).chain(overall).chain(destinations) {
            bar.finish_and_clear();
        }
        let _ = self.all.clear();
    }

    pub fn event(&self, destination: Option<&str>, event: &Event<'_>) {
        let mut state = lock(&self.state);
        if let Some(name) = destination {
            return self.destination_event(&mut state, name, event);
        }
        state.tally.count(event);
        if state.overall.is_none() {
            let bar = self.all.add(ProgressBar::no_length().with_style(style(UNPLANNED)));
            bar.enable_steady_tick(Duration::from_millis(200));
            state.overall = Some(bar);
        }
        match *event {
            Event::BlobStart { id, label, size } => {
                if state.blobs.len() < MAX_BLOB_BARS && size.is_none_or(|size| size >= MIN_BAR_BYTES) {
                    state.blobs.insert(id, self.add_blob(label, size));
                }
            }
            Event::BlobProgress { id, bytes } => {
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
            Event::Plan { .. } | Event::Info(_) | Event::Detail(_) | Event::Retry { .. } => {}
        }
        state.show();
    }

    /// Updates the bar of one of several destinations.
    fn destination_event(&self, state: &mut BarsState, name: &str, event: &Event<'_>) {
        let shown = state.destinations.values().filter(|(_, bar)| bar.is_some()).count();
        let (tally, bar) = state.destinations.entry(name.to_owned()).or_default();
        tally.count(event);
        if bar.is_none() && shown < MAX_DESTINATION_BARS {
            let label: String = name.chars().take(40).collect();
            *bar = Some(
                self.all.add(ProgressBar::no_length().with_style(style(DESTINATION_UNPLANNED))).with_prefix(label),
            );
        }
        let Some(bar) = bar else { return };
        if let Some(total) = tally.total {
            if bar.length() != Some(total) {
                bar.set_style(style(DESTINATION));
                bar.set_length(total);
            }
            bar.set_message(tally.blobs_done_of_all());
        }
        bar.set_position(tally.done);
    }

    /// Removes the bar of the destination `name`, which has finished.
    pub fn remove(&self, name: &str) {
        if let Some((_, Some(bar))) = lock(&self.state).destinations.remove(name) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
    }

    fn add_blob(&self, label: &str, size: Option<u64>) -> ProgressBar {
        let label: String = on_one_line(label).chars().take(40).collect();
        let bar = match size {
            Some(size) => ProgressBar::new(size).with_style(style("  {msg:20!} {bar:24} {bytes:>10}")),
            None => ProgressBar::no_length().with_style(style("  {msg:20!} {bytes:>10}")),
        };
        self.all.add(bar).with_message(label)
    }
}

impl BarsState {
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
            bar.set_message(self.tally.blobs_done_of_all());
        }
        bar.set_position(self.tally.done);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("valid, because every template is tested").progress_chars("=> ")
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
            Event::Plan { blobs: 2, bytes: 8 << 20, existing_blobs: 0, existing_bytes: 0 },
            Event::BlobStart { id: 1, label: "sha256:0123456789ab", size: Some(4 << 20) },
            Event::BlobProgress { id: 1, bytes: 1 << 20 },
            Event::BlobEnd { id: 1, outcome: Outcome::Transferred },
        ] {
            bars.event(None, &event);
            bars.event(Some("ssh://node1"), &event);
        }
        assert_eq!(lock(&bars.state).blobs.len(), 1);
        assert_eq!(lock(&bars.state).blobs[&0].message(), "of unknown size?[2J");
        assert!(lock(&bars.state).destinations["ssh://node1"].1.is_some());
        bars.remove("ssh://node1");
        assert!(lock(&bars.state).destinations.is_empty());
        bars.clear();
        assert!(lock(&bars.state).blobs.is_empty() && lock(&bars.state).overall.is_none());
    }
}
