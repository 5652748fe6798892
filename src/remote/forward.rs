//! A socket of another host, forwarded by the user's ssh client (`ssh -L`) to a socket in a private directory.
//!
//! The shared connection forwards it, since a second login may ask for a password again. Without a shared connection, a
//! client runs for it. ssh accepts a local connection before the host has opened its end, so a refusal shows only as the
//! end of the connection, and in a message of the client that has the connection.

use super::private_dir::PrivateDir;
use super::{Running, process, tail};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The time for the login; ssh itself ends earlier if the host does not answer.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// The time in which ssh prints why the host refused, once the connection has ended.
const WORDS_TIMEOUT: Duration = Duration::from_millis(500);
const SOCKET_FILE: &str = "c";

/// The ssh client of one host.
#[derive(Clone, Copy)]
pub(super) struct Client<'a> {
    /// The host's name for messages.
    pub host: &'a str,
    pub program: &'a str,
    /// Options, and the host at the end.
    pub arguments: &'a [String],
    pub cancel: &'a Cancel,
}

/// A forwarded socket, until this is dropped.
pub(super) struct Forward {
    /// Dropped first: ssh removes its socket.
    by: ForwardedBy,
    socket: PathBuf,
    _directory: PrivateDir,
}

/// The connection that forwards.
enum ForwardedBy {
    /// A client that runs for it; its input stays open.
    Running(Mutex<Running>),
    /// The shared connection. The command ends the forwarding.
    Shared(Mutex<Command>),
}

impl Client<'_> {
    /// A command with options that count before those of `arguments`, and `-L` with `socket` and `path`.
    fn command(&self, options: &[&str], socket: &str, path: &str) -> Command {
        let mut command = Command::new(self.program);
        // The first value of an option counts. Forwardings of the user's configuration are set up too; they may fail
        // because they exist already.
        command.args(options).args(["-o", "ClearAllForwardings=no", "-o", "ExitOnForwardFailure=no"]);
        command.arg("-L").arg(format!("{socket}:{path}")).args(self.arguments);
        command
    }

    /// A directory for the local end of `path`.
    fn directory(&self, path: &str) -> Result<PrivateDir> {
        let host = self.host;
        if !path.starts_with('/') || path.contains([':', '%', '"', ' ']) || path.chars().any(char::is_control) {
            return Err(Error::usage(format!("{host}: {path:?} cannot be forwarded; write the socket's full path")));
        }
        PrivateDir::create().ok_or_else(|| {
            Error::failed(format!(
                "{host}: a directory for the forwarded socket cannot be created; set TMPDIR to a short path"
            ))
        })
    }
}

impl Forward {
    /// Lets the shared connection, which is open, forward `path`.
    pub fn share(client: Client<'_>, path: &str) -> Result<Forward> {
        let directory = client.directory(path)?;
        let socket = directory.path().join(SOCKET_FILE);
        let local = socket.display().to_string();
        let mut running = process::start(&mut client.command(&["-O", "forward"], &local, path), client.cancel)?;
        running.stdin = None;
        let exit = running.wait()?;
        if !socket.exists() {
            let (host, exit) = (client.host, exit.describe());
            return Err(Error::remote_host(format!(
                "{host}: the shared connection did not forward {path}: ssh {exit}"
            )));
        }
        let mut end = client.command(&["-O", "cancel"], &local, path);
        end.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Forward { by: ForwardedBy::Shared(Mutex::new(end)), socket, _directory: directory })
    }

    /// Starts a client that forwards `path`, and waits until it listens.
    pub fn start(client: Client<'_>, path: &str) -> Result<Forward> {
        let directory = client.directory(path)?;
        let socket = directory.path().join(SOCKET_FILE);
        let own = ["-o", "ControlPath=none", "-o", "ControlMaster=no", "-o", "LogLevel=INFO"];
        let mut command = client.command(&own, &socket.display().to_string(), path);
        // Not -N: `cat` ends with its input, so that no ssh outlives a killed imgmv.
        let mut running = process::start(command.arg("cat"), client.cancel)?;
        let started = Instant::now();
        while !socket.exists() {
            client.cancel.check()?;
            if running.has_ended() || started.elapsed() > LOGIN_TIMEOUT {
                let (host, words) = (client.host, words(&running));
                return Err(Error::remote_host(format!("{host}: ssh did not forward {path}: {words}")));
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(Forward { by: ForwardedBy::Running(Mutex::new(running)), socket, _directory: directory })
    }

    /// Opens a connection.
    pub fn connect(&self) -> Result<UnixStream> {
        UnixStream::connect(&self.socket).map_err(|e| Error::remote_host(format!("the forwarded socket failed: {e}")))
    }

    /// The last lines that ssh printed, joined to one. Waits shortly for them. `None` for the shared connection, whose
    /// messages another process prints.
    pub fn refusal(&self) -> Option<String> {
        let ForwardedBy::Running(running) = &self.by else { return None };
        let running = running.lock().unwrap_or_else(PoisonError::into_inner);
        let started = Instant::now();
        while running.stderr().is_empty() && started.elapsed() < WORDS_TIMEOUT {
            thread::sleep(POLL_INTERVAL);
        }
        Some(words(&running))
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        if let ForwardedBy::Shared(end) = &mut self.by {
            // It fails if the shared connection has ended, and with it the forwarding.
            let _ = end.get_mut().unwrap_or_else(PoisonError::into_inner).status();
        }
    }
}

fn words(running: &Running) -> String {
    tail::last_lines(&running.stderr())
}
