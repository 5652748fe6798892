//! The deadline of a connection that is being opened.

use std::sync::Arc;
use std::time::Instant;
use ureq::unversioned::transport::{ConnectionDetails, NextTimeout, time};

/// The time limit for all steps of opening one connection.
pub struct ConnectDeadline {
    started: Instant,
    total: NextTimeout,
    pub current_time: Arc<dyn Fn() -> time::Instant + Send + Sync>,
}

impl ConnectDeadline {
    pub fn new(details: &ConnectionDetails<'_>) -> ConnectDeadline {
        ConnectDeadline { started: Instant::now(), total: details.timeout, current_time: details.current_time.clone() }
    }

    pub fn remaining(&self) -> NextTimeout {
        let mut remaining = self.total;
        if !remaining.after.is_not_happening() {
            remaining.after = remaining.after.saturating_sub(self.started.elapsed()).into();
        }
        remaining
    }
}
