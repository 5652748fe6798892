//! The blobs that lanes have not begun, and what they have.

use crate::copy::Work;
use std::collections::VecDeque;

#[derive(Default)]
pub(super) struct Queue {
    pub large: VecDeque<Work>,
    pub small: VecDeque<Work>,
    pub large_under_way: usize,
    pub lanes: usize,
    /// A lane waits for a place for the next large one.
    pub waits: bool,
}

impl Queue {
    /// The next one, where so many large ones may be under way.
    pub fn next(&mut self, large: usize) -> Option<Work> {
        if self.large_under_way < large
            && let Some(work) = self.large.pop_front()
        {
            self.large_under_way += 1;
            return Some(work);
        }
        self.small.pop_front()
    }
}
