//! `imgmv login` and `imgmv logout`: credentials are tried first and kept then.

use super::file::{AuthFile, Tried};
use super::files;
use super::token::Scope;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::progress::Watch;
use crate::transport::registry::Registry;
use crate::transport::registry::http::{Call, Payload};
use crate::transport::registry::options::{Access, Credentials};
use std::sync::Arc;
use ureq::http::Method;

/// What `login` did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The file, or the credential helper.
    pub place: String,
    /// The registry asked for the credentials and took them. False: it lets everybody in.
    pub checked: bool,
}

impl Registry {
    /// Whether the registry asks for credentials and takes those of its [`Access`] (distribution-spec, "Determining
    /// Support"). Another host's response, behind a
    /// redirect, does not count. Fails with `Denied` where the registry refuses the credentials, or they may not be sent.
    pub fn check_login(&self) -> Result<bool> {
        let call = Call::new(Method::GET, self.client.url("")?);
        let scope = Scope::Login;
        let what = "registry API";
        let response = self.client.send(&call, Payload::Nothing, &scope, what)?;
        let home = response.url.origin() == call.url.origin();
        self.client.expect(response, &[200], &scope, what)?.drain();
        let known = self.client.known();
        match &known.withheld {
            Some(why) => Err(Error::denied(why)),
            None => Ok(known.way.is_some() && home),
        }
    }
}

/// Tries the user name and password in `access` at `host` and keeps them in `access.authfile`, else in
/// `REGISTRY_AUTH_FILE`, else in docker's config.json (or the credential helper that the file names), mode 0600.
pub fn login(host: &str, access: &Access, watch: Arc<dyn Watch>, cancel: Cancel) -> Result<Kept> {
    let Credentials::Password { user, password } = &access.credentials else {
        return Err(Error::usage("a login needs a user name and a password"));
    };
    if user.is_empty() || user.contains(':') {
        return Err(Error::usage("a user name is not empty and has no colon in it"));
    }
    let registry = Registry::new(host, access.clone(), watch, cancel)?;
    let checked = registry.check_login()?;
    let path = files::to_write(access).ok_or_else(no_place)?;
    let tried = if registry.client.is_over_plain_http()? { Tried::OverHttp } else { Tried::OverTls };
    let place = AuthFile::store(&path, registry.host(), user, password, tried)?;
    Ok(Kept { place, checked })
}

/// Removes what is kept for `host`; says whether there was anything.
pub fn logout(host: &str, access: &Access) -> Result<bool> {
    AuthFile::remove(&files::to_write(access).ok_or_else(no_place)?, host)
}

fn no_place() -> Error {
    Error::usage("there is no place for credentials: HOME is not set; name one with --authfile")
}
