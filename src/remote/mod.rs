//! Running commands, here or on another host: one small interface, and three ways behind it (a process of this host,
//! the user's own ssh client, ssh built in). Whoever moves images does not see which.

pub mod builtin;
mod local;
mod openssh;
mod process;
mod quote;
mod ssh;
mod tail;
mod target;

use crate::error::{Error, Result};
use std::io::{Read, Write};

pub use local::Local;
pub use openssh::OpenSsh;
pub use quote::{quote, split_words};
pub use ssh::{Ssh, connect};
pub(crate) use tail::plain;
pub use target::SshTarget;

/// A place where commands run.
pub trait Host: Send + Sync {
    /// For messages: `web1`, `this host`.
    fn name(&self) -> &str;
    /// Starts `command` (a program and its arguments; no shell looks at them). That the program is not there may show
    /// only in [`Running::wait`].
    fn run(&self, command: &[&str]) -> Result<Running>;
}

/// A command that runs. Dropped without [`Running::wait`], it is ended.
pub struct Running {
    /// Dropping it is the command's end of file. Once the command has ended, writing fails with `BrokenPipe`.
    pub stdin: Option<Box<dyn Write + Send>>,
    /// Has to be read, or taken and dropped, while the command runs: its pipe is small.
    pub stdout: Option<Box<dyn Read + Send>>,
    ending: Option<Box<dyn Ending>>,
}

/// How one kind of command is awaited. Dropped, it ends the command.
trait Ending: Send {
    fn wait(self: Box<Self>) -> Result<Exit>;
}

impl Running {
    fn new(
        stdin: impl Write + Send + 'static,
        stdout: impl Read + Send + 'static,
        ending: impl Ending + 'static,
    ) -> Running {
        Running { stdin: Some(Box::new(stdin)), stdout: Some(Box::new(stdout)), ending: Some(Box::new(ending)) }
    }

    /// Ends the command's input, reads past what is left of its output, and waits for its end.
    ///
    /// An error only where the end cannot be known (connection lost, interrupted); a command that failed is an [`Exit`].
    pub fn wait(mut self) -> Result<Exit> {
        self.stdin = None;
        if let Some(mut stdout) = self.stdout.take() {
            // What cannot be read any more is told by the exit.
            let _ = std::io::copy(&mut stdout, &mut std::io::sink());
        }
        match self.ending.take() {
            Some(ending) => ending.wait(),
            None => Err(Error::failed("a command was waited for twice")),
        }
    }
}

impl Drop for Running {
    /// Ended before its input is: a cut archive must not look like a whole one.
    fn drop(&mut self) {
        self.ending = None;
    }
}

/// How a command ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exit {
    /// None where a signal ended it.
    pub status: Option<i32>,
    /// `KILL`, `TERM`; an ssh client does not tell it (status 255 instead).
    pub signal: Option<String>,
    /// The last lines that it wrote on standard error, a few KiB, free of control characters.
    pub stderr: String,
}

impl Exit {
    pub fn success(&self) -> bool {
        self.status == Some(0) && self.signal.is_none()
    }

    /// The end as a clause: `ended with status 1: no space left on device`.
    pub fn describe(&self) -> String {
        let how = match (&self.signal, self.status) {
            (Some(signal), _) => format!("was ended by signal {signal}"),
            (None, Some(127)) => "was not found".to_owned(),
            (None, Some(status)) => format!("ended with status {status}"),
            (None, None) => "ended without a status".to_owned(),
        };
        match tail::last_words(&self.stderr) {
            words if words.is_empty() => how,
            words => format!("{how}: {words}"),
        }
    }
}

/// What a command answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Standard output; control characters but line feeds and tabs taken out.
    pub stdout: String,
    pub exit: Exit,
}

/// More than this of an answer is refused.
const LARGEST_ANSWER: u64 = 4 << 20; // bytes

/// Runs `command` without input and collects its output.
///
/// `RemoteHost` where the output is larger than 4 MiB; a command that failed is not an error here.
pub fn ask(host: &dyn Host, command: &[&str]) -> Result<Answer> {
    let mut running = host.run(command)?;
    running.stdin = None;
    let mut bytes = Vec::new();
    if let Some(stdout) = running.stdout.take() {
        stdout
            .take(LARGEST_ANSWER + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| Error::remote_host(format!("{}: the answer of {} was cut: {e}", host.name(), command[0])))?;
    }
    if bytes.len() as u64 > LARGEST_ANSWER {
        let name = host.name();
        return Err(Error::remote_host(format!("{name}: {} answered more than {LARGEST_ANSWER} bytes", command[0])));
    }
    let exit = running.wait()?;
    Ok(Answer { stdout: tail::plain(&String::from_utf8_lossy(&bytes)), exit })
}
