//! The user's credentials for a repository, as given or from the files. The files are searched only when a registry
//! asks for credentials, so a public pull does not depend on them.

use super::file::AuthFile;
use super::files;
use super::secret::LoginSecret;
use crate::progress::Watch;
use crate::transport::registry::options::{Access, Credentials};

/// The result of a search for credentials.
#[derive(Debug, Clone, Default)]
pub struct FoundCredentials {
    pub login: Option<LoginSecret>,
    /// The origin of `login`, or the reason for its absence, for error messages.
    pub note: String,
    /// A login over plain HTTP stored it.
    pub over_http: bool,
}

/// Whether credentials for `repository` at `host` exist. Every call reads the files and runs the helpers.
pub fn exist(access: &Access, host: &str, repository: &str, watch: &dyn Watch) -> bool {
    find(access, host, repository, watch).login.is_some()
}

/// Searches credentials for `repository` (empty: for the registry) at `host`. Skips a file or
/// helper that fails, and reports it to `watch`.
pub fn find(access: &Access, host: &str, repository: &str, watch: &dyn Watch) -> FoundCredentials {
    if let Credentials::Password { user, password } = &access.credentials {
        let login = LoginSecret::Password { user: user.clone(), password: password.clone() };
        let note = "those given on the command line or in the environment".to_owned();
        return FoundCredentials { login: Some(login), note, over_http: false };
    }
    if access.credentials == Credentials::Anonymous {
        return FoundCredentials::default();
    }
    let mut failures = Vec::new();
    let mut report = |error: crate::Error| {
        watch.say(&format!("{error}; skipped"));
        failures.push(error.to_string());
    };
    for path in files::search_paths(access.authfile.as_deref()) {
        match AuthFile::read(&path) {
            Ok(Some(file)) => {
                if let Some(login) = file.find(host, repository, &mut report) {
                    let note = format!("those in {}", path.display());
                    return FoundCredentials { login: Some(login), note, over_http: file.is_over_http(host) };
                }
            }
            Ok(None) => {}
            Err(error) => report(error),
        }
    }
    FoundCredentials { login: None, note: failures.join("; "), over_http: false }
}
