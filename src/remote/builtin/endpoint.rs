//! One host of the built-in client: its configuration, and the connections to it, through jump hosts where there are
//! any.

use super::auth::{self, Agent, Keys};
use super::config::SshSettings;
use super::known_hosts::{self, HostKeyVerdict, KnownHost, known_hosts_name};
use super::pump::{Pump, PumpThread};
use super::terminal;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::remote::SshTarget;
use base64::{Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::STANDARD_NO_PAD};
use ssh2::{HashType, MethodType, Session};
use std::{
    net::{TcpStream, ToSocketAddrs},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Per step of the handshake and the login.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// Jump hosts to one host, at most.
const MAX_JUMPS: usize = 8;

/// A host with the settings of a login, and its connections.
pub(super) struct HostEndpoint {
    /// The host's name for messages.
    pub name: String,
    /// The name or the IP address that is connected to.
    host_name: String,
    port: u16,
    user: String,
    keys: Keys,
    /// The host's name in the known_hosts files.
    known_hosts_name: String,
    /// The user's own files first. An accepted host key is recorded in the first file.
    known_hosts: Vec<PathBuf>,
    /// The jump host before this host.
    jump: Option<Box<HostEndpoint>>,
    /// Connections without a command.
    pub idle: Mutex<Vec<Connection>>,
    pub cancel: Cancel,
}

/// A connection that is logged in.
pub(super) struct Connection {
    pub ssh: Session,
    pub socket: OwnedFd,
    /// The thread that moves bytes through the jump hosts.
    pub tunnel: Option<PumpThread>,
}

impl HostEndpoint {
    /// Applies the configuration to `target`. `depth` counts the jump hosts between `target` and the requested host.
    pub fn resolve(target: &SshTarget, home: &Path, cancel: &Cancel, depth: usize) -> Result<HostEndpoint> {
        let host = &target.host;
        if depth > MAX_JUMPS {
            return Err(Error::usage(format!(
                "{host}: ProxyJump uses more than {MAX_JUMPS} hosts, or forms a loop; check ~/.ssh/config"
            )));
        }
        let settings = SshSettings::read(host, home, Path::new("/etc/ssh"))?;
        let user = target.user.clone().or(settings.user).or_else(|| std::env::var("USER").ok());
        let user = user.ok_or_else(|| {
            Error::usage(format!("{host}: the login user is not known ($USER is not set); write ssh://USER@{host}"))
        })?;
        let in_ssh = |names: &[&str]| names.iter().map(|name| home.join(".ssh").join(name)).collect::<Vec<_>>();
        let agent = match settings.identities_only {
            Some(true) => Agent::Skip,
            _ => Agent::Use,
        };
        let identities = match settings.identities.is_empty() {
            true => in_ssh(&["id_ed25519", "id_ecdsa", "id_rsa"]),
            false => settings.identities,
        };
        let host_name = settings.host_name.unwrap_or_else(|| host.clone());
        let port = target.port.or(settings.port).unwrap_or(22);
        let global = || vec!["/etc/ssh/ssh_known_hosts".into(), "/etc/ssh/ssh_known_hosts2".into()];
        let mut known_hosts = settings.known_hosts.unwrap_or_else(|| in_ssh(&["known_hosts", "known_hosts2"]));
        known_hosts.extend(settings.global_known_hosts.unwrap_or_else(global));
        Ok(HostEndpoint {
            name: host.clone(),
            known_hosts_name: settings.key_alias.unwrap_or_else(|| known_hosts_name(&host_name, port)),
            host_name,
            port,
            user,
            keys: Keys { identities, certificates: settings.certificates, agent },
            known_hosts,
            jump: resolve_jump(settings.jump.as_deref(), host, home, cancel, depth)?,
            idle: Mutex::default(),
            cancel: cancel.clone(),
        })
    }

    /// Connects, checks the host key and logs in.
    pub fn dial(&self) -> Result<Connection> {
        self.cancel.check()?;
        let (socket, tunnel) = match &self.jump {
            None => (OwnedFd::from(self.socket()?), None),
            Some(jump) => {
                let (socket, tunnel) = jump.open_tunnel(&self.host_name, self.port)?;
                (socket, Some(tunnel))
            }
        };
        let refused =
            |e: ssh2::Error| Error::remote_host(format!("{}: the ssh handshake failed: {}", self.name, e.message()));
        let mut ssh = Session::new().map_err(refused)?;
        ssh.set_timeout(REPLY_TIMEOUT.as_millis() as u32);
        let known = KnownHost::read(self.known_hosts.iter().map(PathBuf::as_path), &self.known_hosts_name);
        ssh.method_pref(MethodType::HostKey, &known.algorithms()).map_err(refused)?;
        ssh.set_tcp_stream(socket.try_clone()?);
        ssh.handshake().map_err(refused)?;
        self.check_host_key(&ssh, &known)?;
        auth::authenticate(&ssh, &self.user, &self.name, &self.keys)?;
        ssh.set_keepalive(true, 2);
        Ok(Connection { ssh, socket, tunnel })
    }

    /// Opens a connection through this host to `host_name`: a local socket, and the thread that moves its bytes.
    fn open_tunnel(&self, host_name: &str, port: u16) -> Result<(OwnedFd, PumpThread)> {
        let connection = self.dial()?;
        let channel = connection.ssh.channel_direct_tcpip(host_name, port, None).map_err(|e| {
            Error::remote_host(format!(
                "{}: the jump host cannot connect to {host_name} port {port}: {}",
                self.name,
                e.message()
            ))
        })?;
        self.pump(connection, channel)
    }

    /// Opens a connection to the socket at `path` on this host, as [`HostEndpoint::open_tunnel`].
    pub fn open_socket(&self, path: &str) -> Result<(OwnedFd, PumpThread)> {
        let connection = self.dial()?;
        let channel = connection.ssh.channel_direct_streamlocal(path, None).map_err(|e| {
            Error::remote_host(format!("{}: the host refused to forward {path}: {}", self.name, e.message()))
        })?;
        self.pump(connection, channel)
    }

    /// Starts the thread that moves the bytes of `channel`; returns the local end.
    fn pump(&self, connection: Connection, channel: ssh2::Channel) -> Result<(OwnedFd, PumpThread)> {
        let Connection { ssh, socket, tunnel } = connection;
        let (local, remote) = UnixStream::pair()?;
        remote.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let pump = Pump {
            ssh,
            channel,
            socket,
            stdin: OwnedFd::from(remote.try_clone()?).into(),
            stdout: OwnedFd::from(remote).into(),
            stop: stop.clone(),
            cancel: self.cancel.clone(),
            host: self.name.clone(),
        };
        let thread = std::thread::Builder::new().name("ssh".into()).spawn(move || {
            let (exit, _ssh) = pump.run()?;
            // The connections to earlier jump hosts stay open until here.
            drop(tunnel);
            Ok(exit)
        })?;
        Ok((local.into(), PumpThread { thread: Some(thread), stop }))
    }

    fn socket(&self) -> Result<TcpStream> {
        let unreachable = |e: &dyn std::fmt::Display| {
            Error::remote_host(format!("{}: cannot connect to port {}: {e}", self.name, self.port))
        };
        let socket_addresses = (self.host_name.as_str(), self.port).to_socket_addrs().map_err(|e| unreachable(&e))?;
        let mut failed = None;
        for socket_address in socket_addresses {
            self.cancel.check()?;
            match TcpStream::connect_timeout(&socket_address, CONNECT_TIMEOUT) {
                Ok(socket) => {
                    socket.set_nodelay(true)?;
                    return Ok(socket);
                }
                Err(e) => failed = Some(e),
            }
        }
        Err(match failed {
            Some(e) => unreachable(&e),
            None => unreachable(&"the name resolves to no IP address"),
        })
    }

    /// Checks that the host key is a recorded one. The user at the terminal may accept an unknown key, which is then
    /// recorded.
    fn check_host_key(&self, ssh: &Session, known: &KnownHost) -> Result<()> {
        let name = &self.name;
        let Some((key, _)) = ssh.host_key() else {
            return Err(Error::remote_host(format!("{name}: the server presented no host key")));
        };
        let hash = ssh.host_key_hash(HashType::Sha256).unwrap_or_default();
        let fingerprint = format!("SHA256:{}", STANDARD_NO_PAD.encode(hash));
        match known.check(key) {
            HostKeyVerdict::Known => Ok(()),
            HostKeyVerdict::Unknown => self.confirm(
                &fingerprint,
                &format!("{} {} {}", self.known_hosts_name, key_type(key), STANDARD.encode(key)),
            ),
            HostKeyVerdict::Changed => Err(Error::denied(format!(
                "{name}: the host key {fingerprint} differs from the one in ~/.ssh/known_hosts; the host was \
                 reinstalled, or the connection is intercepted: nothing was sent; remove the old line only if you \
                 know the reason"
            ))),
            HostKeyVerdict::Revoked => Err(Error::denied(format!("{name}: the host key {fingerprint} is revoked"))),
        }
    }

    fn confirm(&self, fingerprint: &str, line: &str) -> Result<()> {
        let name = &self.name;
        match terminal::confirm(&format!(
            "{name} ({}) is not in known_hosts. Its key is {fingerprint}.",
            self.known_hosts_name
        )) {
            Some(true) => {
                let Some(file) = self.known_hosts.first() else { return Ok(()) };
                known_hosts::append(file, line).map_err(|e| Error::writing(file.display(), e))
            }
            Some(false) => {
                Err(Error::denied(format!("{name}: the host key {fingerprint} is not known and was not accepted")))
            }
            None => Err(Error::denied(format!(
                "{name}: the host key {fingerprint} is not in ~/.ssh/known_hosts; if this is the key you expect, add \
                 this line to the file: {line}"
            ))),
        }
    }

    fn idle(&self) -> Option<Connection> {
        self.idle.lock().unwrap_or_else(|e| e.into_inner()).pop()
    }

    /// Runs `command_line` in a channel of an idle or new connection. An idle connection that broke is replaced.
    pub fn start(&self, command_line: &str) -> Result<(Connection, ssh2::Channel)> {
        let exec = |connection: &Connection| -> Result<ssh2::Channel, ssh2::Error> {
            connection.ssh.set_blocking(true);
            let mut channel = connection.ssh.channel_session()?;
            channel.exec(command_line)?;
            Ok(channel)
        };
        if let Some(connection) = self.idle()
            && let Ok(channel) = exec(&connection)
        {
            return Ok((connection, channel));
        }
        let connection = self.dial()?;
        let channel = exec(&connection).map_err(|e| {
            Error::remote_host(format!("{}: the host refused to run a command: {}", self.name, e.message()))
        })?;
        Ok((connection, channel))
    }
}

/// Resolves the jump hosts in `jumps` (`[USER@]HOST[:PORT]`, separated by commas) and returns the last. Each is reached
/// through the one before it, the first as its own configuration says.
fn resolve_jump(
    jumps: Option<&str>,
    host: &str,
    home: &Path,
    cancel: &Cancel,
    depth: usize,
) -> Result<Option<Box<HostEndpoint>>> {
    let Some(jumps) = jumps.filter(|jumps| *jumps != "none") else { return Ok(None) };
    let mut last: Option<Box<HostEndpoint>> = None;
    for jump in jumps.replace("%h", host).split(',').map(str::trim) {
        let (target, _) = SshTarget::parse(&format!("ssh://{}", jump.trim_start_matches("ssh://")))?;
        let mut hop = HostEndpoint::resolve(&target, home, cancel, depth + 1)?;
        hop.jump = last.take().or(hop.jump);
        last = Some(Box::new(hop));
    }
    Ok(last)
}

/// The key type's name at the start of an encoded key (RFC 4253, 6.6).
fn key_type(key: &[u8]) -> String {
    let length = key.first_chunk::<4>().map_or(0, |n| u32::from_be_bytes(*n) as usize);
    let name = key.get(4..).and_then(|rest| rest.get(..length)).unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}
