//! Reader for one blob of a remote containerd, which resumes where a connection broke.

use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::image::Digest;
use crate::progress::{Event, Watch};
use crate::remote::{Exit, Host, Running};
use std::{
    io::{self, Read},
    sync::Arc,
    thread,
    time::Duration,
};

/// Consecutive attempts without any bytes.
const MAX_ATTEMPTS: u32 = 4;
/// The pause before the second attempt; it doubles for each later one.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Interval at which a pause checks for a signal.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Prints ctr's output without the first `$1 - 1` bytes.
const SKIP_BYTES: &str = r#"n=$1; shift; "$@" | tail -c "+$n""#;

pub(super) struct CtrBlobReader {
    host: Arc<dyn Host>,
    /// Prints the complete blob on standard output.
    command: Vec<String>,
    digest: Digest,
    offset: u64,
    size: Option<u64>,
    /// The running command and its output.
    running: Option<(Running, Box<dyn Read + Send>)>,
    ended: bool,
    failed_attempts: u32,
    watch: Arc<dyn Watch>,
    cancel: Cancel,
}

impl CtrBlobReader {
    pub fn new(
        host: Arc<dyn Host>,
        command: Vec<String>,
        digest: Digest,
        offset: u64,
        size: Option<u64>,
        watch: Arc<dyn Watch>,
        cancel: &Cancel,
    ) -> CtrBlobReader {
        let cancel = cancel.clone();
        let (running, ended, failed_attempts) = (None, false, 0);
        CtrBlobReader { host, command, digest, offset, size, running, ended, failed_attempts, watch, cancel }
    }

    fn start(&self) -> Result<(Running, Box<dyn Read + Send>)> {
        let skip = (self.offset + 1).to_string();
        let mut argv: Vec<&str> = match self.offset {
            0 => Vec::new(),
            _ => vec!["sh", "-c", SKIP_BYTES, "imgmv", &skip],
        };
        argv.extend(self.command.iter().map(String::as_str));
        let mut running = self.host.run(&argv)?;
        running.stdin = None;
        let stdout = running.stdout.take();
        let stdout = stdout.ok_or_else(|| Error::failed("internal error: a command was started without its output"))?;
        Ok((running, stdout))
    }

    /// Reads once; `Ok(0)` at the end of the blob.
    fn read_once(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.running.is_none() {
            self.running = Some(self.start()?);
        }
        let Some((_, stdout)) = &mut self.running else { return Ok(0) };
        let n = stdout.read(buffer).map_err(|e| Error::remote_host(format!("{}: {e}", self.host.name())))?;
        if n > 0 {
            return Ok(n);
        }
        let Some((running, _)) = self.running.take() else { return Ok(0) };
        let exit = running.wait()?;
        match self.size {
            Some(size) if self.offset >= size => Ok(0),
            None if exit.success() => Ok(0),
            _ => Err(self.cut_error(&exit)),
        }
    }

    fn cut_error(&self, exit: &Exit) -> Error {
        let (host, digest) = (self.host.name(), &self.digest);
        let absent = exit.stderr.contains("not found") && exit.status != Some(127);
        let sentence = format!("{host}: blob {digest} ended at byte {}: ctr {}", self.offset, exit.describe());
        if absent { Error::not_found(sentence) } else { Error::remote_host(sentence) }
    }

    /// Whether `error` is transient and attempts are left; if so, waits for the retry pause first.
    fn prepare_retry(&mut self, error: &Error) -> Result<bool> {
        self.running = None;
        self.failed_attempts += 1;
        let transient = !matches!(error.kind(), Kind::NotFound | Kind::Denied | Kind::Interrupted | Kind::Usage);
        if !transient || self.failed_attempts >= MAX_ATTEMPTS {
            return Ok(false);
        }
        let after = RETRY_PAUSE * (1 << (self.failed_attempts - 1));
        let what = self.digest.short();
        self.watch.event(Event::Retry { what: &what, why: &error.to_string(), after });
        let intervals = after.as_millis() / POLL_INTERVAL.as_millis();
        for _ in 0..intervals {
            self.cancel.check()?;
            thread::sleep(POLL_INTERVAL);
        }
        Ok(true)
    }
}

impl Read for CtrBlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.ended {
            return Ok(0);
        }
        loop {
            match self.read_once(buffer) {
                Ok(0) => {
                    self.ended = true;
                    return Ok(0);
                }
                Ok(n) => {
                    self.offset += n as u64;
                    self.failed_attempts = 0;
                    return Ok(n);
                }
                Err(error) => {
                    if !self.prepare_retry(&error)? {
                        return Err(error.into());
                    }
                }
            }
        }
    }
}
