//! All output: answers on standard output, progress and messages on standard error.

pub mod answer;
pub(super) mod bars;
pub(super) mod diff_report;
pub(super) mod image_report;
pub(super) mod line_progress;
pub mod options;
pub mod progress;
pub(super) mod referrer_tree;
pub(super) mod report;
pub mod tally;
pub mod terminal;
