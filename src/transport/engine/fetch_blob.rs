//! One blob out of another host's containerd, as a reader that goes on where a connection broke.

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

/// Tries that bring nothing, one after the other.
const TRIES: u32 = 4;
/// Before the second try; twice that before the third.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest sleep in one go, so that a signal is heard.
const NAP: Duration = Duration::from_millis(100);

/// What ctr gives, without the first `$1 - 1` bytes.
const TAIL: &str = r#"n=$1; shift; "$@" | tail -c "+$n""#;

pub(super) struct Fetched {
    host: Arc<dyn Host>,
    /// Gives the whole blob on its standard output.
    command: Vec<String>,
    digest: Digest,
    at: u64,
    size: Option<u64>,
    /// The command that runs, and its output.
    running: Option<(Running, Box<dyn Read + Send>)>,
    ended: bool,
    fruitless: u32,
    watch: Arc<dyn Watch>,
    cancel: Cancel,
}

impl Fetched {
    pub fn new(
        host: Arc<dyn Host>,
        command: Vec<String>,
        digest: Digest,
        from: u64,
        size: Option<u64>,
        watch: Arc<dyn Watch>,
        cancel: &Cancel,
    ) -> Fetched {
        let cancel = cancel.clone();
        let (running, ended, fruitless) = (None, false, 0);
        Fetched { host, command, digest, at: from, size, running, ended, fruitless, watch, cancel }
    }

    fn start(&self) -> Result<(Running, Box<dyn Read + Send>)> {
        let skip = (self.at + 1).to_string();
        let mut words: Vec<&str> = match self.at {
            0 => Vec::new(),
            _ => vec!["sh", "-c", TAIL, "imgmv", &skip],
        };
        words.extend(self.command.iter().map(String::as_str));
        let mut running = self.host.run(&words)?;
        running.stdin = None;
        let stdout = running.stdout.take();
        let stdout = stdout.ok_or_else(|| Error::failed("a command was started without its output"))?;
        Ok((running, stdout))
    }

    /// One read; `Ok(0)` where the command has given all it had.
    fn once(&mut self, buffer: &mut [u8]) -> Result<usize> {
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
            Some(size) if self.at >= size => Ok(0),
            None if exit.success() => Ok(0),
            _ => Err(self.cut(&exit)),
        }
    }

    fn cut(&self, exit: &Exit) -> Error {
        let (host, digest) = (self.host.name(), &self.digest);
        let absent = exit.stderr.contains("not found") && exit.status != Some(127);
        let sentence = format!("{host}: blob {digest} ended at byte {}: ctr {}", self.at, exit.describe());
        if absent { Error::not_found(sentence) } else { Error::remote_host(sentence) }
    }

    /// Whether `error` is worth another try, after the pause for it.
    fn again(&mut self, error: &Error) -> Result<bool> {
        self.running = None;
        self.fruitless += 1;
        let passing = !matches!(error.kind(), Kind::NotFound | Kind::Denied | Kind::Interrupted | Kind::Usage);
        if !passing || self.fruitless >= TRIES {
            return Ok(false);
        }
        let after = PAUSE * (1 << (self.fruitless - 1));
        let what = self.digest.short();
        self.watch.event(Event::Retry { what: &what, why: &error.to_string(), after });
        let naps = after.as_millis() / NAP.as_millis();
        for _ in 0..naps {
            self.cancel.check()?;
            thread::sleep(NAP);
        }
        Ok(true)
    }
}

impl Read for Fetched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.ended {
            return Ok(0);
        }
        loop {
            match self.once(buffer) {
                Ok(0) => {
                    self.ended = true;
                    return Ok(0);
                }
                Ok(n) => {
                    self.at += n as u64;
                    self.fruitless = 0;
                    return Ok(n);
                }
                Err(error) => {
                    if !self.again(&error)? {
                        return Err(error.into());
                    }
                }
            }
        }
    }
}
