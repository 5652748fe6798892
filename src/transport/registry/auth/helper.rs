//! Credential helpers, `docker-credential-NAME` (docker's credential helper protocol): asked, told and made to forget,
//! each within a time limit. Errors say what the helper did; `file` says which helper, and what it was to do.

use super::secret::Login;
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

/// Long enough for someone to unlock a keychain.
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);
/// In bytes; what a helper says beyond it is not read.
const MAX_OUTPUT_BYTES: u64 = 1 << 20;
/// How docker's helpers say that they know nothing.
const NOT_FOUND: &str = "credentials not found";
/// The user name that marks an identity token.
const TOKEN_USER: &str = "<token>";

/// What helper `name` knows of `server`.
pub fn get(name: &str, server: &str) -> Result<Option<Login>> {
    let response = match run(name, "get", server, HELPER_TIMEOUT)? {
        Ok(response) => response,
        Err(output) if output.contains(NOT_FOUND) => return Ok(None),
        Err(output) => return Err(failure(&output)),
    };
    let said: Option<Value> = serde_json::from_str(&response).ok();
    let text = |field: &str| said.as_ref()?.get(field)?.as_str().map(str::to_owned);
    match (text("Username"), text("Secret")) {
        (_, Some(secret)) if secret.is_empty() => Ok(None),
        (Some(user), Some(secret)) => Ok(Some(login(&user, &secret))),
        _ => Err(Error::failed("it gave no user name and secret")),
    }
}

/// Hands `password` to helper `name`.
pub fn store(name: &str, server: &str, user: &str, password: &Secret) -> Result<()> {
    let entry = json!({ "ServerURL": server, "Username": user, "Secret": password.reveal() }).to_string();
    run(name, "store", &entry, HELPER_TIMEOUT)?.map(|_| ()).map_err(|output| failure(&output))
}

/// Makes helper `name` forget `server`; says whether it knew it.
pub fn erase(name: &str, server: &str) -> Result<bool> {
    match run(name, "erase", server, HELPER_TIMEOUT)? {
        Ok(_) => Ok(true),
        Err(output) if output.contains(NOT_FOUND) => Ok(false),
        Err(output) => Err(failure(&output)),
    }
}

/// A user name and secret as a login: docker marks identity tokens by their user name.
pub fn login(user: &str, secret: &str) -> Login {
    match user {
        TOKEN_USER => Login::Identity(Secret::new(secret)),
        user => Login::Password { user: user.to_owned(), password: Secret::new(secret) },
    }
}

fn failure(output: &str) -> Error {
    let output: String = output.trim().chars().take(200).collect();
    Error::failed(if output.is_empty() {
        "it failed without a word".to_owned()
    } else {
        format!("it failed: {output}")
    })
}

/// What a helper wrote when it succeeded, and when it failed.
type HelperOutput = std::result::Result<String, String>;

/// Runs the helper.
fn run(name: &str, verb: &str, input: &str, timeout: Duration) -> Result<HelperOutput> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        return Err(Error::invalid("that is not run; expected a name, not a path"));
    }
    exchange(Command::new(format!("docker-credential-{name}")).arg(verb), input, timeout)
}

/// Gives `input` to `command` and takes its answer; a command that is late is ended.
fn exchange(command: &mut Command, input: &str, timeout: Duration) -> Result<HelperOutput> {
    let started =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(start_error)?;
    let mut child = KillOnDrop(started);
    let mut stdin = child.0.stdin.take().expect("asked for a pipe");
    let stdout = child.0.stdout.take().expect("asked for a pipe");
    let input = input.to_owned();
    // A helper that reads nothing must not hold the writer, nor one that writes nothing the reader.
    thread::spawn(move || stdin.write_all(input.as_bytes()));
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout.take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes);
        send.send(read.map(|_| bytes))
    });
    let until = Instant::now() + timeout;
    let late = || Error::failed(format!("it did not answer within {} seconds", timeout.as_secs()));
    let bytes = receive.recv_timeout(timeout).map_err(|_| late())?;
    let bytes = bytes.map_err(|e| Error::reading("its answer", e))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    loop {
        match child.0.try_wait().map_err(|e| Error::reading("its status", e))? {
            Some(status) if status.success() => return Ok(Ok(text)),
            Some(_) => return Ok(Err(text)),
            None if Instant::now() > until => return Err(late()),
            None => thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn start_error(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::not_found("there is no such program in PATH"),
        _ => Error::from(error).at("it cannot be started"),
    }
}

/// A child that does not outlive its question.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // It has ended already, or it is late; in both cases nothing more is wanted of it.
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
        assert!(error.unwrap_err().to_string().contains("did not answer"));
    }

    #[test]
    fn a_helper_that_reads_nothing_is_heard() {
        let mut script = Command::new("sh");
        let input = "x".repeat(1 << 20);
        let response = exchange(script.args(["-c", "exec <&-; echo hello"]), &input, HELPER_TIMEOUT);
        assert_eq!(response.unwrap().unwrap(), "hello\n");
    }
}
