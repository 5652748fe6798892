//! Reads a database while containerd writes it. containerd has bolt's lock as long as it runs, so imgmv takes no lock.
//! It discards the result of a read unless the database is still in the state in which the read started.
//!
//! This is sufficient: a transaction writes only to pages that the previous state does not use, so the pages of the
//! newest state change only after two newer transactions. Weaker checks returned mixed states without an error, as
//! measured.

use super::bolt::{Bolt, Meta, Pages};
use crate::error::{Error, Result};
use std::thread::sleep;
use std::time::Duration;

/// A read takes milliseconds; a busy containerd writes about ten times a second.
const MAX_READS: u32 = 200;
/// The number of retries if no meta page is valid: containerd may be writing them.
const MAX_META_RETRIES: u32 = 5;
/// The pause before a retry; it grows with each retry, up to ten times this.
const RETRY_PAUSE: Duration = Duration::from_millis(2);

/// Returns the result of `read` on one consistent state of the database.
///
/// Fails with `Failed` if the database changes during every read.
pub fn read_live<T>(pages: &dyn Pages, read: impl FnMut(&Bolt<'_>) -> Result<T>) -> Result<T> {
    read_within(MAX_READS, RETRY_PAUSE, pages, read)
}

fn read_within<T>(
    max_reads: u32,
    pause: Duration,
    pages: &dyn Pages,
    mut read: impl FnMut(&Bolt<'_>) -> Result<T>,
) -> Result<T> {
    let mut meta_retries = 0;
    for attempt in 0..max_reads {
        sleep(pause * attempt.min(10));
        let before = match Meta::newest(pages) {
            Ok(meta) => meta,
            Err(error) if meta_retries == MAX_META_RETRIES => return Err(error),
            Err(_) => {
                meta_retries += 1;
                continue;
            }
        };
        let done = read(&Bolt::new(pages, before)?);
        if Meta::newest(pages).is_ok_and(|after| after == before) {
            return done;
        }
    }
    Err(Error::failed(format!(
        "the database changed during each of {max_reads} reads; retry when containerd is less busy"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::containerd::bolt::tests::{commit, fixture};
    use crate::transport::containerd::records;
    use std::cell::{Cell, RefCell};
    use std::io;

    /// A database that changes to its second state after `after` reads.
    struct Changing<'d> {
        states: [&'d [u8]; 2],
        after: u32,
        reads: Cell<u32>,
    }

    impl Changing<'_> {
        fn state(&self) -> &[u8] {
            self.states[usize::from(self.reads.get() >= self.after)]
        }
    }

    impl Pages for Changing<'_> {
        fn size(&self) -> io::Result<u64> {
            self.state().size()
        }
        fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
            let done = self.state().read(at, buffer);
            self.reads.set(self.reads.get() + 1);
            done
        }
    }

    /// A database that changes at every read.
    struct Restless(RefCell<(Vec<u8>, u64)>);

    impl Pages for Restless {
        fn size(&self) -> io::Result<u64> {
            Ok(self.0.borrow().0.len() as u64)
        }
        fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
            let (bytes, txid) = &mut *self.0.borrow_mut();
            *txid += 1;
            commit(bytes, *txid);
            (&bytes[..]).read(at, buffer)
        }
    }

    #[test]
    fn a_state_is_never_a_mixture_of_two() {
        for name in ["ctr16", "ctr21"] {
            let (before, after) = (fixture(name), fixture(&format!("{name}-many")));
            let whole = [&before, &after].map(|bytes| records::images_in(bytes).unwrap());
            assert!(whole[0] != whole[1]);
            let mut mixtures = 0;
            for at in 1..60 {
                let new = || Changing { states: [&before, &after], after: at, reads: Cell::new(0) };
                let found = records::listing(&new()).unwrap().records;
                assert!(whole.contains(&found), "{name} {at}");
                // The result without the second read of the meta pages.
                let naive = new();
                let meta = Meta::newest(&naive).unwrap();
                let read = records::read(&Bolt::new(&naive, meta).unwrap());
                mixtures += u32::from(!read.is_ok_and(|listing| whole.contains(&listing.records)));
            }
            assert!(mixtures > 0, "{name}: the two states have nothing in common that could be mixed");
        }
    }

    #[test]
    fn a_database_that_never_rests_is_given_up_with_a_sentence() {
        let restless = Restless(RefCell::new((fixture("ctr16"), 1 << 32)));
        let error = read_within(20, Duration::ZERO, &restless, |bolt| bolt.each(&bolt.root(), &mut |_, _| Ok(())));
        assert!(error.unwrap_err().to_string().contains("changed during each of 20 reads"));
    }

    #[test]
    fn what_is_no_database_is_said_at_once() {
        for bytes in [&b""[..], &[0; 100_000]] {
            assert!(read_live(&bytes, |_| Ok(())).unwrap_err().to_string().contains("not a bolt database"));
        }
    }
}
