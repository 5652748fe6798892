//! Another host over ssh built in (libssh2), for hosts without an ssh client. Slower than OpenSSH (three to five times
//! its CPU, measured), and with only the plainer part of `~/.ssh/config`.

mod auth;
mod config;
mod known_hosts;
mod pattern;
mod pump;
mod terminal;

use super::{Ending, Exit, Host, Running, SshTarget, quote};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use auth::{Agent, Keys};
use base64::{Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::STANDARD_NO_PAD};
use config::Settings;
use known_hosts::{Known, Verdict, listed_as};
use pump::Pump;
use ssh2::{HashType, MethodType, Session};
use std::{
    io,
    net::{TcpStream, ToSocketAddrs},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

const CONNECT: Duration = Duration::from_secs(20);
/// For each step of the handshake and the login.
const ANSWER: Duration = Duration::from_secs(30);
/// Hosts on the way to one, at most.
const MAX_JUMPS: usize = 8;
/// Room in the pipes between a command's user and the pump, in bytes.
const PIPE: usize = 1 << 20;

/// A host behind libssh2. A command takes a connection that is idle, or makes one: libssh2's sessions do one thing at
/// a time.
pub struct Builtin(Arc<Place>);

struct Place {
    name: String,
    address: String,
    port: u16,
    user: String,
    keys: Keys,
    /// How the host stands in the files of known hosts.
    listed: String,
    /// The user's first: a host that is accepted is recorded in the first of all.
    known_hosts: Vec<PathBuf>,
    /// The host on the way.
    jump: Option<Box<Place>>,
    idle: Mutex<Vec<Connection>>,
    cancel: Cancel,
}

struct Connection {
    session: Session,
    socket: OwnedFd,
    /// The way there, where it goes through other hosts.
    way: Option<Pumping>,
}

impl Builtin {
    /// Connects as the user whose home directory is `home`: configuration, known hosts and keys are read from its
    /// `.ssh`.
    ///
    /// `Denied` where the host's key is not the recorded one or the user may not log in, `RemoteHost` where the host does
    /// not answer.
    pub fn connect(target: &SshTarget, home: &Path, cancel: &Cancel) -> Result<Builtin> {
        let place = Place::of(target, home, cancel, 0)?;
        let first = place.dial()?;
        place.idle.lock().unwrap_or_else(|e| e.into_inner()).push(first);
        Ok(Builtin(Arc::new(place)))
    }
}

/// Where `config`, the text of a `~/.ssh/config`, says that `host` is: its name or address, and the port.
///
/// `Usage` where it names a way that is not built in, or includes files, which are not read here.
pub fn address_in(config: &str, host: &str) -> Result<(String, u16)> {
    let settings = Settings::in_text(config, host)?;
    Ok((settings.host_name.unwrap_or_else(|| host.to_owned()), settings.port.unwrap_or(22)))
}

/// The host key algorithms to ask of `host`, by the text of a known_hosts file: those of its recorded keys come first.
pub fn algorithms_in(known_hosts: &str, host: &str) -> String {
    Known::in_text(known_hosts, &listed_as(host, 22)).algorithms()
}

impl Place {
    /// What the configuration says of `target`, which is so many hosts behind the one that was asked for.
    fn of(target: &SshTarget, home: &Path, cancel: &Cancel, depth: usize) -> Result<Place> {
        let host = &target.host;
        if depth > MAX_JUMPS {
            return Err(Error::usage(format!(
                "{host}: ProxyJump leads over more than {MAX_JUMPS} hosts, or in a circle"
            )));
        }
        let settings = Settings::of(host, home, Path::new("/etc/ssh"))?;
        let user = target.user.clone().or(settings.user).or_else(|| std::env::var("USER").ok());
        let user = user.ok_or_else(|| Error::usage(format!("{host}: as which user? write ssh://USER@{host}")))?;
        let in_ssh = |names: &[&str]| names.iter().map(|name| home.join(".ssh").join(name)).collect::<Vec<_>>();
        let agent = match settings.identities_only {
            Some(true) => Agent::LeftAlone,
            _ => Agent::Asked,
        };
        let identities = match settings.identities.is_empty() {
            true => in_ssh(&["id_ed25519", "id_ecdsa", "id_rsa"]),
            false => settings.identities,
        };
        let address = settings.host_name.unwrap_or_else(|| host.clone());
        let port = target.port.or(settings.port).unwrap_or(22);
        let global = || vec!["/etc/ssh/ssh_known_hosts".into(), "/etc/ssh/ssh_known_hosts2".into()];
        let mut known_hosts = settings.known_hosts.unwrap_or_else(|| in_ssh(&["known_hosts", "known_hosts2"]));
        known_hosts.extend(settings.global_known_hosts.unwrap_or_else(global));
        Ok(Place {
            name: host.clone(),
            listed: settings.key_alias.unwrap_or_else(|| listed_as(&address, port)),
            address,
            port,
            user,
            keys: Keys { identities, certificates: settings.certificates, agent },
            known_hosts,
            jump: jump(settings.jump.as_deref(), host, home, cancel, depth)?,
            idle: Mutex::default(),
            cancel: cancel.clone(),
        })
    }

    fn dial(&self) -> Result<Connection> {
        self.cancel.check()?;
        let (socket, way) = match &self.jump {
            None => (OwnedFd::from(self.socket()?), None),
            Some(jump) => {
                let (socket, way) = jump.line_to(&self.address, self.port)?;
                (socket, Some(way))
            }
        };
        let refused =
            |e: ssh2::Error| Error::remote_host(format!("{}: ssh cannot be set up: {}", self.name, e.message()));
        let mut session = Session::new().map_err(refused)?;
        session.set_timeout(ANSWER.as_millis() as u32);
        let known = Known::read(self.known_hosts.iter().map(PathBuf::as_path), &self.listed);
        session.method_pref(MethodType::HostKey, &known.algorithms()).map_err(refused)?;
        session.set_tcp_stream(socket.try_clone()?);
        session.handshake().map_err(refused)?;
        self.check(&session, &known)?;
        auth::authenticate(&session, &self.user, &self.name, &self.keys)?;
        session.set_keepalive(true, 2);
        Ok(Connection { session, socket, way })
    }

    /// A connection to another host by way of this one: a socket here, and what moves its bytes.
    fn line_to(&self, address: &str, port: u16) -> Result<(OwnedFd, Pumping)> {
        let Connection { session, socket, way } = self.dial()?;
        let channel = session.channel_direct_tcpip(address, port, None).map_err(|e| {
            Error::remote_host(format!("{}: it gives no way on to {address} port {port}: {}", self.name, e.message()))
        })?;
        let (near, far) = UnixStream::pair()?;
        far.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let pump = Pump {
            session,
            channel,
            socket,
            stdin: OwnedFd::from(far.try_clone()?).into(),
            stdout: OwnedFd::from(far).into(),
            stop: stop.clone(),
            cancel: self.cancel.clone(),
            place: self.name.clone(),
        };
        let pumping = std::thread::Builder::new().name("ssh".into()).spawn(move || {
            let (exit, _session) = pump.run()?;
            // The hosts before this one are needed as long.
            drop(way);
            Ok(exit)
        })?;
        Ok((near.into(), Pumping { thread: Some(pumping), stop }))
    }

    fn socket(&self) -> Result<TcpStream> {
        let unreachable = |e: &dyn std::fmt::Display| {
            Error::remote_host(format!("{}: no connection to port {}: {e}", self.name, self.port))
        };
        let addresses = (self.address.as_str(), self.port).to_socket_addrs().map_err(|e| unreachable(&e))?;
        let mut failed = None;
        for address in addresses {
            self.cancel.check()?;
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(socket) => {
                    socket.set_nodelay(true)?;
                    return Ok(socket);
                }
                Err(e) => failed = Some(e),
            }
        }
        Err(match failed {
            Some(e) => unreachable(&e),
            None => unreachable(&"its name has no address"),
        })
    }

    /// The host's key must be a recorded one; one that is not known is accepted by the person at the terminal, and
    /// recorded, or not at all.
    fn check(&self, session: &Session, known: &Known) -> Result<()> {
        let name = &self.name;
        let Some((key, _)) = session.host_key() else {
            return Err(Error::remote_host(format!("{name} showed no host key")));
        };
        let hash = session.host_key_hash(HashType::Sha256).unwrap_or_default();
        let print = format!("SHA256:{}", STANDARD_NO_PAD.encode(hash));
        match known.judge(key) {
            Verdict::Known => Ok(()),
            Verdict::Unknown => self.ask(&print, &format!("{} {} {}", self.listed, kind_of(key), STANDARD.encode(key))),
            Verdict::Changed => Err(Error::denied(format!(
                "{name} shows another key than the one in ~/.ssh/known_hosts: {print}; somebody may be in between, or \
                 it was set up anew: nothing was sent, remove the old line only when you know why"
            ))),
            Verdict::Revoked => Err(Error::denied(format!("{name} shows a key that is revoked: {print}"))),
        }
    }

    fn ask(&self, print: &str, line: &str) -> Result<()> {
        let name = &self.name;
        match terminal::confirm(&format!("{name} ({}) is not known. Its key is {print}.", self.listed)) {
            Some(true) => {
                let Some(file) = self.known_hosts.first() else { return Ok(()) };
                known_hosts::record(file, line).map_err(|e| Error::writing(file.display(), e))
            }
            Some(false) => Err(Error::denied(format!("{name} is not known, and its key {print} was not accepted"))),
            None => Err(Error::denied(format!(
                "{name} is not known: its key {print} is not in ~/.ssh/known_hosts; when that is the key you expect, \
                 add this line there: {line}"
            ))),
        }
    }

    fn idle(&self) -> Option<Connection> {
        self.idle.lock().unwrap_or_else(|e| e.into_inner()).pop()
    }

    /// A connection with a channel in which `line` runs. One that went stale while idle is replaced.
    fn start(&self, line: &str) -> Result<(Connection, ssh2::Channel)> {
        let exec = |connection: &Connection| -> Result<ssh2::Channel, ssh2::Error> {
            connection.session.set_blocking(true);
            let mut channel = connection.session.channel_session()?;
            channel.exec(line)?;
            Ok(channel)
        };
        if let Some(connection) = self.idle()
            && let Ok(channel) = exec(&connection)
        {
            return Ok((connection, channel));
        }
        let connection = self.dial()?;
        let channel = exec(&connection)
            .map_err(|e| Error::remote_host(format!("{}: the host runs no command: {}", self.name, e.message())))?;
        Ok((connection, channel))
    }
}

