//! Another host over ssh built in (libssh2), for hosts without an ssh client. Slower than OpenSSH (three to five times
//! its CPU, measured), and with only the plainest part of `~/.ssh/config`.

mod auth;
mod config;
mod known_hosts;
mod pattern;
mod pump;

use super::{Ending, Exit, Host, Running, SshTarget, quote};
use crate::{
    cancel::Cancel,
    error::{Error, Result},
};
use auth::Secrets;
use base64::{Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::STANDARD_NO_PAD};
use config::Settings;
use known_hosts::{Known, Verdict, listed_as};
use pump::Pump;
use ssh2::{HashType, MethodType, Session};
use std::{
    io,
    net::{TcpStream, ToSocketAddrs},
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
    home: PathBuf,
    identities: Vec<PathBuf>,
    secrets: Secrets,
    idle: Mutex<Vec<Connection>>,
    cancel: Cancel,
}

struct Connection {
    session: Session,
    socket: TcpStream,
}

impl Builtin {
    /// Connects as the user whose home directory is `home`: configuration, known hosts and keys are read from its
    /// `.ssh`.
    ///
    /// `Denied` where the host's key is not the recorded one or the user may not log in, `FarSide` where the host does
    /// not answer.
    pub fn connect(target: &SshTarget, home: &Path, cancel: &Cancel) -> Result<Builtin> {
        let text = std::fs::read_to_string(home.join(".ssh/config")).unwrap_or_default();
        let settings = Settings::read(&text, &target.host, home)?;
        let user = target.user.clone().or(settings.user).or_else(|| std::env::var("USER").ok());
        let user = user
            .ok_or_else(|| Error::usage(format!("{}: as which user? write ssh://USER@{}", target.host, target.host)))?;
        let defaults = || ["id_ed25519", "id_ecdsa", "id_rsa"].map(|name| home.join(".ssh").join(name)).to_vec();
        let place = Place {
            name: target.host.clone(),
            address: settings.host_name.unwrap_or_else(|| target.host.clone()),
            port: target.port.or(settings.port).unwrap_or(22),
            user,
            home: home.to_owned(),
            identities: if settings.identities.is_empty() { defaults() } else { settings.identities },
            secrets: Secrets::default(),
            idle: Mutex::default(),
            cancel: cancel.clone(),
        };
        let first = place.dial()?;
        place.idle.lock().unwrap_or_else(|e| e.into_inner()).push(first);
        Ok(Builtin(Arc::new(place)))
    }
}

impl Place {
    fn dial(&self) -> Result<Connection> {
        self.cancel.check()?;
        let socket = self.socket()?;
        let refused = |e: ssh2::Error| Error::far_side(format!("{}: ssh cannot be set up: {}", self.name, e.message()));
        let mut session = Session::new().map_err(refused)?;
        session.set_timeout(ANSWER.as_millis() as u32);
        let mine = self.home.join(".ssh/known_hosts");
        let known = Known::read(&[&mine, Path::new("/etc/ssh/ssh_known_hosts")], &self.address, self.port);
        session.method_pref(MethodType::HostKey, &known.algorithms()).map_err(refused)?;
        session.set_tcp_stream(socket.try_clone()?);
        session.handshake().map_err(refused)?;
        self.check(&session, &known)?;
        auth::authenticate(&session, &self.user, &self.name, &self.identities, &self.secrets)?;
        session.set_keepalive(true, 2);
        Ok(Connection { session, socket })
    }

    fn socket(&self) -> Result<TcpStream> {
        let unreachable = |e: &dyn std::fmt::Display| {
            Error::far_side(format!("{}: no connection to port {}: {e}", self.name, self.port))
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

    /// The host's key must be a recorded one. Nobody is asked and nothing is recorded here.
    fn check(&self, session: &Session, known: &Known) -> Result<()> {
        let name = &self.name;
        let Some((key, _)) = session.host_key() else {
            return Err(Error::far_side(format!("{name} showed no host key")));
        };
        let hash = session.host_key_hash(HashType::Sha256).unwrap_or_default();
        let print = format!("SHA256:{}", STANDARD_NO_PAD.encode(hash));
        match known.judge(key) {
            Verdict::Known => Ok(()),
            Verdict::Unknown => Err(Error::denied(format!(
                "{name} is not known: its key {print} is not in ~/.ssh/known_hosts; when that is the key you expect, \
                 add this line there: {} {} {}",
                listed_as(&self.address, self.port),
                kind_of(key),
                STANDARD.encode(key)
            ))),
            Verdict::Changed => Err(Error::denied(format!(
                "{name} shows another key than the one in ~/.ssh/known_hosts: {print}; somebody may be in between, or \
                 it was set up anew: nothing was sent, remove the old line only when you know why"
            ))),
            Verdict::Revoked => Err(Error::denied(format!("{name} shows a key that is revoked: {print}"))),
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
            .map_err(|e| Error::far_side(format!("{}: the host runs no command: {}", self.name, e.message())))?;
        Ok((connection, channel))
    }
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
        let (Connection { session, socket }, channel) = place.start(&quote(command)?)?;
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
            place.idle.lock().unwrap_or_else(|e| e.into_inner()).push(Connection { session, socket });
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
