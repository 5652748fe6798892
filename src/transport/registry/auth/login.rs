//! `imgmv login` and `imgmv logout`: credentials are tried first and kept then.

use super::file::{AuthFile, LoginTransport};
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
pub struct LoginOutcome {
    /// The file, or the credential helper.
    pub location: String,
    /// The registry asked for the credentials and took them. False: it lets everybody in.
    pub verified: bool,
}

impl Registry {
    /// Whether the registry asks for credentials and takes those of its [`Access`] (distribution-spec, "Determining
    /// Support"). Another host's answer, behind a
    /// redirect, does not count. Fails with `Denied` where the registry refuses the credentials, or they may not be sent.
    pub fn check_login(&self) -> Result<bool> {
        let call = Call::new(Method::GET, self.wire.url("")?);
        let scope = Scope::Login;
        let what = "registry API";
        let response = self.wire.send(&call, Payload::Nothing, &scope, what)?;
        let home = response.url.origin() == call.url.origin();
        self.wire.expect(response, &[200], &scope, what)?.drain();
        let auth = self.wire.auth_state();
        match &auth.withheld {
            Some(why) => Err(Error::denied(why)),
            None => Ok(auth.scheme.is_some() && home),
        }
    }
}

/// Tries the user name and password in `access` at `host` and keeps them in `access.authfile`, else in
/// `REGISTRY_AUTH_FILE`, else in docker's config.json (or the credential helper that the file names), mode 0600.
pub fn login(host: &str, access: &Access, watch: Arc<dyn Watch>, cancel: Cancel) -> Result<LoginOutcome> {
    let Credentials::Password { user, password } = &access.credentials else {
        return Err(Error::usage("a login needs a user name and a password"));
    };
    if user.is_empty() || user.contains(':') {
        return Err(Error::usage("a user name is not empty and has no colon in it"));
    }
    let registry = Registry::new(host, access.clone(), watch, cancel)?;
    let verified = registry.check_login()?;
    let path = files::login_path(access.authfile.as_deref()).ok_or_else(no_location)?;
    let transport = if registry.wire.is_over_plain_http()? { LoginTransport::PlainHttp } else { LoginTransport::Tls };
    let location = AuthFile::store(&path, registry.host(), user, password, transport)?;
    Ok(LoginOutcome { location, verified })
}

/// Removes what is kept for `host`; says whether there was anything.
pub fn logout(host: &str, access: &Access) -> Result<bool> {
    AuthFile::remove(&files::login_path(access.authfile.as_deref()).ok_or_else(no_location)?, host)
}

fn no_location() -> Error {
    Error::usage("there is no place for credentials: HOME is not set; name one with --authfile")
}
