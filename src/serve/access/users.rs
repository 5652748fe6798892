//! Access rights of users in an htpasswd file (bcrypt). Clients send basic authentication (RFC 7617), or a token if
//! anonymous clients may read.

use super::tokens;
use super::tokens::{Holder, Tokens};
use crate::error::{Error, Result};
use crate::serve::backend::reload::Reloading;
use crate::serve::http::errors::{ApiError, ErrorCode};
use base64::Engine as _;
use hyper::StatusCode;
use hyper::header::{self, HeaderMap};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// The maximum size of an htpasswd file.
const MAX_HTPASSWD_BYTES: u64 = 4 << 20;
/// The maximum number of simultaneous bcrypt checks; bcrypt is slow on purpose and must not take all cores.
const MAX_CONCURRENT_CHECKS: usize = 2;
/// The maximum number of remembered correct passwords, which need no further bcrypt check.
const MAX_REMEMBERED_PASSWORDS: usize = 1024;

/// The kind of access that a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    Read,
    Write,
}

/// The access rights of users and anonymous clients.
pub struct Rights {
    users: Option<Reloading<HashMap<String, String>>>,
    /// The users that may write; `None` means all.
    writers: Option<HashSet<String>>,
    /// Anonymous clients may read.
    anonymous_read: bool,
    /// The server accepts pushes.
    accepts_pushes: bool,
    tokens: Tokens,
    /// `http` or `https`, as clients connect to this server.
    scheme: &'static str,
    /// Correct passwords by a keyed hash of user, password and bcrypt hash.
    verified: Mutex<HashMap<u64, String>>,
    hash: RandomState,
    checks: Arc<Semaphore>,
}

/// The clients that may read if writing needs a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    Anonymous,
    Users,
}

impl Rights {
    /// Grants all access to all clients.
    pub fn unrestricted() -> Rights {
        Rights {
            users: None,
            writers: None,
            anonymous_read: true,
            accepts_pushes: true,
            tokens: Tokens::default(),
            scheme: "http",
            verified: Mutex::default(),
            hash: RandomState::new(),
            checks: Arc::new(Semaphore::new(MAX_CONCURRENT_CHECKS)),
        }
    }

    /// Grants access to the users in the htpasswd file `file`, which is reloaded when it changes. Only `writers` may
    /// write (`None`: all users).
    ///
    /// Fails if the file cannot be read, has no user with a bcrypt hash, or does not contain one of `writers`.
    pub fn users(file: &Path, writers: Option<&[String]>, reading: Reading) -> Result<Rights> {
        let path = file.to_owned();
        let users = Reloading::new(vec![file.to_owned()], Duration::from_secs(1), move || htpasswd(&path));
        let known = users.current()?;
        if let Some(missing) = writers.unwrap_or_default().iter().find(|name| !known.contains_key(*name)) {
            return Err(Error::usage(format!("user {missing} is not in {}; add it with htpasswd -B", file.display())));
        }
        Ok(Rights {
            users: Some(users),
            writers: writers.map(|writers| writers.iter().cloned().collect()),
            anonymous_read: reading == Reading::Anonymous,
            ..Rights::unrestricted()
        })
    }

    /// Adapts the rights to a server that does not accept pushes.
    pub fn read_only(self) -> Rights {
        Rights { accepts_pushes: false, ..self }
    }

    /// Sets the scheme by which clients reach the server.
    pub(crate) fn with_scheme(self, scheme: &'static str) -> Rights {
        Rights { scheme, ..self }
    }

    /// Whether a client without a password may write.
    pub fn allows_anonymous_write(&self) -> bool {
        self.accepts_pushes && self.users.is_none()
    }

    /// Whether the server has users at all.
    pub fn has_users(&self) -> bool {
        self.users.is_some()
    }

    /// Returns the user of a request; `None` if the request is anonymous and needs no user.
    pub async fn check(&self, right: Right, headers: &HeaderMap) -> Result<Option<String>, ApiError> {
        let Some(users) = &self.users else { return Ok(None) };
        let user = match (self.tokens.holder(headers), basic(headers)) {
            (Some(Holder::User(user)), _) => user,
            (Some(Holder::Invalid), _) => {
                return Err(self.challenge(headers, "the token is invalid or has expired; request a new one"));
            }
            (_, Some((user, password))) => {
                let users = users.current()?;
                self.verify(&users, &user, password, headers).await?;
                user
            }
            _ if right == Right::Read && self.anonymous_read => return Ok(None),
            _ => return Err(self.challenge(headers, "authentication required; log in first")),
        };
        if right == Right::Write && self.writers.as_ref().is_some_and(|writers| !writers.contains(&user)) {
            let message = format!("user {user} may pull but not push");
            return Err(ApiError::new(StatusCode::FORBIDDEN, ErrorCode::Denied, message));
        }
        Ok(Some(user))
    }

    /// Returns a challenge instead of a 403 for an anonymous client, since a user may have access; otherwise
    /// `api_error`.
    pub fn challenge_anonymous(&self, api_error: ApiError, headers: &HeaderMap) -> ApiError {
        match self.users.is_some() && api_error.status == StatusCode::FORBIDDEN {
            true => self.challenge(headers, &api_error.message),
            false => api_error,
        }
    }

