//! A socket of another host, forwarded by the user's ssh client (`ssh -L`) to a socket in a private directory.
//!
//! The client does not use the shared connection, whose messages about a refused socket another process prints. ssh accepts a local connection before the host has opened its end, so a refusal shows only as the
//! end of the connection.

use super::private_dir::PrivateDir;
use super::{Running, process, tail};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The time for the login; ssh itself ends earlier if the host does not answer.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// The time in which ssh prints why the host refused, once the connection has ended.
const WORDS_TIMEOUT: Duration = Duration::from_millis(500);
const SOCKET_FILE: &str = "c";

/// A running `ssh -L`, stopped on drop.
pub(super) struct Forward {
    /// Its input stays open. Dropped first: ssh removes its socket.
    client: Mutex<Running>,
    socket: PathBuf,
    _directory: PrivateDir,
}

impl Forward {
    /// Starts `program` with `arguments` (options and the host), and waits until it listens.
    pub fn start(host: &str, program: &str, arguments: &[String], path: &str, cancel: &Cancel) -> Result<Forward> {
        if !path.starts_with('/') || path.contains([':', '%', '"', ' ']) || path.chars().any(char::is_control) {
            return Err(Error::usage(format!("{host}: {path:?} cannot be forwarded; write the socket's full path")));
        }
        let directory = PrivateDir::create().ok_or_else(|| {
            Error::failed(format!(
                "{host}: a directory for the forwarded socket cannot be created; set TMPDIR to a short path"
            ))
        })?;
        let socket = directory.path().join(SOCKET_FILE);
        let mut command = Command::new(program);
        // The first value of an option counts. The host's name comes last in `arguments`.
        command.args(["-o", "ControlPath=none", "-o", "ControlMaster=no"]);
        // Forwardings of the user's configuration are set up too; they may fail because they exist already.
        command.args(["-o", "ExitOnForwardFailure=no"]);
        command.args(["-o", "ClearAllForwardings=no", "-o", "LogLevel=INFO", "-o", "StreamLocalBindMask=0177"]);
        command.arg("-L").arg(format!("{}:{path}", socket.display())).args(arguments);
        // Not -N: `cat` ends with its input, so that no ssh outlives a killed imgmv.
        let mut client = process::start(command.arg("cat"), cancel)?;
        let started = Instant::now();
        while !socket.exists() {
            cancel.check()?;
            if client.has_ended() || started.elapsed() > LOGIN_TIMEOUT {
                let words = words(&client);
                return Err(Error::remote_host(format!("{host}: ssh did not forward {path}: {words}")));
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(Forward { client: Mutex::new(client), socket, _directory: directory })
    }

    /// Opens a connection.
    pub fn connect(&self) -> Result<UnixStream> {
        UnixStream::connect(&self.socket).map_err(|e| Error::remote_host(format!("the forwarded socket failed: {e}")))
    }

    /// The last lines that ssh printed, joined to one. Waits shortly for them.
    pub fn refusal(&self) -> String {
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let started = Instant::now();
        while client.stderr().is_empty() && started.elapsed() < WORDS_TIMEOUT {
            thread::sleep(POLL_INTERVAL);
        }
        words(&client)
    }
}

fn words(client: &Running) -> String {
    tail::last_lines(&client.stderr())
}
