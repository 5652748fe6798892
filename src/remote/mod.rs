//! Runs commands on this host or on a remote host. [`Host`] has three implementations: a local process, the user's ssh
//! client, and the built-in ssh client. Callers do not depend on which one is used.

pub mod builtin;
mod forward;
mod local;
mod openssh;
mod private_dir;
mod process;
mod prompt;
mod quote;
mod ssh;
mod tail;
mod target;

use crate::error::{Error, Result};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

pub use local::Local;
pub use openssh::OpenSsh;
pub use prompt::prompt_secret;
pub use quote::{quote, split_words};
pub use ssh::connect;
pub(crate) use tail::sanitize;
pub use target::SshTarget;

/// A host that runs commands.
pub trait Host: Send + Sync {
    /// The name for messages: `web1`, `this host`.
    fn name(&self) -> &str;
    /// Starts `command`: a program and its arguments, which no shell interprets. A missing program may be reported only
    /// by [`Running::wait`].
    fn run(&self, command: &[&str]) -> Result<Running>;

    /// Connects to the socket at `path` on the host. The host may refuse only after the connection was opened; then the
    /// connection ends, and [`Host::refusal`] has the reason.
    ///
    /// # Errors
    /// - `RemoteHost`: the host cannot be reached, or it refuses.
    fn connect_socket(&self, _path: &str) -> Result<UnixStream> {
        Err(Error::remote_host(format!("{}: sockets of this host cannot be forwarded", self.name())))
    }

    /// The last lines that the ssh client printed about a forwarded socket, joined to one; empty if it printed nothing.
    fn refusal(&self) -> String {
        String::new()
    }
}

/// A running command. Dropped without [`Running::wait`], it is stopped.
pub struct Running {
    /// Dropping it sends the end of file. Writing fails with `BrokenPipe` once the command has ended.
    pub stdin: Option<Box<dyn Write + Send>>,
    /// Must be read, or taken and dropped, while the command runs: its pipe is small.
    pub stdout: Option<Box<dyn Read + Send>>,
    waiter: Option<Box<dyn Waiter>>,
}

/// Waits for one kind of command. Dropped, it stops the command.
trait Waiter: Send {
    fn wait(self: Box<Self>) -> Result<Exit>;

    /// Whether the command has ended, where that is known without waiting.
    fn has_ended(&mut self) -> bool {
        false
    }

    /// The last few KiB of standard error so far.
    fn stderr(&self) -> String {
        String::new()
    }
}

impl Running {
    fn new(
        stdin: impl Write + Send + 'static,
        stdout: impl Read + Send + 'static,
        waiter: impl Waiter + 'static,
    ) -> Running {
        Running { stdin: Some(Box::new(stdin)), stdout: Some(Box::new(stdout)), waiter: Some(Box::new(waiter)) }
    }

    /// Whether the command has ended, where that is known without waiting.
    fn has_ended(&mut self) -> bool {
        self.waiter.as_mut().is_none_or(|waiter| waiter.has_ended())
    }

    /// The last few KiB of standard error so far.
    fn stderr(&self) -> String {
        self.waiter.as_ref().map(|waiter| waiter.stderr()).unwrap_or_default()
    }

    /// Closes the command's input, discards the rest of its output, and waits for its end.
    ///
    /// Fails only if the result cannot be known (connection lost, interrupted). A failed command returns an [`Exit`].
    pub fn wait(mut self) -> Result<Exit> {
        self.stdin = None;
        if let Some(mut stdout) = self.stdout.take() {
            // The exit status reports a failed read.
            let _ = std::io::copy(&mut stdout, &mut std::io::sink());
        }
        match self.waiter.take() {
            Some(waiter) => waiter.wait(),
            None => Err(Error::failed("internal error: a command was waited for twice")),
        }
    }
}

impl Drop for Running {
    /// Stops the command before its input is closed: a truncated archive must not look complete.
    fn drop(&mut self) {
        self.waiter = None;
    }
}

/// How a command ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exit {
    /// `None` if a signal ended the command.
    pub status: Option<i32>,
    /// `KILL`, `TERM`. An ssh client reports status 255 instead.
    pub signal: Option<String>,
    /// The last few KiB of standard error, without control characters.
    pub stderr: String,
}

impl Exit {
    pub fn success(&self) -> bool {
        self.status == Some(0) && self.signal.is_none()
    }

    /// The result as a clause: `ended with status 1: no space left on device`.
    pub fn describe(&self) -> String {
        let how = match (&self.signal, self.status) {
            (Some(signal), _) => format!("was ended by signal {signal}"),
            (None, Some(127)) => "was not found".to_owned(),
            (None, Some(status)) => format!("ended with status {status}"),
            (None, None) => "ended without a status".to_owned(),
        };
        match tail::last_lines(&self.stderr) {
            lines if lines.is_empty() => how,
            lines => format!("{how}: {lines}"),
        }
    }
}

/// The output and exit of a command that has ended.
#[derive(Debug, Clone)]
pub struct CapturedOutput {
    /// Standard output without control characters, except line feeds and tabs.
    pub stdout: String,
    pub exit: Exit,
}

const MAX_OUTPUT_BYTES: u64 = 4 << 20;

/// Runs `command` without input and collects its output. A failed command is not an error.
///
/// Fails with `RemoteHost` if the output exceeds 4 MiB.
pub fn capture(host: &dyn Host, command: &[&str]) -> Result<CapturedOutput> {
    let mut running = host.run(command)?;
    running.stdin = None;
    let mut bytes = Vec::new();
    if let Some(stdout) = running.stdout.take() {
        stdout.take(MAX_OUTPUT_BYTES + 1).read_to_end(&mut bytes).map_err(|e| {
            Error::remote_host(format!("{}: the output of {} was cut off: {e}", host.name(), command[0]))
        })?;
    }
    if bytes.len() as u64 > MAX_OUTPUT_BYTES {
        let name = host.name();
        return Err(Error::remote_host(format!(
            "{name}: the output of {} exceeds {MAX_OUTPUT_BYTES} bytes",
            command[0]
        )));
    }
    let exit = running.wait()?;
    Ok(CapturedOutput { stdout: tail::sanitize(&String::from_utf8_lossy(&bytes)), exit })
}
