//! The authorization that one registry requires: its scheme, tokens and credentials. The first 401 sets it; later
//! requests use it immediately.

use super::challenge;
use super::challenge::Challenge;
use super::credentials;
use super::credentials::FoundCredentials;
use super::secret::LoginSecret;
use super::token;
use super::token::{Scope, Token};
use crate::error::{Error, Result};
use crate::progress::Watch;
use crate::transport::registry::http::Response;
use crate::transport::registry::options::{Access, Secret};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use url::Url;

/// The header with a server's challenges.
const CHALLENGE_HEADER: &str = "www-authenticate";
/// The limit on a challenge that an error quotes.
const MAX_QUOTED_CHARS: usize = 80;

/// The limit on a scope in a challenge; a longer one is ignored.
const MAX_SCOPE_BYTES: usize = 1024;

/// The limit on remembered repositories. A mirror's clients may name any number.
const MAX_REMEMBERED_REPOSITORIES: usize = 1024;

/// The authentication scheme of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthScheme {
    Basic,
    Bearer { realm: Url, service: Option<String> },
}

/// The authorization state of one registry.
#[derive(Default)]
pub struct AuthState {
    pub scheme: Option<AuthScheme>,
    tokens: HashMap<Scope, Token>,
    /// The scopes whose token is being fetched.
    fetches: HashMap<Scope, Weak<Mutex<()>>>,
    /// Additional scopes that challenges named.
    extra_scopes: HashMap<Scope, String>,
    found: HashMap<String, FoundCredentials>,
    /// The reason for not sending credentials that exist.
    pub withheld: Option<String>,
}

impl AuthState {
    /// Returns the credentials for `repository`; reads files and runs helpers only once.
    pub fn credentials(
        &mut self,
        access: &Access,
        host: &str,
        repository: &str,
        watch: &dyn Watch,
    ) -> FoundCredentials {
        if self.found.len() >= MAX_REMEMBERED_REPOSITORIES && !self.found.contains_key(repository) {
            self.found.clear();
        }
        let search = || credentials::find(access, host, repository, watch);
        self.found.entry(repository.to_owned()).or_insert_with(search).clone()
    }

    /// Returns the result of an earlier search for `repository`.
    pub fn looked_up(&self, repository: &str) -> Option<&FoundCredentials> {
        self.found.get(repository)
    }

    /// Returns the shared token for `scope`, and counts its use.
    pub fn token(&mut self, scope: &Scope) -> Option<&Token> {
        let token = self.tokens.get_mut(scope).filter(|token| token.is_fresh())?;
        token.uses += 1;
        Some(token)
    }

    /// Whether other requests may have used `sent` too. A token that was refused at its only use is invalid.
    pub fn is_shared(&self, scope: &Scope, sent: Option<&str>) -> bool {
        let own = self.tokens.get(scope).filter(|token| Some(&*bearer_header(&token.secret)) == sent);
        own.is_none_or(|token| token.uses > 1)
    }

    /// Stores `token`. The request for `scope` that fetched it is its first use.
    pub fn store_token(&mut self, scope: &Scope, mut token: Token) {
        token.uses = 1;
        if self.tokens.len() >= MAX_REMEMBERED_REPOSITORIES {
            self.tokens.retain(|_, token| token.is_fresh());
        }
        if self.tokens.len() >= MAX_REMEMBERED_REPOSITORIES {
            self.tokens.clear();
        }
        self.tokens.insert(scope.clone(), token);
    }

    /// Returns the lock for fetching the token of `scope`. Requests for the same token wait for it instead of fetching
    /// another; tokens of other scopes are fetched at the same time.
    pub fn fetch_lock(&mut self, scope: &Scope) -> Arc<Mutex<()>> {
        if let Some(lock) = self.fetches.get(scope).and_then(Weak::upgrade) {
            return lock;
        }
        self.fetches.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::default();
        self.fetches.insert(scope.clone(), Arc::downgrade(&lock));
        lock
    }

