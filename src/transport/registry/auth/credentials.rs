//! Who the user is for a repository: what was given, else what the files know. Looked up only once a registry asks,
//! so a public pull depends on no file.

use super::file::AuthFile;
use super::files;
use super::secret::Login;
use crate::progress::Watch;
use crate::transport::registry::options::{Access, Credentials};

/// What a search found.
#[derive(Debug, Clone, Default)]
pub struct Found {
    pub login: Option<Login>,
    /// Where `login` came from, or why there is none, for an error's sentence.
    pub note: String,
    /// A login over plain HTTP kept it.
    pub over_http: bool,
}

/// Whether there are credentials for `repository` at `host`. Files are read, and helpers asked, with every call.
pub fn known(access: &Access, host: &str, repository: &str, watch: &dyn Watch) -> bool {
    find(access, host, repository, watch).login.is_some()
}

/// Looks for credentials for `repository` (empty: none in particular) at `host`. A file or helper that cannot be used
/// is told to `watch` and passed over.
pub fn find(access: &Access, host: &str, repository: &str, watch: &dyn Watch) -> Found {
    if let Credentials::Password { user, password } = &access.credentials {
        let login = Login::Password { user: user.clone(), password: password.clone() };
        let note = "those given on the command line or in the environment".to_owned();
        return Found { login: Some(login), note, over_http: false };
    }
    if access.credentials == Credentials::Anonymous {
        return Found::default();
    }
    let mut complaints = Vec::new();
    let mut complain = |error: crate::Error| {
        watch.say(&format!("{error}; it is skipped"));
        complaints.push(error.to_string());
    };
    for path in files::to_search(access) {
        match AuthFile::read(&path) {
            Ok(Some(file)) => {
                if let Some(login) = file.find(host, repository, &mut complain) {
                    let note = format!("those in {}", path.display());
                    return Found { login: Some(login), note, over_http: file.is_over_http(host) };
                }
            }
            Ok(None) => {}
            Err(error) => complain(error),
        }
    }
    Found { login: None, note: complaints.join("; "), over_http: false }
}
