//! How one registry wants to be asked: what its challenges said, the tokens in hand, and the `Authorization` that a
//! request carries. Learned from the first 401 and remembered, so that later requests carry it at once.

use super::challenge;
use super::challenge::Challenge;
use super::credentials;
use super::credentials::FoundCredentials;
use super::secret::Login;
use super::token;
use super::token::{Scope, Token};
use crate::error::{Error, Result};
use crate::progress::Watch;
use crate::transport::registry::http::Response;
use crate::transport::registry::options::{Access, Secret};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::collections::HashMap;
use url::Url;

/// Where a server says how it wants to be asked.
const CHALLENGE: &str = "www-authenticate";
/// In characters, of a challenge that an error shows.
const MAX_QUOTED_CHARS: usize = 80;

/// In bytes; a longer scope in a challenge is not asked for.
const MAX_SCOPE_BYTES: usize = 1024;

/// Repositories of which something is remembered: a server asks for whatever its clients name.
const MAX_REMEMBERED: usize = 1024;

/// What a registry asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthScheme {
    Basic,
    Bearer { realm: Url, service: Option<String> },
}

/// What is known of one registry. Guarded by one lock, held while a token is fetched: whoever needs the same token
/// waits for it instead of fetching another.
#[derive(Default)]
pub struct AuthState {
    pub scheme: Option<AuthScheme>,
    tokens: HashMap<Scope, Token>,
    /// Scopes that challenges named besides ours.
    extra_scopes: HashMap<Scope, String>,
    found: HashMap<String, FoundCredentials>,
    /// Why credentials that were found were not sent.
    pub withheld: Option<String>,
}

impl AuthState {
    /// The credentials for `repository`; files are read and helpers asked once.
    pub fn credentials(
        &mut self,
        access: &Access,
        host: &str,
        repository: &str,
        watch: &dyn Watch,
    ) -> FoundCredentials {
        if self.found.len() >= MAX_REMEMBERED && !self.found.contains_key(repository) {
            self.found.clear();
        }
        let search = || credentials::find(access, host, repository, watch);
        self.found.entry(repository.to_owned()).or_insert_with(search).clone()
    }

    /// What was found for `repository`, if it was looked for.
    pub fn looked_up(&self, repository: &str) -> Option<&FoundCredentials> {
        self.found.get(repository)
    }

    /// The token in hand for a request for `scope`, which counts as shown.
    pub fn token(&mut self, scope: &Scope) -> Option<&Token> {
        let token = self.tokens.get_mut(scope).filter(|token| token.is_fresh())?;
        token.uses += 1;
        Some(token)
    }

    /// Whether other requests may have shown `shown` too. A token that one request alone has shown, and that was
    /// refused, is never any good.
    pub fn is_shared(&self, scope: &Scope, shown: Option<&str>) -> bool {
        let own = self.tokens.get(scope).filter(|token| Some(&*bearer_header(&token.secret)) == shown);
        own.is_none_or(|token| token.uses > 1)
    }

    /// Keeps `token`, which the request for `scope` that fetched it shows first.
    pub fn store_token(&mut self, scope: &Scope, mut token: Token) {
        token.uses = 1;
        if self.tokens.len() >= MAX_REMEMBERED {
            self.tokens.retain(|_, token| token.is_fresh());
        }
        if self.tokens.len() >= MAX_REMEMBERED {
            self.tokens.clear();
        }
        self.tokens.insert(scope.clone(), token);
    }

    /// The scopes to ask for.
    pub fn scopes(&self, scope: &Scope) -> Vec<String> {
        let mut scopes = scope.params();
        scopes.extend(self.extra_scopes.get(scope).filter(|text| !scopes.contains(text)).cloned());
        scopes
    }

    /// Learns from a 401 to a request for `scope` that carried `shown`. Another thread may have learned the same
    /// meanwhile: its token stays.
    pub fn learn(
        &mut self,
        response: &Response,
        scope: &Scope,
        shown: Option<&str>,
        registry: &Url,
        access: &Access,
    ) -> Result<()> {
        if self.tokens.get(scope).is_some_and(|token| Some(&*bearer_header(&token.secret)) == shown) {
            self.tokens.remove(scope);
        }
        let challenges: Vec<Challenge> = response.headers(CHALLENGE).flat_map(challenge::parse).collect();
        let bearer = challenges.iter().find_map(|challenge| Some((challenge, challenge.realm()?)));
        if let Some((bearer, realm)) = bearer {
            let realm = token::parse_realm(realm, registry, access)?;
            self.scheme = Some(AuthScheme::Bearer { realm, service: bearer.parameter("service").map(str::to_owned) });
            if let Some(extra_scopes) =
                bearer.parameter("scope").filter(|text| !text.is_empty() && text.len() <= MAX_SCOPE_BYTES)
            {
                if self.extra_scopes.len() >= MAX_REMEMBERED {
                    self.extra_scopes.clear();
                }
                self.extra_scopes.insert(scope.clone(), extra_scopes.to_owned());
            }
        } else if challenges.iter().any(|c| c.scheme == "basic") {
            self.scheme = Some(AuthScheme::Basic);
        } else if self.scheme.is_none() && response.has(CHALLENGE) {
            return Err(unsupported_challenge(response, &challenges));
        }
        Ok(())
    }
}

/// The error for a challenge that names no way in that is known here.
fn unsupported_challenge(response: &Response, challenges: &[Challenge]) -> Error {
    let schemes: Vec<&str> = challenges.iter().map(|challenge| &*challenge.scheme).collect();
    if !schemes.is_empty() && !schemes.contains(&"bearer") {
        let schemes: String = schemes.join(", ").chars().take(MAX_QUOTED_CHARS).collect();
        return Error::denied(format!("the registry asks for {schemes}; imgmv knows Basic and Bearer"));
    }
    let text = response.header(CHALLENGE).unwrap_or("bytes that are not text");
    let begin: String = text.chars().take(MAX_QUOTED_CHARS).collect();
    Error::denied(format!(
        "the header WWW-Authenticate of its 401 answer cannot be read ({begin:?}, {} bytes in all); ask the owner of the \
         registry, or of the proxy before it, to correct it",
        text.len()
    ))
}

pub fn bearer_header(token: &Secret) -> String {
    format!("Bearer {}", token.reveal())
}

pub fn basic_header(user: &str, password: &Secret) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{}", password.reveal())))
}

/// `text` with every secret in it (and its Basic form) struck out: a far side may quote what it was sent.
pub fn scrub(text: &str, login: Option<&Login>) -> String {
    let secrets = match login {
        Some(Login::Password { user, password }) => {
            vec![password.reveal().to_owned(), STANDARD.encode(format!("{user}:{}", password.reveal()))]
        }
        Some(Login::Identity(secret) | Login::Token(secret)) => vec![secret.reveal().to_owned()],
        None => Vec::new(),
    };
    // A secret of one or two characters would blot out the text and is no secret.
    secrets.iter().filter(|secret| secret.len() > 2).fold(text.to_owned(), |text, secret| text.replace(secret, "…"))
}
