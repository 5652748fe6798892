//! Credential helpers, `docker-credential-NAME` (docker's credential helper protocol): get, store and erase, each
//! within a time limit. Errors describe the helper's failure; `file` adds the helper's name and its task.

use super::secret::LoginSecret;
use crate::error::{Error, Result};
use crate::transport::registry::options::Secret;
use serde_json::{Value, json};
use std::{
    io::{self, Read, Write as _},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// The time limit; a user may have to unlock a keychain.
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// The limit on the output that is read.
const MAX_OUTPUT_BYTES: u64 = 1 << 20;
/// The text by which docker's helpers report a missing entry.
const NOT_FOUND: &str = "credentials not found";
/// The user name that marks an identity token.
const TOKEN_USER: &str = "<token>";

/// Gets the credentials for `server` from helper `name`.
pub fn get(name: &str, server: &str) -> Result<Option<LoginSecret>> {
    let output = match run(name, "get", server, HELPER_TIMEOUT)? {
        Ok(output) => output,
        Err(output) if output.contains(NOT_FOUND) => return Ok(None),
        Err(output) => return Err(failure(&output)),
    };
    let entry: Option<Value> = serde_json::from_str(&output).ok();
    let text = |field: &str| entry.as_ref()?.get(field)?.as_str().map(str::to_owned);
    match (text("Username"), text("Secret")) {
        (_, Some(secret)) if secret.is_empty() => Ok(None),
        (Some(user), Some(secret)) => Ok(Some(login(&user, &secret))),
        _ => Err(Error::failed("it returned no user name and secret")),
    }
}

/// Stores `password` in helper `name`.
pub fn store(name: &str, server: &str, user: &str, password: &Secret) -> Result<()> {
    let entry = json!({ "ServerURL": server, "Username": user, "Secret": password.reveal() }).to_string();
    run(name, "store", &entry, HELPER_TIMEOUT)?.map(|_| ()).map_err(|output| failure(&output))
}

/// Erases the entry of `server` in helper `name`. Returns whether there was one.
pub fn erase(name: &str, server: &str) -> Result<bool> {
    match run(name, "erase", server, HELPER_TIMEOUT)? {
        Ok(_) => Ok(true),
        Err(output) if output.contains(NOT_FOUND) => Ok(false),
        Err(output) => Err(failure(&output)),
    }
}

/// Converts a user name and a secret. docker marks identity tokens by their user name.
pub fn login(user: &str, secret: &str) -> LoginSecret {
    match user {
        TOKEN_USER => LoginSecret::Identity(Secret::new(secret)),
        user => LoginSecret::Password { user: user.to_owned(), password: Secret::new(secret) },
    }
}

fn failure(output: &str) -> Error {
    let output: String = output.trim().chars().take(200).collect();
    Error::failed(if output.is_empty() {
        "it failed without a message".to_owned()
    } else {
        format!("it failed: {output}")
    })
}

/// A helper's output on success, or on failure.
type HelperOutput = std::result::Result<String, String>;

/// Runs the helper.
fn run(name: &str, verb: &str, input: &str, timeout: Duration) -> Result<HelperOutput> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        return Err(Error::invalid("the helper is not run; expected a name, not a path"));
    }
    exchange(Command::new(format!("docker-credential-{name}")).arg(verb), input, timeout)
}

/// Writes `input` to `command` and reads its output. Kills a command that exceeds `timeout`.
fn exchange(command: &mut Command, input: &str, timeout: Duration) -> Result<HelperOutput> {
    let started =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(start_error)?;
    let mut child = KillOnDrop(started);
    let mut stdin = child.0.stdin.take().expect("asked for a pipe");
    let stdout = child.0.stdout.take().expect("asked for a pipe");
    let input = input.to_owned();
    // A helper that does not read must not block the writer, nor one that does not write the reader.
    thread::spawn(move || stdin.write_all(input.as_bytes()));
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout.take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes);
        send.send(read.map(|_| bytes))
    });
    let deadline = Instant::now() + timeout;
    let late = || Error::failed(format!("it did not finish within {} seconds", timeout.as_secs()));
    let bytes = receive.recv_timeout(timeout).map_err(|_| late())?;
    let bytes = bytes.map_err(|e| Error::reading("its output", e))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    loop {
        match child.0.try_wait().map_err(|e| Error::reading("its status", e))? {
            Some(status) if status.success() => return Ok(Ok(text)),
            Some(_) => return Ok(Err(text)),
            None if Instant::now() > deadline => return Err(late()),
            None => thread::sleep(POLL_INTERVAL),
        }
    }
}

fn start_error(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::not_found("the program was not found in PATH"),
        _ => Error::from(error).at("it cannot be started"),
    }
}

/// A child process that is killed on drop.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // The process has ended already, or has exceeded its time limit.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helpers_name_is_never_a_path() {
        for name in ["", "../evil", "/bin/sh", "a b", "x;y", "a\0b"] {
            let error = run(name, "get", "r.lan", HELPER_TIMEOUT).unwrap_err();
            assert_eq!(error.kind(), crate::Kind::Invalid, "{name:?}: {error}");
        }
    }

    #[test]
    fn a_helper_that_hangs_is_ended() {
        let mut script = Command::new("sh");
        let error = exchange(script.args(["-c", "sleep 1000"]), "r.lan", Duration::from_millis(50));
        assert!(error.unwrap_err().to_string().contains("did not finish"));
    }

    #[test]
    fn a_helper_that_reads_nothing_is_heard() {
        let mut script = Command::new("sh");
        let input = "x".repeat(1 << 20);
        let output = exchange(script.args(["-c", "exec <&-; echo hello"]), &input, HELPER_TIMEOUT);
        assert_eq!(output.unwrap().unwrap(), "hello\n");
    }
}
