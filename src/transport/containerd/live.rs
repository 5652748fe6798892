//! Reading a database that its owner is writing. containerd holds bolt's lock for as long as it runs, so none is taken;
//! instead whatever was read is thrown away unless the database is still in the state in which reading began.
//!
//! That is enough: a transaction writes only into pages that the state before it does not use, so the pages of the
//! newest state change only once there are two newer ones. Anything looser was measured to give mixed states in
//! silence.

use super::bolt::{Bolt, Meta, Pages};
use crate::error::{Error, Result};
use std::thread::sleep;
use std::time::Duration;

/// Readings; one takes milliseconds, and containerd writes some ten times a second when it is busy.
const READINGS: u32 = 200;
/// Looks at meta pages of which neither is whole: they might be in the middle of being written.
const LOOKS: u32 = 5;
/// Pause before another reading, once so long for each that failed, up to ten times.
const PAUSE: Duration = Duration::from_millis(2);

/// What `read` makes of one state of the database.
///
/// Fails with `Failed` where the database never stays in one state for long enough.
pub fn read_live<T>(pages: &dyn Pages, read: impl FnMut(&Bolt<'_>) -> Result<T>) -> Result<T> {
    read_within(READINGS, PAUSE, pages, read)
}

fn read_within<T>(
    readings: u32,
    pause: Duration,
    pages: &dyn Pages,
    mut read: impl FnMut(&Bolt<'_>) -> Result<T>,
) -> Result<T> {
    let mut blind = 0;
    for reading in 0..readings {
        sleep(pause * reading.min(10));
        let before = match Meta::newest(pages) {
            Ok(meta) => meta,
            Err(error) if blind == LOOKS => return Err(error),
            Err(_) => {
                blind += 1;
                continue;
            }
        };
        let done = read(&Bolt::new(pages, before)?);
        if Meta::newest(pages).is_ok_and(|after| after == before) {
            return done;
        }
    }
    Err(Error::failed(format!(
        "the database changed during each of {readings} readings; try again when containerd has less to do"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::containerd::bolt::tests::{commit, fixture};
    use crate::transport::containerd::records;
    use std::cell::{Cell, RefCell};
    use std::io;

    /// A database that is in one state up to the so-manieth look at it, then in the other.
    struct Changing<'d> {
        states: [&'d [u8]; 2],
        after: u32,
        looks: Cell<u32>,
    }

    impl Changing<'_> {
        fn state(&self) -> &[u8] {
            self.states[usize::from(self.looks.get() >= self.after)]
        }
    }

    impl Pages for Changing<'_> {
        fn size(&self) -> io::Result<u64> {
            self.state().size()
        }
        fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
            let done = self.state().read(at, buffer);
            self.looks.set(self.looks.get() + 1);
            done
        }
    }

    /// A database with a new state at every look.
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
                let new = || Changing { states: [&before, &after], after: at, looks: Cell::new(0) };
                let found = records::listing(&new()).unwrap().records;
                assert!(whole.contains(&found), "{name} {at}");
                // What would be taken for the truth without the second look at the metas.
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
        assert!(error.unwrap_err().to_string().contains("changed during each of 20 readings"));
    }

    #[test]
    fn what_is_no_database_is_said_at_once() {
        for bytes in [&b""[..], &[0; 100_000]] {
            assert!(read_live(&bytes, |_| Ok(())).unwrap_err().to_string().contains("no bolt database"));
        }
    }
}