    /// Returns the scopes to request.
    pub fn scopes(&self, scope: &Scope) -> Vec<String> {
        let mut scopes = scope.params();
        scopes.extend(self.extra_scopes.get(scope).filter(|text| !scopes.contains(text)).cloned());
        scopes
    }

    /// Learns from a 401 to a request for `scope` with the authorization `sent`. Keeps a newer token that another
    /// thread has fetched since.
    pub fn learn(
        &mut self,
        response: &Response,
        scope: &Scope,
        sent: Option<&str>,
        registry: &Url,
        access: &Access,
    ) -> Result<()> {
        if self.tokens.get(scope).is_some_and(|token| Some(&*bearer_header(&token.secret)) == sent) {
            self.tokens.remove(scope);
        }
        let challenges: Vec<Challenge> = response.headers(CHALLENGE_HEADER).flat_map(challenge::parse).collect();
        let bearer = challenges.iter().find_map(|challenge| Some((challenge, challenge.realm()?)));
        if let Some((bearer, realm)) = bearer {
            let realm = token::parse_realm(realm, registry, access)?;
            self.scheme = Some(AuthScheme::Bearer { realm, service: bearer.parameter("service").map(str::to_owned) });
            if let Some(extra_scopes) =
                bearer.parameter("scope").filter(|text| !text.is_empty() && text.len() <= MAX_SCOPE_BYTES)
            {
                if self.extra_scopes.len() >= MAX_REMEMBERED_REPOSITORIES {
                    self.extra_scopes.clear();
                }
                self.extra_scopes.insert(scope.clone(), extra_scopes.to_owned());
            }
        } else if challenges.iter().any(|c| c.scheme == "basic") {
            self.scheme = Some(AuthScheme::Basic);
        } else if self.scheme.is_none() && response.has(CHALLENGE_HEADER) {
            return Err(unsupported_challenge(response, &challenges));
        }
        Ok(())
    }
}

/// The error for a challenge without a supported scheme.
fn unsupported_challenge(response: &Response, challenges: &[Challenge]) -> Error {
    let schemes: Vec<&str> = challenges.iter().map(|challenge| &*challenge.scheme).collect();
    if !schemes.is_empty() && !schemes.contains(&"bearer") {
        let schemes: String = schemes.join(", ").chars().take(MAX_QUOTED_CHARS).collect();
        return Error::denied(format!("the registry requires {schemes}; imgmv supports Basic and Bearer"));
    }
    let text = response.header(CHALLENGE_HEADER).unwrap_or("bytes that are not text");
    let start: String = text.chars().take(MAX_QUOTED_CHARS).collect();
    Error::denied(format!(
        "the header WWW-Authenticate of the 401 response is invalid ({start:?}, {} bytes in total); ask the owner of \
         the registry, or of the proxy in front of it, to correct it",
        text.len()
    ))
}

pub fn bearer_header(token: &Secret) -> String {
    format!("Bearer {}", token.reveal())
}

pub fn basic_header(user: &str, password: &Secret) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{}", password.reveal())))
}

/// Replaces every secret in `text`, also in its Basic form. A server may quote the credentials that it was sent.
pub fn scrub(text: &str, login: Option<&LoginSecret>) -> String {
    let secrets = match login {
        Some(LoginSecret::Password { user, password }) => {
            vec![password.reveal().to_owned(), STANDARD.encode(format!("{user}:{}", password.reveal()))]
        }
        Some(LoginSecret::Identity(secret) | LoginSecret::Token(secret)) => vec![secret.reveal().to_owned()],
        None => Vec::new(),
    };
    // A secret of one or two characters is not replaced: it would erase most of the text.
    secrets.iter().filter(|secret| secret.len() > 2).fold(text.to_owned(), |text, secret| text.replace(secret, "…"))
}
