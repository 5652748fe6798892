//! A running load command: the pipe to it, its output, and its result in its own words.

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

/// The first part of standard output that is stored: a line for each image.
const MAX_OUTPUT_BYTES: usize = 64 << 10;

/// A load command and its result.
pub(super) struct LoadCommand {
    state: Mutex<LoadState>,
    /// `web1: docker load`, for messages.
    label: String,
    connection_lost: AtomicBool,
    disk_full: AtomicBool,
    cancel: Cancel,
}

enum LoadState {
    Running { running: Running, output: JoinHandle<String> },
    Ended(Result<LoadOutput>),
}

/// The result of a successful load.
#[derive(Debug, Clone)]
pub(super) struct LoadOutput {
    /// Standard output and standard error.
    pub output: String,
}

impl LoadCommand {
    /// Starts `argv` on `host`. Also returns the command's standard input.
    pub fn start(host: &dyn Host, argv: &[String], cancel: &Cancel) -> Result<(Arc<LoadCommand>, LoadInput)> {
        let words: Vec<&str> = argv.iter().map(String::as_str).collect();
        let mut running = host.run(&words)?;
        let (Some(stdin), Some(stdout)) = (running.stdin.take(), running.stdout.take()) else {
            return Err(Error::failed("internal error: a command was started without its streams"));
        };
        Ok(LoadCommand::attach(running, stdin, stdout, &format!("{}: {}", host.name(), argv.join(" ")), cancel))
    }

    /// Takes over a running command and its streams. `label` names it in messages.
    pub fn attach(
        running: Running,
        stdin: Box<dyn Write + Send>,
        stdout: impl Read + Send + 'static,
        label: &str,
        cancel: &Cancel,
    ) -> (Arc<LoadCommand>, LoadInput) {
        let output = std::thread::spawn(move || read_output(stdout));
        let state = Mutex::new(LoadState::Running { running, output });
        let (connection_lost, disk_full) = Default::default();
        let command = Arc::new(LoadCommand {
            state,
            label: label.to_owned(),
            connection_lost,
            disk_full,
            cancel: cancel.clone(),
        });
        let input = LoadInput { stdin: Some(stdin), command: command.clone() };
        (command, input)
    }

    /// Whether the connection was lost: the ssh client exited with status 255, or a signal ended it.
    pub fn is_connection_lost(&self) -> bool {
        self.connection_lost.load(Ordering::Relaxed)
    }

    /// Whether the remote disk is full or unwritable.
    pub fn is_disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }

    /// Whether the load failed for a reason that sending again cannot fix: the connection, the disk.
    pub fn is_unrecoverable(&self) -> bool {
        self.is_connection_lost() || self.is_disk_full()
    }

    /// Waits for the command, whose input has ended or is not read any more. Fails with `RemoteHost` if the command
    /// failed.
    pub fn wait(&self) -> Result<LoadOutput> {
        let mut state = self.state();
        let before = std::mem::replace(
            &mut *state,
            LoadState::Ended(Err(Error::failed("internal error: a load was waited for twice"))),
        );
        let ended = match before {
            LoadState::Ended(ended) => ended,
            LoadState::Running { running, output } => {
                let exit = running.wait();
                self.connection_lost.store(exit.is_err(), Ordering::Relaxed);
                let output = output.join().unwrap_or_default();
                let ended = exit.and_then(|exit| self.result(&exit, output));
                if ended.is_err() {
                    self.await_signal();
                }
                self.cancel.check().and(ended)
            }
        };
        *state = LoadState::Ended(ended.clone());
        ended
    }

    /// Stops the command before its input is closed: a truncated archive must not look complete.
    pub fn abort(&self) {
        *self.state() = LoadState::Ended(Err(Error::failed(format!("{} was stopped", self.label))));
    }

    /// Waits briefly for a signal: Ctrl-C also reaches the ssh client, which may end before this process sees it.
    fn await_signal(&self) {
        for _ in 0..20 {
            if self.cancel.raised() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn result(&self, exit: &Exit, output: String) -> Result<LoadOutput> {
        let output_and_stderr = format!("{output}\n{}", exit.stderr);
        self.connection_lost.store(exit.status == Some(255) || exit.signal.is_some(), Ordering::Relaxed);
        self.disk_full.store(is_full(&output_and_stderr), Ordering::Relaxed);
        // docker's containerd store prints this and exits with status 0.
        let broken = output_and_stderr.lines().find(|line| line.contains("Error unpacking image"));
        match (exit.success(), broken) {
            (true, None) => Ok(LoadOutput { output: output_and_stderr }),
            (_, Some(line)) => Err(Error::remote_host(format!("{}: {}", self.label, line.trim()))),
            (false, None) if exit.stderr.trim().is_empty() && !output.trim().is_empty() => {
                let exit = Exit { stderr: output, ..exit.clone() };
                Err(Error::remote_host(format!("{} {}", self.label, exit.describe())))
            }
            (false, None) => Err(Error::remote_host(format!("{} {}", self.label, exit.describe()))),
        }
    }

    fn state(&self) -> MutexGuard<'_, LoadState> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Looks for the system's error texts, which every engine prints unchanged.
fn is_full(output_and_stderr: &str) -> bool {
    let output_and_stderr = output_and_stderr.to_lowercase();
    let signs = ["no space left", "disk quota exceeded", "read-only file system", "input/output error"];
    signs.iter().any(|sign| output_and_stderr.contains(sign))
}

fn read_output(mut stdout: impl Read) -> String {
    let mut bytes = Vec::new();
    // The exit status reports a failed read.
    let _ = (&mut stdout).take(MAX_OUTPUT_BYTES as u64).read_to_end(&mut bytes);
    let _ = io::copy(&mut stdout, &mut io::sink());
    crate::remote::sanitize(&String::from_utf8_lossy(&bytes))
}

/// The standard input of a load command. A failed write returns the command's own error message.
pub(super) struct LoadInput {
    /// `None` once the command has succeeded before its input ended: the rest is tar padding, which is dropped.
    stdin: Option<Box<dyn Write + Send>>,
    command: Arc<LoadCommand>,
}

impl LoadInput {
    /// Handles a failed write: waits for the command and returns its error, if any.
    fn handle_write_error(&mut self, error: io::Error) -> io::Result<()> {
        self.stdin = None;
        match (self.command.wait(), error.kind()) {
            (Err(error), _) => Err(error.into()),
            (Ok(_), io::ErrorKind::BrokenPipe) => Ok(()),
            (Ok(_), _) => Err(Error::remote_host(format!("{}: {error}", self.command.label)).into()),
        }
    }
}

impl Write for LoadInput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.command.cancel.check()?;
        let Some(stdin) = &mut self.stdin else {
            return Ok(bytes.len());
        };
        match stdin.write(bytes) {
            Ok(n) => Ok(n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(e),
            Err(e) => self.handle_write_error(e).map(|()| bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.stdin.as_mut().map_or(Ok(()), Write::flush) {
            Ok(()) => Ok(()),
            Err(e) => self.handle_write_error(e),
        }
    }
}