/// The last of the hosts on the way that `words` (`[USER@]HOST[:PORT]`, parted by commas) lead over, each behind the one
/// before it; the first as the configuration reaches it.
fn jump(words: Option<&str>, host: &str, home: &Path, cancel: &Cancel, depth: usize) -> Result<Option<Box<Place>>> {
    let Some(words) = words.filter(|words| *words != "none") else { return Ok(None) };
    let mut way: Option<Box<Place>> = None;
    for word in words.replace("%h", host).split(',').map(str::trim) {
        let (target, _) = SshTarget::parse(&format!("ssh://{}", word.trim_start_matches("ssh://")))?;
        let mut hop = Place::of(&target, home, cancel, depth + 1)?;
        hop.jump = way.take().or(hop.jump);
        way = Some(Box::new(hop));
    }
    Ok(way)
}

/// The name in front of a key's own bytes (RFC 4253, 6.6).
fn kind_of(key: &[u8]) -> String {
    let length = key.first_chunk::<4>().map_or(0, |n| u32::from_be_bytes(*n) as usize);
    let name = key.get(4..).and_then(|rest| rest.get(..length)).unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

impl Host for Builtin {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn run(&self, command: &[&str]) -> Result<Running> {
        let place = self.0.clone();
        let (Connection { session, socket, way }, channel) = place.start(&quote(command)?)?;
        let (far_stdin, stdin) = io::pipe()?;
        let (stdout, far_stdout) = io::pipe()?;
        // More than the default is welcome, not needed.
        let _ = rustix::pipe::fcntl_setpipe_size(&stdin, PIPE);
        let _ = rustix::pipe::fcntl_setpipe_size(&stdout, PIPE);
        let flags = rustix::fs::fcntl_getfl(&far_stdout).map_err(io::Error::from)?;
        rustix::fs::fcntl_setfl(&far_stdout, flags | rustix::fs::OFlags::NONBLOCK).map_err(io::Error::from)?;
        let stop = Arc::new(AtomicBool::new(false));
        let pump = Pump {
            session,
            channel,
            socket: socket.try_clone()?,
            stdin: far_stdin,
            stdout: far_stdout,
            stop: stop.clone(),
            cancel: place.cancel.clone(),
            place: place.name.clone(),
        };
        let pumping = std::thread::Builder::new().name("ssh".into()).spawn(move || {
            let (exit, session) = pump.run()?;
            place.idle.lock().unwrap_or_else(|e| e.into_inner()).push(Connection { session, socket, way });
            Ok(exit)
        })?;
        Ok(Running::new(stdin, stdout, Pumping { thread: Some(pumping), stop }))
    }
}

struct Pumping {
    thread: Option<JoinHandle<Result<Exit>>>,
    stop: Arc<AtomicBool>,
}

impl Ending for Pumping {
    fn wait(mut self: Box<Self>) -> Result<Exit> {
        let ended = self.thread.take().map(JoinHandle::join);
        match ended {
            Some(Ok(exit)) => exit,
            _ => Err(Error::failed("the thread that moves a command's bytes over ssh has failed")),
        }
    }
}

impl Drop for Pumping {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
