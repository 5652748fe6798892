//! User authentication at the remote host: the ssh agent, key files, then a password from the terminal.

use super::terminal;
use crate::error::{Error, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ssh2::{KeyboardInteractivePrompt, Prompt, Session};
use std::{
    io::Read,
    path::{Path, PathBuf},
};

/// Servers disconnect after six attempts (`MaxAuthTries`), and an agent may hold more keys than that.
const MAX_AGENT_KEYS: usize = 4;
const MAX_KEY_FILE_BYTES: u64 = 1 << 20;

/// Prompts for one passphrase or password, at most.
const MAX_ATTEMPTS: usize = 3;

/// The credentials that the login tries.
pub(super) struct Keys {
    /// Private keys, in the order in which they are tried.
    pub identities: Vec<PathBuf>,
    /// Certificates for any of the keys, in addition to each key's own `KEY-cert.pub`.
    pub certificates: Vec<PathBuf>,
    pub agent: Agent,
}

/// Whether the agent's keys are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Agent {
    Use,
    /// `IdentitiesOnly`.
    Skip,
}

/// Logs in to the server of `ssh` as `user`. `host` is for messages.
///
/// Fails with `Denied` if the server accepted no credential; the message lists those that were tried.
pub(super) fn authenticate(ssh: &Session, user: &str, host: &str, keys: &Keys) -> Result<()> {
    let methods = ssh.auth_methods(user).map(str::to_owned);
    if ssh.authenticated() {
        return Ok(());
    }
    let methods =
        methods.map_err(|e| Error::remote_host(format!("{host}: the server refused the login: {}", e.message())))?;
    let offers = |method: &str| methods.split(',').any(|offered| offered == method);
    let mut tried = Vec::new();
    if offers("publickey") {
        if keys.agent == Agent::Use && try_agent(ssh, user, &mut tried) {
            return Ok(());
        }
        for identity in &keys.identities {
            if try_key_file(ssh, user, identity, &keys.certificates, &mut tried) {
                return Ok(());
            }
        }
    }
    if offers("keyboard-interactive") && try_keyboard_interactive(ssh, user, host, &mut tried)
        || offers("password") && try_password(ssh, user, host, &mut tried)
    {
        return Ok(());
    }
    let tried = match tried.is_empty() {
        true => "no ssh agent, no key file and no terminal for a password".to_owned(),
        false => format!("tried {}", tried.join(", ")),
    };
    Err(Error::denied(format!(
        "{host}: login as {user} was denied ({tried}; the server accepts {methods}); add a key to your agent, or use \
         --ssh ssh"
    )))
}

fn try_password(ssh: &Session, user: &str, host: &str, tried: &mut Vec<String>) -> bool {
    let question = format!("{user}@{host}'s password: ");
    for attempt in 0..MAX_ATTEMPTS {
        let Some(password) = terminal::ask_secret(&question) else { return false };
        if attempt == 0 {
            tried.push("a password".to_owned());
        }
        if ssh.userauth_password(user, &password).is_ok() && ssh.authenticated() {
            return true;
        }
        terminal::forget(&question, &password);
    }
    false
}

fn try_keyboard_interactive(ssh: &Session, user: &str, host: &str, tried: &mut Vec<String>) -> bool {
    for attempt in 0..MAX_ATTEMPTS {
        let mut asking = TerminalPrompt { host: format!("{user}@{host}"), asked: Vec::new(), no_terminal: false };
        let accepted = ssh.userauth_keyboard_interactive(user, &mut asking).is_ok() && ssh.authenticated();
        if accepted {
            return true;
        }
        asking.asked.iter().for_each(|(question, answer)| terminal::forget(question, answer));
        if asking.no_terminal || asking.asked.is_empty() {
            return false;
        }
        if attempt == 0 {
            tried.push("the server's prompts".to_owned());
        }
    }
    false
}

