//! A load command that runs: the pipe into it, what it says meanwhile, and its end told in its own words.

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::remote::{Exit, Host, Running};
use std::{
    io::{self, Read, Write},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// Of what it says on standard output, the first so many bytes are kept: a line for each image.
const KEPT: usize = 64 << 10;

/// A load command and what became of it.
pub(super) struct Loading {
    state: Mutex<State>,
    /// `web1: docker load`, for messages.
    label: String,
    lost: AtomicBool,
    full: AtomicBool,
    cancel: Cancel,
}

enum State {
    Runs { running: Running, output: JoinHandle<String> },
    Ended(Result<Ended>),
}

/// It ended well.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    /// What it said, on both streams.
    pub said: String,
}

impl Loading {
    /// Starts `command` on `host`; its standard input comes back beside it.
    pub fn start(host: &dyn Host, command: &[String], cancel: &Cancel) -> Result<(Arc<Loading>, Input)> {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let mut running = host.run(&words)?;
        let (Some(stdin), Some(stdout)) = (running.stdin.take(), running.stdout.take()) else {
            return Err(Error::failed("a command was started without its streams"));
        };
        Ok(Loading::of(running, stdin, stdout, &format!("{}: {}", host.name(), command.join(" ")), cancel))
    }

    /// What runs already, which messages call `label`, and its streams.
    pub fn of(
        running: Running,
        stdin: Box<dyn Write + Send>,
        stdout: impl Read + Send + 'static,
        label: &str,
        cancel: &Cancel,
    ) -> (Arc<Loading>, Input) {
        let output = std::thread::spawn(move || keep(stdout));
        let state = Mutex::new(State::Runs { running, output });
        let (lost, full) = Default::default();
        let loading = Arc::new(Loading { state, label: label.to_owned(), lost, full, cancel: cancel.clone() });
        let input = Input { stdin: Some(stdin), loading: loading.clone() };
        (loading, input)
    }

    /// Whether the connection was lost: an ssh client says so with status 255, or is ended itself.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Whether it found no room.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Whether it failed for a reason that sending more would not mend: the connection, the disk.
    pub fn is_hopeless(&self) -> bool {
        self.is_lost() || self.is_full()
    }

    /// Waits for the command, whose input has ended or is not wanted any more. `RemoteHost` where it failed.
    pub fn end(&self) -> Result<Ended> {
        let mut state = self.state();
        let before = std::mem::replace(&mut *state, State::Ended(Err(Error::failed("a load was ended twice"))));
        let ended = match before {
            State::Ended(ended) => ended,
            State::Runs { running, output } => {
                let exit = running.wait();
                self.lost.store(exit.is_err(), Ordering::Relaxed);
                let output = output.join().unwrap_or_default();
                let ended = exit.and_then(|exit| self.judge(&exit, output));
                if ended.is_err() {
                    self.await_signal();
                }
                self.cancel.check().and(ended)
            }
        };
        *state = State::Ended(ended.clone());
        ended
    }

    /// Ends the command before its input does: what it got is no whole archive.
    pub fn abandon(&self) {
        *self.state() = State::Ended(Err(Error::failed(format!("{} was ended", self.label))));
    }

    /// Ctrl-C reaches an ssh client as soon as this process, and it may be the quicker to end.
    fn await_signal(&self) {
        for _ in 0..20 {
            if self.cancel.raised() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn judge(&self, exit: &Exit, output: String) -> Result<Ended> {
        let said = format!("{output}\n{}", exit.stderr);
        self.lost.store(exit.status == Some(255) || exit.signal.is_some(), Ordering::Relaxed);
        self.full.store(is_full(&said), Ordering::Relaxed);
        // docker's containerd store says this and ends with status 0.
        let broken = said.lines().find(|line| line.contains("Error unpacking image"));
        match (exit.success(), broken) {
            (true, None) => Ok(Ended { said }),
            (_, Some(line)) => Err(Error::remote_host(format!("{}: {}", self.label, line.trim()))),
            (false, None) if exit.stderr.trim().is_empty() && !output.trim().is_empty() => {
                let exit = Exit { stderr: output, ..exit.clone() };
                Err(Error::remote_host(format!("{} {}", self.label, exit.describe())))
            }
            (false, None) => Err(Error::remote_host(format!("{} {}", self.label, exit.describe()))),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// The words of the system, which every engine passes on.
fn is_full(said: &str) -> bool {
    let said = said.to_lowercase();
    let signs = ["no space left", "disk quota exceeded", "read-only file system", "input/output error"];
    signs.iter().any(|sign| said.contains(sign))
}

fn keep(mut stdout: impl Read) -> String {
    let mut kept = Vec::new();
    // What cannot be read any more is told by the exit.
    let _ = (&mut stdout).take(KEPT as u64).read_to_end(&mut kept);
    let _ = io::copy(&mut stdout, &mut io::sink());
    crate::remote::plain(&String::from_utf8_lossy(&kept))
}

/// The way into a load command. A write that fails carries the command's own words.
pub(super) struct Input {
    /// Gone once the command has ended well before its input did: what comes then is padding, and dropped.
    stdin: Option<Box<dyn Write + Send>>,
    loading: Arc<Loading>,
}

impl Input {
    /// The command does not read any more: why?
    fn ended(&mut self, error: io::Error) -> io::Result<()> {
        self.stdin = None;
        match (self.loading.end(), error.kind()) {
            (Err(error), _) => Err(error.into()),
            (Ok(_), io::ErrorKind::BrokenPipe) => Ok(()),
            (Ok(_), _) => Err(Error::remote_host(format!("{}: {error}", self.loading.label)).into()),
        }
    }
}

impl Write for Input {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.loading.cancel.check()?;
        let Some(stdin) = &mut self.stdin else {
            return Ok(bytes.len());
        };
        match stdin.write(bytes) {
            Ok(n) => Ok(n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(e),
            Err(e) => self.ended(e).map(|()| bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.stdin.as_mut().map_or(Ok(()), Write::flush) {
            Ok(()) => Ok(()),
            Err(e) => self.ended(e),
        }
    }
}
