//! Who the user is, shown to the other host: agent, key files, then a password asked for on the terminal.

use crate::error::{Error, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ssh2::{KeyboardInteractivePrompt, Prompt, Session};
use std::{
    cell::Cell,
    collections::HashMap,
    io::Read,
    path::{Path, PathBuf},
    sync::Mutex,
};

/// Servers hang up after six attempts (`MaxAuthTries`), and an agent may hold more keys than that.
const AGENT_KEYS: usize = 4;
const LARGEST_KEY: u64 = 1 << 20; // bytes

/// What the user typed, so that it is asked for once in a job of several connections.
#[derive(Default)]
pub(super) struct Secrets(Mutex<HashMap<String, String>>);

impl Secrets {
    /// The answer to `question`, from before or from the terminal; `None` without a terminal.
    fn ask(&self, question: &str) -> Option<String> {
        let mut known = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(answer) = known.get(question) {
            return Some(answer.clone());
        }
        let answer = rpassword::prompt_password(question).ok()?;
        known.insert(question.to_owned(), answer.clone());
        Some(answer)
    }
}

/// Shows `session`'s server that this is `user`. `place` is for messages.
///
/// `Denied` where nothing was accepted, with what was tried.
pub(super) fn authenticate(
    session: &Session,
    user: &str,
    place: &str,
    identities: &[PathBuf],
    secrets: &Secrets,
) -> Result<()> {
    let methods = session.auth_methods(user).map(str::to_owned);
    if session.authenticated() {
        return Ok(());
    }
    let methods = methods.map_err(|e| Error::far_side(format!("{place}: the login was refused: {}", e.message())))?;
    let offers = |method: &str| methods.split(',').any(|offered| offered == method);
    let mut tried = Vec::new();
    if offers("publickey") {
        if by_agent(session, user, &mut tried) {
            return Ok(());
        }
        for identity in identities {
            if by_file(session, user, identity, secrets, &mut tried) {
                return Ok(());
            }
        }
    }
    if offers("password")
        && let Some(password) = secrets.ask(&format!("{user}@{place}'s password: "))
    {
        tried.push("a password".to_owned());
        if session.userauth_password(user, &password).is_ok() && session.authenticated() {
            return Ok(());
        }
    } else if offers("keyboard-interactive") {
        tried.push("the terminal".to_owned());
        let mut terminal = Terminal { place, secrets };
        if session.userauth_keyboard_interactive(user, &mut terminal).is_ok() && session.authenticated() {
            return Ok(());
        }
    }
    let tried = match tried.is_empty() {
        true => "there is no agent, no key file and no terminal to ask on".to_owned(),
        false => format!("tried {}", tried.join(", ")),
    };
    Err(Error::denied(format!(
        "{place}: {user} may not log in ({tried}; the host takes {methods}); add a key to your agent, or use --ssh ssh"
    )))
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

fn by_file(session: &Session, user: &str, identity: &Path, secrets: &Secrets, tried: &mut Vec<String>) -> bool {
    let mut key = String::new();
    let read = std::fs::File::open(identity).and_then(|file| file.take(LARGEST_KEY).read_to_string(&mut key));
    if read.is_err() {
        return false;
    }
    let shown = identity.display();
    let passphrase = match is_locked(&key) {
        true => match secrets.ask(&format!("passphrase for {shown}: ")) {
            Some(passphrase) => Some(passphrase),
            None => {
                tried.push(format!("{shown} (locked by a passphrase, and there is no terminal to ask on)"));
                return false;
            }
        },
        false => None,
    };
    tried.push(shown.to_string());
    let accepted = session.userauth_pubkey_file(user, None, identity, passphrase.as_deref());
    if let Err(e) = &accepted
        && !matches!(e.code(), ssh2::ErrorCode::Session(AUTHENTICATION_FAILED | PUBLICKEY_UNVERIFIED))
        && let Some(last) = tried.last_mut()
    {
        last.push_str(&format!(" ({})", e.message()));
    }
    accepted.is_ok() && session.authenticated()
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
struct Terminal<'a> {
    place: &'a str,
    secrets: &'a Secrets,
}

impl KeyboardInteractivePrompt for Terminal<'_> {
    fn prompt<'b>(&mut self, _user: &str, _instructions: &str, prompts: &[Prompt<'b>]) -> Vec<String> {
        let asked = Cell::new(0);
        let answer = |prompt: &Prompt<'b>| {
            asked.set(asked.get() + 1);
            let question = crate::error::printable(&prompt.text).replace(['\n', '\t'], " ");
            self.secrets.ask(&format!("{} asks: {}", self.place, question)).unwrap_or_default()
        };
        prompts.iter().take(8).map(answer).collect()
    }
}
