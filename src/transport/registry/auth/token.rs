//! Tokens (distribution's token specification: "Token Authentication", "Oauth2 Token Authentication"): their scopes,
//! their maximum age, and the token services that receive credentials.
//!
//! A registry names its token service (the *realm*), and a forged response could name an attacker's. A realm receives
//! the registry's credentials only if it is on the registry's own host name, is docker's pair (docker.io and
//! auth.docker.io), is under the same registrable domain (registry.gitlab.com and gitlab.com), or is in
//! `Access::token_hosts`. Any other realm is asked anonymously, with a warning.

use crate::error::{Error, Result};
use crate::transport::registry::http::proxy::is_loopback;
use crate::transport::registry::options::{Access, Insecure, Secret};
use serde::Deserialize;
use std::time::{Duration, Instant};
use url::Url;

/// The token specification's default.
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(60);
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// A token is renewed this long before it expires, or in the last quarter of a short maximum age.
const RENEWAL_MARGIN: Duration = Duration::from_secs(10);
/// A longer token does not fit into a header.
const MAX_TOKEN_BYTES: usize = 32 << 10;

/// The permission that a request needs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Only to authenticate, for `login`.
    Login,
    Pull(String),
    Push(String),
    Delete(String),
    /// To mount blobs of another repository of the same registry.
    Mount {
        into: String,
        from: String,
    },
}

impl Scope {
    /// Returns the `scope` parameters for a token service, one for each repository.
    pub fn params(&self) -> Vec<String> {
        match self {
            Scope::Login => Vec::new(),
            Scope::Pull(repository) => vec![format!("repository:{repository}:pull")],
            Scope::Push(repository) => vec![format!("repository:{repository}:pull,push")],
            Scope::Delete(repository) => vec![format!("repository:{repository}:pull,delete")],
            Scope::Mount { into, from } => {
                vec![format!("repository:{into}:pull,push"), format!("repository:{from}:pull")]
            }
        }
    }

    /// Returns the repository whose credentials are used.
    pub fn repository(&self) -> &str {
        match self {
            Scope::Login => "",
            Scope::Pull(repository)
            | Scope::Push(repository)
            | Scope::Delete(repository)
            | Scope::Mount { into: repository, .. } => repository,
        }
    }

    /// Returns the verb for messages.
    pub fn verb(&self) -> &'static str {
        match self {
            Scope::Login => "log in to",
            Scope::Pull(_) => "read",
            Scope::Push(_) | Scope::Mount { .. } => "push to",
            Scope::Delete(_) => "delete from",
        }
    }
}

/// The token that a request sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenUse {
    /// The token of all requests with the same scope.
    Shared,
    /// A new token that no other request can use up.
    Own,
}

/// A token for a registry.
#[derive(Debug, Clone)]
pub struct Token {
    pub secret: Secret,
    /// The number of requests that have sent it.
    pub uses: u32,
    until: Instant,
}

impl Token {
    /// Creates a token that does not expire during the run.
    pub fn permanent(secret: Secret) -> Token {
        Token { secret, uses: 0, until: Instant::now() + MAX_AGE }
    }

    pub fn is_fresh(&self) -> bool {
        Instant::now() < self.until
    }

    /// Parses a token service's response; `requested` is the time of the request.
    pub fn parse(bytes: &[u8], from: &str, requested: Instant) -> Result<Token> {
        #[derive(Deserialize)]
        struct TokenResponse {
            token: Option<String>,
            access_token: Option<String>,
            expires_in: Option<f64>,
        }
        let wrong =
            |why: &str| Error::invalid(format!("the token service {from} did not return a usable token: {why}"));
        // The parser's message could quote the token.
        let body: TokenResponse =
            serde_json::from_slice(bytes).map_err(|_| wrong("its response is not the expected JSON"))?;
        let text = [body.token, body.access_token].into_iter().flatten().find(|text| !text.is_empty());
        let text = text.ok_or_else(|| wrong("its response does not contain one"))?;
        if text.len() > MAX_TOKEN_BYTES || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(wrong("the token does not fit into a header"));
        }
        let seconds = body.expires_in.filter(|seconds| seconds.is_finite() && *seconds > 0.0);
        let bounded = |seconds: f64| Duration::from_secs_f64(seconds.min(MAX_AGE.as_secs_f64()));
        let max_age = seconds.map_or(DEFAULT_MAX_AGE, bounded);
        Ok(Token { secret: Secret::new(text), uses: 0, until: requested + max_age - RENEWAL_MARGIN.min(max_age / 4) })
    }
}

/// Parses a realm: an https URL without credentials. Plain HTTP is allowed only if `registry` uses it too, and then
/// only on the registry's host, on loopback, or if the user allowed it.
pub fn parse_realm(text: &str, registry: &Url, access: &Access) -> Result<Url> {
    let host = registry.host_str().unwrap_or_default();
    let wrong = |why: &str| Error::denied(format!("{host} names a token service that imgmv does not use: {why}"));
    let url = registry.join(text).map_err(|_| wrong("it is not a URL"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("its URL contains credentials"));
    }
    let realm_host = url.host_str().unwrap_or_default();
    match (registry.scheme(), url.scheme()) {
        (_, "https") => Ok(url),
        ("http", "http") if realm_host == host || is_loopback(realm_host) || access.insecure == Insecure::ByUser => {
            Ok(url)
        }
        ("http", "http") => Err(wrong("it is plain HTTP on another host")),
        (_, "http") => Err(wrong("it does not use TLS but the registry does; the network could read a password")),
        _ => Err(wrong("it is neither http nor https")),
    }
}

