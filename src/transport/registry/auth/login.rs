//! `imgmv login` and `imgmv logout`. A login verifies the credentials before it stores them.

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

/// The result of `login`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginOutcome {
    /// The file or credential helper that stores the credentials.
    pub location: String,
    /// The registry requires the credentials and accepted them. False if it allows anonymous access.
    pub verified: bool,
}

impl Registry {
    /// Whether the registry requires credentials and accepts those of its [`Access`] (distribution-spec, "Determining
    /// Support"). The response of another host, after a redirect, does not count. Fails with `Denied` if the registry
    /// refuses the credentials, or if they may not be sent.
    pub fn check_login(&self) -> Result<bool> {
        let call = Call::new(Method::GET, self.client.url("")?);
        let scope = Scope::Login;
        let what = "registry API";
        let response = self.client.send(&call, Payload::Nothing, &scope, what)?;
        let home = response.url.origin() == call.url.origin();
        self.client.expect(response, &[200], &scope, what)?.drain();
        let auth = self.client.auth_state();
        match &auth.withheld {
            Some(why) => Err(Error::denied(why)),
            None => Ok(auth.scheme.is_some() && home),
        }
    }
}

/// Verifies the user name and password in `access` at `host` and stores them with mode 0600 in `access.authfile`, else
/// in `REGISTRY_AUTH_FILE`, else in docker's config.json; or in the credential helper that the file names.
pub fn login(host: &str, access: &Access, watch: Arc<dyn Watch>, cancel: Cancel) -> Result<LoginOutcome> {
    let Credentials::Password { user, password } = &access.credentials else {
        return Err(Error::usage("login: a user name and a password are required"));
    };
    if user.is_empty() || user.contains(':') {
        return Err(Error::usage("login: the user name must not be empty or contain a colon"));
    }
    let registry = Registry::new(host, access.clone(), watch, cancel)?;
    let verified = registry.check_login()?;
    let path = files::login_path(access.authfile.as_deref()).ok_or_else(no_location)?;
    let transport = if registry.client.is_over_plain_http()? { LoginTransport::PlainHttp } else { LoginTransport::Tls };
    let location = AuthFile::store(&path, registry.host(), user, password, transport)?;
    Ok(LoginOutcome { location, verified })
}

/// Removes the stored credentials for `host`. Returns whether there were any.
pub fn logout(host: &str, access: &Access) -> Result<bool> {
    AuthFile::remove(&files::login_path(access.authfile.as_deref()).ok_or_else(no_location)?, host)
}

fn no_location() -> Error {
    Error::usage("no file for credentials: HOME is not set; name one with --authfile")
}