fn try_agent(ssh: &Session, user: &str, tried: &mut Vec<String>) -> bool {
    let accepted = || -> Result<Option<usize>, ssh2::Error> {
        let mut agent = ssh.agent()?;
        agent.connect()?;
        agent.list_identities()?;
        let identities = agent.identities()?;
        for identity in identities.iter().take(MAX_AGENT_KEYS) {
            if agent.userauth(user, identity).is_ok() {
                return Ok(None);
            }
        }
        Ok(Some(identities.len().min(MAX_AGENT_KEYS)))
    };
    match accepted() {
        Ok(None) => return true,
        Ok(Some(refused)) => tried.push(format!("{refused} keys from the agent")),
        Err(_) => {}
    }
    false
}

fn try_key_file(ssh: &Session, user: &str, identity: &Path, certificates: &[PathBuf], tried: &mut Vec<String>) -> bool {
    let mut key = String::new();
    let read = std::fs::File::open(identity).and_then(|file| file.take(MAX_KEY_FILE_BYTES).read_to_string(&mut key));
    if read.is_err() {
        return false;
    }
    let path = identity.display();
    let question = format!("passphrase for {path}: ");
    let encrypted = is_encrypted(&key);
    for attempt in 0..MAX_ATTEMPTS {
        let passphrase = match encrypted {
            true => match terminal::ask_secret(&question) {
                Some(passphrase) => Some(passphrase),
                None => {
                    tried.push(format!("{path} (encrypted, and no terminal for its passphrase)"));
                    return false;
                }
            },
            false => None,
        };
        if attempt == 0 {
            tried.push(path.to_string());
        }
        let adjacent = PathBuf::from(format!("{path}-cert.pub"));
        let certificates =
            certificates.iter().chain([&adjacent]).filter(|file| file.exists()).map(|file| Some(file.as_path()));
        let mut refused = None;
        for public in certificates.chain([None]) {
            match ssh.userauth_pubkey_file(user, public, identity, passphrase.as_deref()) {
                Ok(()) if ssh.authenticated() => return true,
                Ok(()) => {}
                Err(e) => refused = Some(e),
            }
        }
        let Some(e) = refused else { return false };
        let by_server = matches!(e.code(), ssh2::ErrorCode::Session(AUTHENTICATION_FAILED | PUBLICKEY_UNVERIFIED));
        if let (false, Some(last)) = (by_server, tried.last_mut()) {
            *last = format!("{path} ({})", e.message());
        }
        match passphrase {
            // The passphrase did not decrypt the key.
            Some(passphrase) if !by_server => terminal::forget(&question, &passphrase),
            _ => return false,
        }
    }
    false
}

/// libssh2's codes for a key that the server rejected.
const AUTHENTICATION_FAILED: i32 = -18;
const PUBLICKEY_UNVERIFIED: i32 = -19;

/// Whether a private key file is encrypted. PEM states it in its header text, OpenSSH's format in its first field
/// (PROTOCOL.key).
fn is_encrypted(key: &str) -> bool {
    const MAGIC: &[u8] = b"openssh-key-v1\0";
    if !key.contains("BEGIN OPENSSH PRIVATE KEY") {
        return key.contains("ENCRYPTED");
    }
    let body: String = key.lines().filter(|line| !line.starts_with('-')).map(str::trim).collect();
    let cipher = STANDARD.decode(body).ok().and_then(|bytes| {
        let rest = bytes.strip_prefix(MAGIC)?;
        let length = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        Some(rest.get(4..)?.get(..length)? != b"none")
    });
    cipher.unwrap_or(false)
}

/// Answers a server's keyboard-interactive prompts (RFC 4256) from the terminal.
struct TerminalPrompt {
    host: String,
    /// Each question with its answer.
    asked: Vec<(String, String)>,
    /// At least one prompt could not be shown.
    no_terminal: bool,
}

impl KeyboardInteractivePrompt for TerminalPrompt {
    fn prompt<'b>(&mut self, _user: &str, _instructions: &str, prompts: &[Prompt<'b>]) -> Vec<String> {
        let mut answers = Vec::new();
        for prompt in prompts.iter().take(8) {
            let question = format!("{} asks: {}", self.host, crate::message::on_one_line(&prompt.text));
            let answer = terminal::ask_secret(&question);
            self.no_terminal |= answer.is_none();
            let answer = answer.unwrap_or_default();
            self.asked.push((question, answer.clone()));
            answers.push(answer);
        }
        answers
    }
}
