//! Token authentication, for servers on which users push and anonymous clients pull. With basic authentication docker
//! either never sends a password or refuses to pull without one. With tokens, anonymous clients get one token and each
//! user gets another.

use hyper::header::{self, HeaderMap};
use rustls::crypto::ring::default_provider;
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The token of clients without a password; it permits only anonymous access.
const ANONYMOUS_TOKEN: &str = "anybody";
const TOKEN_LIFETIME: Duration = Duration::from_secs(300);
/// The maximum number of stored tokens; clients request removed ones again.
const MAX_TOKENS: usize = 10_000;

/// The issued tokens of users, with their expiry.
#[derive(Default)]
pub struct Tokens(Mutex<HashMap<String, (String, Instant)>>);

/// The holder of a token.
#[derive(Debug, PartialEq, Eq)]
pub enum Holder {
    Anonymous,
    User(String),
    /// The token has expired or was never issued.
    Invalid,
}

impl Tokens {
    /// The response of the token service for `user`, or for an anonymous client.
    pub fn issue(&self, user: Option<&str>) -> String {
        let token = user.map_or_else(|| ANONYMOUS_TOKEN.to_owned(), |user| self.create(user));
        json!({ "token": token, "access_token": token, "expires_in": TOKEN_LIFETIME.as_secs() }).to_string()
    }

    fn create(&self, user: &str) -> String {
        let mut bytes = [0; 32];
        // Without random bytes a token could be guessed; the empty token is not valid for any user.
        if default_provider().secure_random.fill(&mut bytes).is_err() {
            return String::new();
        }
        let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= MAX_TOKENS {
            tokens.retain(|_, (_, until)| *until > Instant::now());
        }
        if tokens.len() >= MAX_TOKENS {
            tokens.clear();
        }
        tokens.insert(token.clone(), (user.to_owned(), Instant::now() + TOKEN_LIFETIME));
        token
    }

    /// The holder of the bearer token in `headers`, if they have one.
    pub fn holder(&self, headers: &HeaderMap) -> Option<Holder> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some(match (token.trim(), tokens.get(token.trim())) {
            (ANONYMOUS_TOKEN, _) => Holder::Anonymous,
            (_, Some((user, until))) if *until > Instant::now() => Holder::User(user.clone()),
            _ => Holder::Invalid,
        })
    }
}

/// The `WWW-Authenticate` challenge with the URL of the token service. A reverse proxy's `X-Forwarded-Proto` overrides
/// `scheme`.
pub fn challenge(scheme: &str, headers: &HeaderMap) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = text("x-forwarded-proto").filter(|proto| matches!(*proto, "http" | "https")).unwrap_or(scheme);
    let plain = |host: &&str| host.bytes().all(|b| b.is_ascii_alphanumeric() || b".:-_[]".contains(&b));
    let host = text("host").filter(plain).unwrap_or("localhost");
    format!("Bearer realm=\"{scheme}://{host}/token\",service=\"imgmv\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_its_users_and_cannot_be_made_up() {
        let tokens = Tokens::default();
        let authorization = |token: &str| [(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap())];
        let holder = |token: &str| tokens.holder(&authorization(token).into_iter().collect());
        let issued: serde_json::Value = serde_json::from_str(&tokens.issue(Some("ann"))).unwrap();
        assert_eq!(holder(issued["token"].as_str().unwrap()), Some(Holder::User("ann".to_owned())));
        assert_eq!(holder(ANONYMOUS_TOKEN), Some(Holder::Anonymous));
        assert_eq!(holder(""), Some(Holder::Invalid));
        assert_eq!(holder("ann"), Some(Holder::Invalid));
        assert_eq!(tokens.holder(&HeaderMap::new()), None);
    }
}
