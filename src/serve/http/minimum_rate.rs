//! The minimum rate of a client: a client that sends or reads a byte now and then occupies a connection as much as an
//! idle one.

use std::time::Duration;

/// The minimum number of bytes in one idle time.
const MIN_BYTES_PER_IDLE_TIME: u64 = 1 << 10;

/// The progress of one connection in one direction. Only the time in which the server waits for the client counts.
#[derive(Debug)]
pub struct MinimumRate {
    idle: Duration,
    waited: Duration,
    moved: u64,
}

impl MinimumRate {
    pub fn new(idle: Duration) -> MinimumRate {
        MinimumRate { idle, waited: Duration::ZERO, moved: 0 }
    }

    /// The remaining time of the client.
    pub fn remaining(&self) -> Duration {
        self.idle.saturating_sub(self.waited)
    }

    /// Records that the client took `time` for `bytes`.
    pub fn record(&mut self, time: Duration, bytes: usize) {
        self.waited += time;
        self.moved += bytes as u64;
        if self.moved >= MIN_BYTES_PER_IDLE_TIME {
            (self.waited, self.moved) = (Duration::ZERO, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_now_and_then_is_not_progress_and_a_kibibyte_is() {
        let (mut rate, second) = (MinimumRate::new(Duration::from_secs(60)), Duration::from_secs(1));
        (0..60).for_each(|_| rate.record(second, 17));
        assert_eq!(rate.remaining(), Duration::ZERO);
        rate.record(second, 4);
        assert_eq!(rate.remaining(), Duration::from_secs(60));
        (0..1000).for_each(|_| rate.record(second, 18));
        assert!(rate.remaining() > Duration::ZERO);
    }
}
