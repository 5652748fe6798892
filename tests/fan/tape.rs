//! What passes once, for several readers.

use imgmv::internals::fanout::{FanoutLimits, TeeReader, split};
use imgmv::{Cancel, Error, Kind};
use std::io::{self, Cursor, Read};
use std::thread;
use std::time::Duration;

const SIZE: usize = 5 << 20;

fn limits(stall_timeout: Duration) -> FanoutLimits {
    FanoutLimits { window_bytes: 512 << 10, stall_timeout, ..FanoutLimits::default() }
}

fn noise() -> Vec<u8> {
    (0..SIZE).map(|i| (i * 31 + i / 251) as u8).collect()
}

fn ends(bytes: impl Read + Send + 'static, readers: usize, stall_timeout: Duration, cancel: &Cancel) -> Vec<TeeReader> {
    split(Box::new(bytes), readers, &limits(stall_timeout), cancel).unwrap()
}

fn whole(mut end: TeeReader) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    end.read_to_end(&mut all).map(|_| all)
}

#[test]
fn everybody_gets_every_byte_though_some_go() {
    let mut ends = ends(Cursor::new(noise()), 6, Duration::from_secs(3600), &Cancel::default());
    let mut leaves = ends.pop().unwrap();
    leaves.read_exact(&mut [0; 100]).unwrap();
    drop(leaves);
    drop(ends.pop());
    let readers: Vec<_> = ends.into_iter().map(|end| thread::spawn(move || whole(end).unwrap())).collect();
    for reader in readers {
        assert!(reader.join().unwrap() == noise());
    }
}

#[test]
fn one_that_takes_nothing_fails_and_the_others_go_on() {
    let mut ends = ends(Cursor::new(noise()), 3, Duration::from_secs(2), &Cancel::default());
    let mut stuck = ends.pop().unwrap();
    stuck.read_exact(&mut [0; 100]).unwrap();
    let readers: Vec<_> = ends.into_iter().map(|end| thread::spawn(move || whole(end))).collect();
    for reader in readers {
        assert!(reader.join().unwrap().unwrap() == noise());
    }
    let mut rest = Vec::new();
    let error = Error::from(stuck.read_to_end(&mut rest).unwrap_err());
    assert!(error.to_string().contains("took no data"), "{error}");
}

#[test]
fn the_reason_for_a_broken_end_is_everybodys() {
    struct Broken(u64);
    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0 {
                0 => Err(Error::remote_host("docker save ended with status 1").into()),
                left => {
                    let n = buffer.len().min(left as usize);
                    self.0 -= n as u64;
                    Ok(n)
                }
            }
        }
    }
    let ends = ends(Broken(1 << 20), 2, Duration::from_secs(3600), &Cancel::default());
    let readers: Vec<_> = ends.into_iter().map(|end| thread::spawn(move || whole(end))).collect();
    for reader in readers {
        let error = Error::from(reader.join().unwrap().unwrap_err());
        assert_eq!(error.kind(), Kind::RemoteHost);
    }
}

#[test]
fn cancelling_ends_those_who_wait_for_others() {
    let cancel = Cancel::default();
    let mut ends = ends(Cursor::new(noise()), 2, Duration::from_secs(3600), &cancel);
    let (quick, _stuck) = (ends.remove(0), ends.remove(0));
    let reader = thread::spawn(move || whole(quick));
    cancel.raise();
    assert_eq!(Error::from(reader.join().unwrap().unwrap_err()).kind(), Kind::Interrupted);
}
