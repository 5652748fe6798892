//! Remote hosts through the user's ssh client, so that the user's configuration, agent and jump hosts apply. All
//! commands of a run share one connection.

use super::forward::{Client, Forward};
use super::private_dir::PrivateDir;
use super::{Host, Running, SshTarget, capture, process, quote};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use std::{
    collections::HashMap,
    fs::File,
    io::{IsTerminal, Read},
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// The time that the shared connection stays open after its last command, if this process is killed.
const CONTROL_PERSIST_SECONDS: u32 = 120;
/// The time in which a connection that the host refuses ends.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Half the CPU of ssh's first choice on processors with AES instructions (measured), and equally secure.
const AES_CIPHERS: &str = "Ciphers=^aes128-gcm@openssh.com,aes256-gcm@openssh.com";

/// A remote host reached by an ssh client.
pub struct OpenSsh {
    name: String,
    program: String,
    /// The arguments before the remote command.
    arguments: Vec<String>,
    control: Option<PrivateDir>,
    /// Commands share a connection: imgmv's own, or one that the user configured.
    shares: bool,
    /// A command has run, so that the shared connection is open.
    has_run: AtomicBool,
    /// Forwarded sockets, by their paths on the host.
    forwards: Mutex<HashMap<String, Forward>>,
    cancel: Cancel,
}

impl OpenSsh {
    /// `command` is the client and the user's options. Reads the client's configuration; does not connect yet.
    ///
    /// Fails with `Usage` if `command` is empty or its program does not exist.
    pub fn new(target: &SshTarget, command: Vec<String>, cancel: &Cancel) -> Result<OpenSsh> {
        let Some((program, options)) = command.split_first() else {
            return Err(Error::usage("--ssh is empty; expected builtin, auto, or an ssh command"));
        };
        let mut target_options = Vec::new();
        if let Some(port) = target.port {
            target_options.extend(["-p".to_owned(), port.to_string()]);
        }
        if let Some(user) = &target.user {
            target_options.extend(["-l".to_owned(), user.clone()]);
        }
        let mut host = OpenSsh {
            name: target.host.clone(),
            program: program.clone(),
            arguments: options.to_vec(),
            control: None,
            shares: false,
            has_run: AtomicBool::new(false),
            forwards: Mutex::default(),
            cancel: cancel.clone(),
        };
        host.arguments.extend(target_options);
        let query = [&host.arguments[..], &["-G".into(), "--".into(), target.host.clone()]].concat();
        // A client with another name gets only the options that every client supports (as with rsync's -e).
        if is_openssh(program)
            && let Some(settings) = settings(program, &query)?
        {
            host.add_options(&settings);
            host.arguments.push("--".into());
        }
        host.arguments.push(target.host.clone());
        Ok(host)
    }

    /// Adds imgmv's options for OpenSSH that the user's configuration does not set.
    fn add_options(&mut self, settings: &HashMap<String, String>) {
        let is = |key: &str, value: &str| settings.get(key).is_none_or(|found| found == value);
        let mut options: Vec<String> = Vec::new();
        let mut set = |option: &str| options.extend(["-o".to_owned(), option.to_owned()]);
        set("ClearAllForwardings=yes");
        set("PermitLocalCommand=no");
        // Older clients reject these options, so they are sent only if the configuration sets them. A configured
        // RemoteCommand conflicts with imgmv's command; the other two disconnect standard input.
        let configured = |key: &str| settings.get(key).is_some_and(|value| value != "no" && value != "none");
        for (key, option) in [
            ("remotecommand", "RemoteCommand=none"),
            ("forkafterauthentication", "ForkAfterAuthentication=no"),
            ("stdinnull", "StdinNull=no"),
        ] {
            if configured(key) {
                set(option);
            }
        }
        if !can_prompt() {
            set("BatchMode=yes");
        }
        if is("loglevel", "INFO") {
            set("LogLevel=ERROR");
        }
        if is("connecttimeout", "none") {
            set("ConnectTimeout=30");
        }
        if is("serveraliveinterval", "0") {
            set("ServerAliveInterval=15");
            set("ServerAliveCountMax=4");
        }
        let stock = default_settings(&self.program);
        let stock_ciphers = stock.as_ref().and_then(|stock| stock.get("ciphers"));
        if has_aes() && stock_ciphers.is_some_and(|stock| is("ciphers", stock)) {
            set(AES_CIPHERS);
        }
        // A ControlPath in the user's configuration is used as it is.
        if is("controlpath", "none")
            && let Some(control) = PrivateDir::create()
        {
            set("ControlMaster=auto");
            set(&format!("ControlPersist={CONTROL_PERSIST_SECONDS}"));
            set(&format!("ControlPath={}/s", control.path().display()));
            self.control = Some(control);
        }
        self.shares = self.control.is_some() || configured("controlpath");
        // ssh uses the first value of each option and the last of each flag, so these override the user's.
        self.arguments.splice(0..0, options);
        self.arguments.extend(["-T".into(), "-a".into(), "-x".into()]);
    }
}

impl Host for OpenSsh {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&self, command: &[&str]) -> Result<Running> {
        let line = quote(command)?;
        self.has_run.store(true, Ordering::Relaxed);
        process::start(Command::new(&self.program).args(&self.arguments).arg(line), &self.cancel)
    }

    fn connect_socket(&self, path: &str) -> Result<UnixStream> {
        let mut forwards = self.forwards.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(forward) = forwards.get(path)
            && let Ok(socket) = forward.connect()
        {
            return Ok(socket);
        }
        let forward = self.forward(path)?;
        let socket = forward.connect()?;
        forwards.insert(path.to_owned(), forward);
        Ok(socket)
    }

    fn refusal(&self) -> String {
        let forwards = self.forwards.lock().unwrap_or_else(PoisonError::into_inner);
        let words = forwards.iter().filter_map(|(path, forward)| forward.refusal().or_else(|| self.diagnose(path)));
        words.into_iter().find(|words| !words.is_empty()).unwrap_or_default()
    }
}