    /// Checks `GET /v2/`, which demands a user if any request could need one: from its response docker decides whether
    /// it sends credentials at all.
    pub async fn check_base(&self, headers: &HeaderMap) -> Result<Option<String>, ApiError> {
        match self.uses_tokens() && self.tokens.holder(headers).is_none() && basic(headers).is_none() {
            true => Err(self.challenge(headers, "log in, or request an anonymous token")),
            false => self.check(Right::Read, headers).await,
        }
    }

    /// The response of the token service; a client without a password gets the anonymous token.
    pub async fn issue_token(&self, headers: &HeaderMap) -> Result<String, ApiError> {
        let user = match (&self.users, basic(headers)) {
            (Some(users), Some((user, password))) => {
                let users = users.current()?;
                self.verify(&users, &user, password, headers).await?;
                Some(user)
            }
            _ => None,
        };
        Ok(self.tokens.issue(user.as_deref()))
    }

    /// Whether clients authenticate with tokens: users push and anonymous clients pull.
    pub fn uses_tokens(&self) -> bool {
        self.users.is_some() && self.anonymous_read && self.accepts_pushes
    }

    fn challenge(&self, headers: &HeaderMap, message: &str) -> ApiError {
        let how = match self.uses_tokens() {
            true => tokens::challenge(self.scheme, headers),
            false => "Basic realm=\"imgmv\", charset=\"UTF-8\"".to_owned(),
        };
        ApiError::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, message).with_header("www-authenticate", how)
    }

    async fn verify(
        &self,
        users: &HashMap<String, String>,
        user: &str,
        password: String,
        headers: &HeaderMap,
    ) -> Result<(), ApiError> {
        let hash = users.get(user).cloned();
        let key = self.hash.hash_one((user, &password, &hash));
        let is_verified = |all: &HashMap<u64, String>| all.get(&key).is_some_and(|known| *known == password);
        if hash.is_some() && is_verified(&self.verified.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(());
        }
        let permit = self.checks.clone().acquire_owned().await;
        // For an unknown user another user's hash is compared, so that the response takes as long.
        let compared = hash.as_ref().or_else(|| users.values().next()).cloned().unwrap_or_default();
        let given = password.clone();
        let matches = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            bcrypt::verify(given, &compared).unwrap_or(false)
        });
        if !matches.await.unwrap_or(false) || hash.is_none() {
            return Err(self.challenge(headers, "wrong user name or password"));
        }
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= MAX_REMEMBERED_PASSWORDS {
            verified.clear();
        }
        verified.insert(key, password);
        Ok(())
    }
}

/// User and password of basic authentication. An empty user counts as anonymous: some clients send it without a login.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(rest.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    (!user.is_empty()).then(|| (user.to_owned(), password.to_owned()))
}

/// Reads an htpasswd file: `USER:HASH` on each line. Other hashes than bcrypt are skipped.
fn htpasswd(path: &Path) -> Result<HashMap<String, String>> {
    let shown = path.display();
    let size = std::fs::metadata(path).map_err(|e| Error::reading(&shown, e))?.len();
    if size > MAX_HTPASSWD_BYTES {
        return Err(Error::invalid(format!("{shown} has {size} bytes; the limit is {MAX_HTPASSWD_BYTES}")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| Error::reading(&shown, e))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut users = HashMap::new();
    for (user, hash) in lines.filter_map(|line| line.split_once(':')) {
        if ["$2a$", "$2b$", "$2y$"].iter().any(|start| hash.starts_with(start)) {
            users.insert(user.to_owned(), hash.to_owned());
        }
    }
    match users.is_empty() {
        true => Err(Error::invalid(format!("{shown} has no user with a bcrypt hash; make one with htpasswd -B"))),
        false => Ok(users),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authorization(text: &str) -> HeaderMap {
        let value = base64::engine::general_purpose::STANDARD.encode(text);
        [(header::AUTHORIZATION, format!("Basic {value}").parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn reading_and_writing_are_apart() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let line = |user: &str| format!("{user}:{}\n", bcrypt::hash(format!("{user}'s"), 4).unwrap());
        std::fs::write(file.path(), line("ann") + &line("bob") + "carl:{SHA}abc\n").unwrap();
        let writers = ["ann".to_owned()];
        let rights = |reading| Rights::users(file.path(), Some(&writers), reading).unwrap();
        let (open, closed) = (rights(Reading::Anonymous), rights(Reading::Users));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let ask = |rights: &Rights, right, shown: &HeaderMap| {
            runtime.block_on(rights.check(right, shown)).map_err(|api_error| api_error.status.as_u16())
        };
        let (ann, bob, wrong) = (authorization("ann:ann's"), authorization("bob:bob's"), authorization("ann:bob's"));
        let nobody = HeaderMap::new();
        for _ in 0..2 {
            assert_eq!(ask(&open, Right::Write, &ann), Ok(Some("ann".to_owned())));
            assert_eq!(ask(&open, Right::Read, &bob), Ok(Some("bob".to_owned())));
            assert_eq!(ask(&open, Right::Write, &bob), Err(403));
            assert_eq!(ask(&open, Right::Read, &wrong), Err(401));
            assert_eq!(ask(&open, Right::Read, &nobody), Ok(None));
            assert_eq!(ask(&open, Right::Read, &authorization(":")), Ok(None));
            assert_eq!(ask(&open, Right::Write, &nobody), Err(401));
            assert_eq!(ask(&closed, Right::Read, &nobody), Err(401));
            assert_eq!(ask(&closed, Right::Read, &authorization("carl:abc")), Err(401));
        }
        assert!(Rights::users(file.path(), Some(&["dora".to_owned()]), Reading::Users).is_err());
    }
}
