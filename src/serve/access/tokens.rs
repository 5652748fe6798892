//! Tokens (the registry's token authentication), where users push and anybody pulls: with basic authentication docker
//! either never shows a password or refuses to pull without one; a token anybody can have, and a user's is another.

use hyper::header::{self, HeaderMap};
use rustls::crypto::ring::default_provider;
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Who has no password gets this one; it opens what is open anyway.
const ANYBODYS: &str = "anybody";
const LIFE: Duration = Duration::from_secs(300);
/// Tokens that are known at once. More are asked for again.
const KNOWN: usize = 10_000;

/// The tokens that were given out and are still good.
#[derive(Default)]
pub struct Tokens(Mutex<HashMap<String, (String, Instant)>>);

/// Whose token it is.
#[derive(Debug, PartialEq, Eq)]
pub enum Holder {
    Anybody,
    User(String),
    /// It is over, or never was one.
    Nobody,
}

impl Tokens {
    /// The answer of the token service to `user`, or to anybody.
    pub fn give(&self, user: Option<&str>) -> String {
        let token = user.map_or_else(|| ANYBODYS.to_owned(), |user| self.make(user));
        json!({ "token": token, "access_token": token, "expires_in": LIFE.as_secs() }).to_string()
    }

    fn make(&self, user: &str) -> String {
        let mut bytes = [0; 32];
        // Without randomness there is no token that nobody guesses: this one is then nobody's.
        if default_provider().secure_random.fill(&mut bytes).is_err() {
            return String::new();
        }
        let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN {
            known.retain(|_, (_, until)| *until > Instant::now());
        }
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(token.clone(), (user.to_owned(), Instant::now() + LIFE));
        token
    }

    /// Whose token `headers` show; nothing where they show none.
    pub fn holder(&self, headers: &HeaderMap) -> Option<Holder> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some(match (token.trim(), known.get(token.trim())) {
            (ANYBODYS, _) => Holder::Anybody,
            (_, Some((user, until))) if *until > Instant::now() => Holder::User(user.clone()),
            _ => Holder::Nobody,
        })
    }
}

/// Where `headers` came to, and where tokens are to be had: `scheme` is how this server is reached, unless something in
/// front of it says otherwise.
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
        let shown = |token: &str| [(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap())];
        let holder = |token: &str| tokens.holder(&shown(token).into_iter().collect());
        let given: serde_json::Value = serde_json::from_str(&tokens.give(Some("ann"))).unwrap();
        assert_eq!(holder(given["token"].as_str().unwrap()), Some(Holder::User("ann".to_owned())));
        assert_eq!(holder(ANYBODYS), Some(Holder::Anybody));
        assert_eq!(holder(""), Some(Holder::Nobody));
        assert_eq!(holder("ann"), Some(Holder::Nobody));
        assert_eq!(tokens.holder(&HeaderMap::new()), None);
    }
}