impl OpenSsh {
    fn client<'a>(&'a self, arguments: &'a [String]) -> Client<'a> {
        Client { host: &self.name, program: &self.program, arguments, cancel: &self.cancel }
    }

    /// Forwards `path` by the shared connection, else by a client that runs for it.
    fn forward(&self, path: &str) -> Result<Forward> {
        let client = self.client(&self.arguments);
        if self.shares {
            if !self.has_run.load(Ordering::Relaxed) {
                capture(self, &["true"])?;
            }
            if let Ok(forward) = Forward::share(client, path) {
                return Ok(forward);
            }
        }
        Forward::start(client, path)
    }

    /// The message of ssh when the socket at `path` is connected to, by a client that asks for no password.
    fn diagnose(&self, path: &str) -> Option<String> {
        let arguments = [&["-o".to_owned(), "BatchMode=yes".to_owned()], &self.arguments[..]].concat();
        let forward = Forward::start(self.client(&arguments), path).ok()?;
        let mut socket = forward.connect().ok()?;
        socket.set_read_timeout(Some(REFUSAL_TIMEOUT)).ok()?;
        let _ = socket.read(&mut [0]);
        forward.refusal()
    }
}

impl Drop for OpenSsh {
    fn drop(&mut self) {
        let Some(control) = &self.control else {
            return;
        };
        if control.path().join("s").exists() {
            let mut close = Command::new(&self.program);
            close.args(["-O", "exit"]).args(&self.arguments);
            // A failure is harmless: the connection closes after `CONTROL_PERSIST_SECONDS`.
            let _ = close.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

fn is_openssh(program: &str) -> bool {
    Path::new(program).file_name().is_some_and(|name| name.to_string_lossy().starts_with("ssh"))
}

/// The client's resolved configuration, keys and values in lower case; `None` if the client does not support `-G`.
fn settings(program: &str, arguments: &[String]) -> Result<Option<HashMap<String, String>>> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::usage(format!(
            "the ssh client {program} was not found on PATH; name one with --ssh, or use --ssh builtin"
        )),
        _ => Error::failed(format!("cannot start the ssh client {program}: {e}")),
    })?;
    let text = String::from_utf8_lossy(&output.stdout).to_lowercase();
    let settings: HashMap<String, String> =
        text.lines().filter_map(|line| line.split_once(' ')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    if output.status.success() && settings.contains_key("hostname") {
        return Ok(Some(settings));
    }
    let message = super::tail::sanitize(&String::from_utf8_lossy(&output.stderr));
    if message.to_lowercase().contains("configuration option") || message.contains("terminating") {
        return Err(Error::usage(format!(
            "{program} rejected its configuration: {}",
            super::tail::last_lines(&message)
        )));
    }
    Ok(None)
}

/// The client's configuration without any file.
fn default_settings(program: &str) -> Option<HashMap<String, String>> {
    settings(program, &["-F".into(), "none".into(), "-G".into(), "host".into()]).ok().flatten()
}

/// Whether ssh can prompt for a password or a host key, which it does on the terminal, not on standard input.
fn can_prompt() -> bool {
    std::io::stdin().is_terminal() || File::open("/dev/tty").is_ok() || std::env::var_os("SSH_ASKPASS").is_some()
}

#[cfg(target_arch = "x86_64")]
fn has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes() -> bool {
    false
}
