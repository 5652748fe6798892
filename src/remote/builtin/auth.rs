//! Who the user is, shown to the other host: agent, key files, then a password asked for on the terminal.

use super::terminal;
use crate::error::{Error, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ssh2::{KeyboardInteractivePrompt, Prompt, Session};
use std::{
    io::Read,
    path::{Path, PathBuf},
};

/// Servers hang up after six attempts (`MaxAuthTries`), and an agent may hold more keys than that.
const AGENT_KEYS: usize = 4;
const LARGEST_KEY: u64 = 1 << 20; // bytes

/// How often a wrong passphrase or password is asked for again.
const TRIES: usize = 3;

/// What a user may log in with.
pub(super) struct Keys {
    /// Private keys, in the order they are to be tried.
    pub identities: Vec<PathBuf>,
    /// For any of them, besides those that lie beside them.
    pub certificates: Vec<PathBuf>,
    pub agent: Agent,
}

/// Whether the agent's keys are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Agent {
    Asked,
    /// `IdentitiesOnly`.
    LeftAlone,
}

/// Shows `session`'s server that this is `user`. `place` is for messages.
///
/// `Denied` where nothing was accepted, with what was tried.
pub(super) fn authenticate(session: &Session, user: &str, place: &str, keys: &Keys) -> Result<()> {
    let methods = session.auth_methods(user).map(str::to_owned);
    if session.authenticated() {
        return Ok(());
    }
    let methods =
        methods.map_err(|e| Error::remote_host(format!("{place}: the login was refused: {}", e.message())))?;
    let offers = |method: &str| methods.split(',').any(|offered| offered == method);
    let mut tried = Vec::new();
    if offers("publickey") {
        if keys.agent == Agent::Asked && by_agent(session, user, &mut tried) {
            return Ok(());
        }
        for identity in &keys.identities {
            if by_file(session, user, identity, &keys.certificates, &mut tried) {
                return Ok(());
            }
        }
    }
    if offers("keyboard-interactive") && by_questions(session, user, place, &mut tried)
        || offers("password") && by_password(session, user, place, &mut tried)
    {
        return Ok(());
    }
    let tried = match tried.is_empty() {
        true => "there is no agent, no key file and no terminal to ask on".to_owned(),
        false => format!("tried {}", tried.join(", ")),
    };
    Err(Error::denied(format!(
        "{place}: {user} may not log in ({tried}; the host takes {methods}); add a key to your agent, or use --ssh ssh"
    )))
}

fn by_password(session: &Session, user: &str, place: &str, tried: &mut Vec<String>) -> bool {
    let question = format!("{user}@{place}'s password: ");
    for nth in 0..TRIES {
        let Some(password) = terminal::secret(&question) else { return false };
        if nth == 0 {
            tried.push("a password".to_owned());
        }
        if session.userauth_password(user, &password).is_ok() && session.authenticated() {
            return true;
        }
        terminal::forget(&question, &password);
    }
    false
}

fn by_questions(session: &Session, user: &str, place: &str, tried: &mut Vec<String>) -> bool {
    for nth in 0..TRIES {
        let mut asking = Asking { place: format!("{user}@{place}"), asked: Vec::new(), silent: false };
        let accepted = session.userauth_keyboard_interactive(user, &mut asking).is_ok() && session.authenticated();
        if accepted {
            return true;
        }
        asking.asked.iter().for_each(|(question, answer)| terminal::forget(question, answer));
        if asking.silent || asking.asked.is_empty() {
            return false;
        }
        if nth == 0 {
            tried.push("the host's questions".to_owned());
        }
    }
    false
}

fn by_agent(session: &Session, user: &str, tried: &mut Vec<String>) -> bool {
    let accepted = || -> Result<Option<usize>, ssh2::Error> {
        let mut agent = session.agent()?;
        agent.connect()?;
        agent.list_identities()?;
        let identities = agent.identities()?;
        for identity in identities.iter().take(AGENT_KEYS) {
            if agent.userauth(user, identity).is_ok() {
                return Ok(None);
            }
        }
        Ok(Some(identities.len().min(AGENT_KEYS)))
    };
    match accepted() {
        Ok(None) => return true,
        Ok(Some(refused)) => tried.push(format!("{refused} keys of the agent")),
        Err(_) => {}
    }
    false
}

fn by_file(session: &Session, user: &str, identity: &Path, certificates: &[PathBuf], tried: &mut Vec<String>) -> bool {
    let mut key = String::new();
    let read = std::fs::File::open(identity).and_then(|file| file.take(LARGEST_KEY).read_to_string(&mut key));
    if read.is_err() {
        return false;
    }
    let shown = identity.display();
    let question = format!("passphrase for {shown}: ");
    let locked = is_locked(&key);
    for nth in 0..TRIES {
        let passphrase = match locked {
            true => match terminal::secret(&question) {
                Some(passphrase) => Some(passphrase),
                None => {
                    tried.push(format!("{shown} (locked by a passphrase, and there is no terminal to ask on)"));
                    return false;
                }
            },
            false => None,
        };
        if nth == 0 {
            tried.push(shown.to_string());
        }
        let beside = PathBuf::from(format!("{shown}-cert.pub"));
        let certificates =
            certificates.iter().chain([&beside]).filter(|file| file.exists()).map(|file| Some(file.as_path()));
        let mut refused = None;
        for public in certificates.chain([None]) {
            match session.userauth_pubkey_file(user, public, identity, passphrase.as_deref()) {
                Ok(()) if session.authenticated() => return true,
                Ok(()) => {}
                Err(e) => refused = Some(e),
            }
        }
        let Some(e) = refused else { return false };
        let by_server = matches!(e.code(), ssh2::ErrorCode::Session(AUTHENTICATION_FAILED | PUBLICKEY_UNVERIFIED));
        if let (false, Some(last)) = (by_server, tried.last_mut()) {
            *last = format!("{shown} ({})", e.message());
        }
        match passphrase {
            // It did not open the key.
            Some(passphrase) if !by_server => terminal::forget(&question, &passphrase),
            _ => return false,
        }
    }
    false
}

/// libssh2's: the server said no.
const AUTHENTICATION_FAILED: i32 = -18;
const PUBLICKEY_UNVERIFIED: i32 = -19;

/// Whether a private key file has to be unlocked: said in the text of PEM, in the first field of OpenSSH's own form
/// (PROTOCOL.key).
fn is_locked(key: &str) -> bool {
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

/// Answers a server's own questions (RFC 4256) from the terminal.
struct Asking {
    place: String,
    /// Questions, and what was answered.
    asked: Vec<(String, String)>,
    /// There is no terminal.
    silent: bool,
}

impl KeyboardInteractivePrompt for Asking {
    fn prompt<'b>(&mut self, _user: &str, _instructions: &str, prompts: &[Prompt<'b>]) -> Vec<String> {
        let mut answers = Vec::new();
        for prompt in prompts.iter().take(8) {
            let question = format!("{} asks: {}", self.place, crate::error::on_one_line(&prompt.text));
            let answer = terminal::secret(&question);
            self.silent |= answer.is_none();
            let answer = answer.unwrap_or_default();
            self.asked.push((question, answer.clone()));
            answers.push(answer);
        }
        answers
    }
}
