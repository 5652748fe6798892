//! Another host through the user's own ssh client: their whole configuration, agent and jump hosts work, since it is
//! their client. One connection is kept for the job and shared by its commands.

use super::{Host, Running, SshTarget, process, quote};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use std::{
    collections::HashMap,
    fs::{File, Permissions},
    io::IsTerminal,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};
use tempfile::TempDir;

/// In seconds: how long the shared connection outlives its last command, should this process be killed.
const PERSIST: u32 = 120;
/// ssh puts a random suffix behind the path while it makes the socket; 108 bytes is all that a socket's name holds.
const LONGEST_SOCKET_DIR: usize = 70;
/// Cheaper than ssh's first choice by half where the processor knows AES (measured), and as safe.
const AES_FIRST: &str = "Ciphers=^aes128-gcm@openssh.com,aes256-gcm@openssh.com";

/// A host behind an ssh client.
pub struct OpenSsh {
    name: String,
    program: String,
    /// Everything that stands before the remote command.
    arguments: Vec<String>,
    control: Option<TempDir>,
    cancel: Cancel,
}

impl OpenSsh {
    /// `words` is the client and the options that the user gave it. Asks the client for its configuration; makes no
    /// connection yet.
    ///
    /// `Usage` where `words` is empty or names no program.
    pub fn new(target: &SshTarget, words: Vec<String>, cancel: &Cancel) -> Result<OpenSsh> {
        let Some((program, given)) = words.split_first() else {
            return Err(Error::usage("--ssh names no command"));
        };
        let mut place = Vec::new();
        if let Some(port) = target.port {
            place.extend(["-p".to_owned(), port.to_string()]);
        }
        if let Some(user) = &target.user {
            place.extend(["-l".to_owned(), user.clone()]);
        }
        let mut host = OpenSsh {
            name: target.host.clone(),
            program: program.clone(),
            arguments: given.to_vec(),
            control: None,
            cancel: cancel.clone(),
        };
        host.arguments.extend(place);
        let asked = [&host.arguments[..], &["-G".into(), "--".into(), target.host.clone()]].concat();
        // A client by another name gets only what every client knows (as with rsync's -e).
        if is_openssh(program)
            && let Some(settings) = settings(program, &asked)?
        {
            host.own_options(&settings);
            host.arguments.push("--".into());
        }
        host.arguments.push(target.host.clone());
        Ok(host)
    }

    /// What imgmv wants of OpenSSH where the user's configuration leaves it open.
    fn own_options(&mut self, settings: &HashMap<String, String>) {
        let is = |key: &str, value: &str| settings.get(key).is_none_or(|found| found == value);
        let mut options: Vec<String> = Vec::new();
        let mut set = |option: &str| options.extend(["-o".to_owned(), option.to_owned()]);
        set("ClearAllForwardings=yes");
        set("PermitLocalCommand=no");
        // What older clients do not know is said only where it is set: a command for this host would be refused
        // beside the one given here, and the others would take the archive away.
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
        if !can_ask() {
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
        let stock = settings_of_nobody(&self.program);
        let stock_ciphers = stock.as_ref().and_then(|stock| stock.get("ciphers"));
        if knows_aes() && stock_ciphers.is_some_and(|stock| is("ciphers", stock)) {
            set(AES_FIRST);
        }
        // A control connection that the user keeps is reused.
        if is("controlpath", "none")
            && let Some(control) = socket_dir()
        {
            set("ControlMaster=auto");
            set(&format!("ControlPersist={PERSIST}"));
            set(&format!("ControlPath={}/s", control.path().display()));
            self.control = Some(control);
        }
        // What is set here must hold: ssh keeps the first value of each option, and of each flag the last.
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
        process::start(Command::new(&self.program).args(&self.arguments).arg(line), &self.cancel)
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
            // Nothing is lost when it fails: the connection ends by itself.
            let _ = close.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

fn is_openssh(program: &str) -> bool {
    Path::new(program).file_name().is_some_and(|name| name.to_string_lossy().starts_with("ssh"))
}

/// The client's resolved configuration, key to value in lower case; `None` for a client that does not tell it.
fn settings(program: &str, arguments: &[String]) -> Result<Option<HashMap<String, String>>> {
    let asked = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = asked.map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Error::usage(format!("there is no ssh client {program} on PATH; name one with --ssh, or use --ssh builtin"))
        }
        _ => Error::failed(format!("the ssh client {program} cannot be started: {e}")),
    })?;
    let text = String::from_utf8_lossy(&output.stdout).to_lowercase();
    let pairs: HashMap<String, String> =
        text.lines().filter_map(|line| line.split_once(' ')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    if output.status.success() && pairs.contains_key("hostname") {
        return Ok(Some(pairs));
    }
    let words = super::tail::plain(&String::from_utf8_lossy(&output.stderr));
    if words.to_lowercase().contains("configuration option") || words.contains("terminating") {
        return Err(Error::usage(format!("{program} refuses its configuration: {}", super::tail::last_words(&words))));
    }
    Ok(None)
}

/// What the client does when nobody configured anything.
fn settings_of_nobody(program: &str) -> Option<HashMap<String, String>> {
    settings(program, &["-F".into(), "none".into(), "-G".into(), "host".into()]).ok().flatten()
}

/// Whether ssh could ask for a password or about a host key: it does so on the terminal, not on its input.
fn can_ask() -> bool {
    std::io::stdin().is_terminal() || File::open("/dev/tty").is_ok() || std::env::var_os("SSH_ASKPASS").is_some()
}

#[cfg(target_arch = "x86_64")]
fn knows_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes")
}

#[cfg(target_arch = "aarch64")]
fn knows_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn knows_aes() -> bool {
    false
}

/// A folder for the socket that nobody else can enter. `None`: each command makes its own connection.
fn socket_dir() -> Option<TempDir> {
    let make = |place: &Path| {
        let short = place.as_os_str().len() <= LONGEST_SOCKET_DIR && !place.to_str()?.contains(['%', '"', ' ', '\\']);
        if !short {
            return None;
        }
        tempfile::Builder::new().prefix("imgmv-").permissions(Permissions::from_mode(0o700)).tempdir_in(place).ok()
    };
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    runtime
        .and_then(|dir| make(Path::new(&dir)))
        .or_else(|| make(&std::env::temp_dir()))
        .or_else(|| make("/tmp".as_ref()))
}
