//! The built-in ssh client (libssh2), for use where no ssh client is installed. It needs three to five times the CPU of
//! OpenSSH (measured) and supports only part of `~/.ssh/config`.

mod auth;
mod config;
mod endpoint;
mod known_hosts;
mod pattern;
mod pump;
mod terminal;

use super::{Host, Running, SshTarget, quote};
use crate::cancel::Cancel;
use crate::error::Result;
use config::SshSettings;
use endpoint::{Connection, HostEndpoint};
use known_hosts::{KnownHost, known_hosts_name};
use pump::{Pump, PumpThread};
use std::{
    io,
    os::unix::net::UnixStream,
    path::Path,
    sync::{Arc, Mutex, atomic::AtomicBool},
};

/// Size of the pipes between imgmv and the pump.
const PIPE_BYTES: usize = 1 << 20;

/// A remote host reached by libssh2. A command uses an idle connection or opens one, since libssh2 runs one
/// operation at a time on a connection.
pub struct Builtin(Arc<HostEndpoint>, Mutex<Forwards>);

/// The connections to sockets of the host, and why one was refused.
#[derive(Default)]
struct Forwards {
    pumps: Vec<PumpThread>,
    refusal: String,
}

impl Builtin {
    /// Connects with the configuration, known_hosts and keys in `home/.ssh`.
    ///
    /// Fails with `Denied` if the host key is not the recorded one or the login is denied, with `RemoteHost` if the host
    /// does not respond.
    pub fn connect(target: &SshTarget, home: &Path, cancel: &Cancel) -> Result<Builtin> {
        let endpoint = HostEndpoint::resolve(target, home, cancel, 0)?;
        let first = endpoint.dial()?;
        endpoint.idle.lock().unwrap_or_else(|e| e.into_inner()).push(first);
        Ok(Builtin(Arc::new(endpoint), Mutex::default()))
    }
}

/// The host name or IP address, and the port, that `config` (the text of a `~/.ssh/config`) sets for `host`.
///
/// Fails with `Usage` for ProxyCommand and for Include.
pub fn host_and_port_in(config: &str, host: &str) -> Result<(String, u16)> {
    let settings = SshSettings::parse(config, host)?;
    Ok((settings.host_name.unwrap_or_else(|| host.to_owned()), settings.port.unwrap_or(22)))
}

/// The host key algorithms to request from `host`; those recorded in `known_hosts` (the file's text) come first.
pub fn algorithms_in(known_hosts: &str, host: &str) -> String {
    KnownHost::parse(known_hosts, &known_hosts_name(host, 22)).algorithms()
}

impl Host for Builtin {
    fn name(&self) -> &str {
        &self.0.name
    }

    /// Each call opens an ssh connection, since libssh2 runs one operation at a time on a connection.
    fn connect_socket(&self, path: &str) -> Result<UnixStream> {
        let mut forwards = self.1.lock().unwrap_or_else(|e| e.into_inner());
        match self.0.open_socket(path) {
            Ok((socket, pump)) => {
                forwards.pumps.push(pump);
                Ok(socket.into())
            }
            Err(error) => {
                forwards.refusal = error.to_string();
                Err(error)
            }
        }
    }

    fn refusal(&self) -> String {
        self.1.lock().unwrap_or_else(|e| e.into_inner()).refusal.clone()
    }

    fn run(&self, command: &[&str]) -> Result<Running> {
        let endpoint = self.0.clone();
        let (Connection { ssh, socket, tunnel }, channel) = endpoint.start(&quote(command)?)?;
        let (command_stdin, stdin) = io::pipe()?;
        let (stdout, command_stdout) = io::pipe()?;
        // A larger pipe is only an optimisation: a failure is ignored.
        let _ = rustix::pipe::fcntl_setpipe_size(&stdin, PIPE_BYTES);
        let _ = rustix::pipe::fcntl_setpipe_size(&stdout, PIPE_BYTES);
        let flags = rustix::fs::fcntl_getfl(&command_stdout).map_err(io::Error::from)?;
        rustix::fs::fcntl_setfl(&command_stdout, flags | rustix::fs::OFlags::NONBLOCK).map_err(io::Error::from)?;
        let stop = Arc::new(AtomicBool::new(false));
        let pump = Pump {
            ssh,
            channel,
            socket: socket.try_clone()?,
            stdin: command_stdin,
            stdout: command_stdout,
            stop: stop.clone(),
            cancel: endpoint.cancel.clone(),
            host: endpoint.name.clone(),
        };
        let thread = std::thread::Builder::new().name("ssh".into()).spawn(move || {
            let (exit, ssh) = pump.run()?;
            endpoint.idle.lock().unwrap_or_else(|e| e.into_inner()).push(Connection { ssh, socket, tunnel });
            Ok(exit)
        })?;
        Ok(Running::new(stdin, stdout, PumpThread { thread: Some(thread), stop }))
    }
}