/// Whether `realm` may receive the credentials for `registry`, by the rule at the head of this file.
pub fn may_see_credentials(realm: &Url, registry: &Url, allowed: &[String]) -> bool {
    let (realm_host, own) = (realm.host_str().unwrap_or_default(), registry.host_str().unwrap_or_default());
    let plain_elsewhere = realm.scheme() == "http" && !is_loopback(realm_host) && realm_host != own;
    let pair =
        own == crate::transport::registry::HUB_API && realm_host == "auth.docker.io" && realm.scheme() == "https";
    let named = || {
        let with_port = realm.port().map(|port| format!("{realm_host}:{port}"));
        allowed.iter().any(|host| host == realm_host || Some(host) == with_port.as_ref())
    };
    !plain_elsewhere && (realm_host == own || pair || same_domain(realm_host, own) || named())
}

/// Whether two host names are under one registrable domain. Without the list of public suffixes the result is
/// conservative: two labels must match, or three if the second last is as short as under a country code (`co.uk`).
/// Hosts under the names of large hosting services never match, since their owners differ.
fn same_domain(a: &str, b: &str) -> bool {
    const SHARED: [&str; 22] = [
        "amazonaws.com",
        "aliyuncs.com",
        "appspot.com",
        "azure.com",
        "azurecr.io",
        "azurewebsites.net",
        "cloudapp.net",
        "cloudfront.net",
        "duckdns.org",
        "fly.dev",
        "github.io",
        "gitlab.io",
        "herokuapp.com",
        "netlify.app",
        "ngrok.io",
        "nip.io",
        "pages.dev",
        "run.app",
        "sslip.io",
        "vercel.app",
        "windows.net",
        "workers.dev",
    ];
    let labels = |host: &str| -> Vec<String> {
        let is_ip = host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok();
        if is_ip { Vec::new() } else { host.to_ascii_lowercase().split('.').rev().map(str::to_owned).collect() }
    };
    let (a, b) = (labels(a), labels(b));
    let common = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let [top, second, ..] = &a[..] else {
        return false;
    };
    let under_country = top.len() == 2 && (second.len() <= 3 || ["gouv", "govt"].contains(&second.as_str()));
    let hosting = SHARED.contains(&format!("{second}.{top}").as_str());
    match (under_country, hosting) {
        (_, true) => false,
        (true, _) => common >= 3,
        (false, _) => common >= 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn a_realm_elsewhere_never_sees_the_credentials() {
        let cases = [
            ("https://registry-1.docker.io", "https://auth.docker.io/token", true),
            ("https://evil.lan", "https://auth.docker.io/token", false),
            ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth", true),
            ("https://registry.example.com:5050", "https://gitlab.example.com/jwt/auth", true),
            ("https://example.com:5050", "https://example.com/jwt/auth", true),
            ("https://ghcr.io", "https://ghcr.io/token", true),
            ("https://registry.example.com", "https://evil.com/token", false),
            ("https://registry.example.com", "https://example.com.evil.com/token", false),
            ("https://registry.example.co.uk", "https://evil.co.uk/token", false),
            ("https://registry.example.co.uk", "https://auth.example.co.uk/token", true),
            ("https://a.azurecr.io", "https://b.azurecr.io/token", false),
            ("https://a.azurecr.io", "https://a.azurecr.io/token", true),
            ("https://10.0.0.1", "https://10.0.0.2/token", false),
            ("https://[fd00::1]:5000", "https://[fd00::2]/token", false),
            ("https://registry", "https://auth/token", false),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5001/token", true),
            ("http://127.0.0.1:5000", "http://localhost:5001/token", false),
            ("http://127.0.0.1:5000", "http://127.0.0.2:5000/token", false),
            ("http://registry.lan:5000", "http://auth.lan/token", false),
            ("http://registry.example.com", "http://auth.example.com/token", false),
        ];
        for (registry, realm, expected) in cases {
            assert_eq!(may_see_credentials(&url(realm), &url(registry), &[]), expected, "{registry} names {realm}");
        }
        let named = ["api.other.com".to_owned()];
        assert!(may_see_credentials(&url("https://api.other.com/t"), &url("https://r.lan"), &named));
    }

    #[test]
    fn a_realm_without_tls_is_not_asked_for_a_registry_that_has_it() {
        for (text, registry, fine) in [
            ("https://auth.lan/token?x=y", "https://r.lan", true),
            ("/token", "https://r.lan", true),
            ("http://r.lan/token", "https://r.lan", false),
            ("http://r.lan/token", "http://r.lan", true),
            ("http://auth.lan/token", "http://r.lan", false),
            ("http://127.0.0.1:1/token", "http://127.0.0.1:2", true),
            ("https://me:pw@r.lan/token", "https://r.lan", false),
            ("file:///etc/passwd", "https://r.lan", false),
            ("https://[", "https://r.lan", false),
        ] {
            assert_eq!(parse_realm(text, &url(registry), &Access::default()).is_ok(), fine, "{text}");
        }
    }

    #[test]
    fn a_tokens_age_is_bounded_and_its_text_is_fit_for_a_header() {
        let now = Instant::now();
        let parse = |text: &str| Token::parse(text.as_bytes(), "auth.lan", now);
        let until = |text: &str| parse(text).unwrap().until - now;
        assert_eq!(until(r#"{"token":"t"}"#), DEFAULT_MAX_AGE - RENEWAL_MARGIN);
        assert_eq!(until(r#"{"access_token":"t","expires_in":4}"#), Duration::from_secs(3));
        assert_eq!(until(r#"{"token":"t","expires_in":1e300}"#), MAX_AGE - RENEWAL_MARGIN);
        assert_eq!(until(r#"{"token":"t","expires_in":300}"#), Duration::from_secs(290));
        for wrong in [r#"{"token":"a\r\nb"}"#, r#"{"token":""}"#, "{}", "secret", r#"{"token":5}"#] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
