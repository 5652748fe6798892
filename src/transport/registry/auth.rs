//! How one registry wants to be asked: what its challenges said, the tokens in hand, and the `Authorization` that a
//! request carries. Learned from the first 401 and remembered, so that later requests carry it at once.

use super::access::{Access, Secret};
use super::auth_file::Login;
use super::challenge::{self, Challenge};
use super::credentials::{self, Found};
use super::http::Answer;
use super::token::{self, Scope, Token};
use crate::error::Result;
use crate::progress::Watch;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::collections::HashMap;
use url::Url;

/// In bytes; a longer scope in a challenge is not asked for.
const MAX_SCOPE: usize = 1024;

/// Repositories of which something is remembered: a server asks for whatever its clients name.
const REMEMBERED: usize = 1024;

/// What a registry asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    Basic,
    Bearer { realm: Url, service: Option<String> },
}

/// What is known of one registry. Guarded by one lock, held while a token is fetched: whoever needs the same token
/// waits for it instead of fetching another.
#[derive(Default)]
pub struct Known {
    pub way: Option<Way>,
    tokens: HashMap<Scope, Token>,
    /// Scopes that challenges named besides ours.
    further: HashMap<Scope, String>,
    found: HashMap<String, Found>,
}

impl Known {
    /// The credentials for `repository`; files are read and helpers asked once.
    pub fn credentials(&mut self, access: &Access, host: &str, repository: &str, watch: &dyn Watch) -> Found {
        if self.found.len() >= REMEMBERED && !self.found.contains_key(repository) {
            self.found.clear();
        }
        let search = || credentials::find(access, host, repository, watch);
        self.found.entry(repository.to_owned()).or_insert_with(search).clone()
    }

    /// What was found for `repository`, if it was looked for.
    pub fn shown(&self, repository: &str) -> Option<&Found> {
        self.found.get(repository)
    }

    pub fn token(&self, scope: &Scope) -> Option<&Token> {
        self.tokens.get(scope).filter(|token| token.is_fresh())
    }

    pub fn keep(&mut self, scope: &Scope, token: Token) {
        if self.tokens.len() >= REMEMBERED {
            self.tokens.retain(|_, token| token.is_fresh());
        }
        if self.tokens.len() >= REMEMBERED {
            self.tokens.clear();
        }
        self.tokens.insert(scope.clone(), token);
    }

    /// The scopes to ask for.
    pub fn scopes(&self, scope: &Scope) -> Vec<String> {
        let mut words = scope.words();
        words.extend(self.further.get(scope).filter(|word| !words.contains(word)).cloned());
        words
    }

    /// Learns from a 401 to a request for `scope` that carried `shown`. Another thread may have learned the same
    /// meanwhile: its token stays.
    pub fn learn(
        &mut self,
        answer: &Answer,
        scope: &Scope,
        shown: Option<&str>,
        registry: &Url,
        access: &Access,
    ) -> Result<()> {
        let challenges: Vec<Challenge> = answer.headers("www-authenticate").flat_map(challenge::parse).collect();
        let bearer = challenges.iter().find(|c| c.scheme == "bearer" && c.parameter("realm").is_some());
        if let Some(bearer) = bearer {
            let realm = token::realm(bearer.parameter("realm").unwrap_or_default(), registry, access)?;
            self.way = Some(Way::Bearer { realm, service: bearer.parameter("service").map(str::to_owned) });
            if let Some(further) = bearer.parameter("scope").filter(|text| !text.is_empty() && text.len() <= MAX_SCOPE)
            {
                if self.further.len() >= REMEMBERED {
                    self.further.clear();
                }
                self.further.insert(scope.clone(), further.to_owned());
            }
            if self.tokens.get(scope).is_some_and(|token| Some(&*bearer_header(&token.secret)) == shown) {
                self.tokens.remove(scope);
            }
        } else if challenges.iter().any(|c| c.scheme == "basic") {
            self.way = Some(Way::Basic);
        }
        Ok(())
    }
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
