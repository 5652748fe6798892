//! The access to a registry: from options, environment variables, files and standard input.

use crate::cli::options::{Network, RegistryOptions};
use crate::cli::output::terminal::{line, lock};
use crate::remote::prompt_secret;
use crate::transport::registry::{Access, Credentials, Insecure, Secret};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::sync::Mutex;
use std::time::Duration;

/// The longest password; tokens can be long.
const MAX_PASSWORD_BYTES: u64 = 64 << 10;

/// Returns the access by the options of one side and of the network.
pub fn access(side: &RegistryOptions, network: &Network) -> Result<Access> {
    let defaults = Access::default();
    Ok(Access {
        credentials: credentials(side)?,
        insecure: if side.insecure == Some(true) { Insecure::ByUser } else { Insecure::No },
        ca: side.ca.clone(),
        client_cert: side.cert.clone().zip(side.key.clone()),
        authfile: network.authfile.clone(),
        token_hosts: network.token_hosts.clone(),
        timeout: Duration::from_secs(network.timeout),
        retries: network.retry,
        cache_dir: super::copy_options::cache_dir(),
        ..defaults
    })
}

fn credentials(side: &RegistryOptions) -> Result<Credentials> {
    let Some(creds) = &side.creds else {
        return match side.password_stdin || side.password_file.is_some() {
            true => Err(Error::usage(format!("a password needs a user name; give one with {}", side.flag))),
            false => Ok(Credentials::Stored),
        };
    };
    let (user, password) = match creds.split_once(':') {
        Some((user, password)) => (user, Some(password.to_owned())),
        None => (&**creds, None),
    };
    let password = match password {
        Some(password) => password,
        None => password_of(user, side)?,
    };
    Ok(Credentials::Password { user: user.to_owned(), password: Secret::new(password) })
}

/// Passwords by the option of their user, so that standard input is read once and the user is prompted once.
static PASSWORDS: Mutex<BTreeMap<&str, String>> = Mutex::new(BTreeMap::new());

fn password_of(user: &str, side: &RegistryOptions) -> Result<String> {
    let mut known = lock(&PASSWORDS);
    if let Some(password) = known.get(side.flag) {
        return Ok(password.clone());
    }
    let password = read_password(user, side)?;
    known.insert(side.flag, password.clone());
    Ok(password)
}

fn read_password(user: &str, side: &RegistryOptions) -> Result<String> {
    if side.password_stdin {
        return first_line(io::stdin().lock(), "standard input");
    }
    if let Some(file) = &side.password_file {
        let shown = file.display().to_string();
        let opened = File::open(file).map_err(|error| Error::reading(&shown, error))?;
        return first_line(BufReader::new(opened), &shown);
    }
    match &side.password {
        Some(password) => Ok(password.clone()),
        None if io::stdin().is_terminal() && io::stderr().is_terminal() => {
            prompt_secret(&format!("Password of {user}: ")).map_err(|e| Error::reading("the password", e))
        }
        None => Err(Error::usage(format!(
            "no password for {user}; give it on standard input, in a file or in the environment (see --help)"
        ))),
    }
}

fn first_line(from: impl BufRead, label: &str) -> Result<String> {
    let mut text = String::new();
    from.take(MAX_PASSWORD_BYTES).read_line(&mut text).map_err(|error| Error::reading(label, error))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(Error::usage(format!("{label} has no password in its first line"))),
        password => Ok(password.to_owned()),
    }
}

/// Prompts for a user name; `Usage` without a terminal.
pub fn ask_user(host: &str) -> Result<String> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Error::usage(format!("no user name for {host}; give one with --username")));
    }
    line(&format!("User at {host}:"));
    first_line(io::stdin().lock(), "the terminal")
}
