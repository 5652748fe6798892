//! What is printed: answers on standard output, progress and messages on standard error.

pub mod answer;
pub(super) mod bars;
pub(super) mod image_report;
pub(super) mod line_progress;
pub mod progress;
pub(super) mod report;
