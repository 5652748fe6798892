//! Authorization of requests: responds to a registry's challenge with credentials or a token, and replaces a refused token.

use super::credentials::FoundCredentials;
use super::secret::LoginSecret;
use super::state;
use super::state::{AuthScheme, AuthState};
use super::token;
use super::token::{Scope, Token, TokenUse};
use crate::error::{Error, Result};
use crate::transport::registry::http::client::RegistryClient;
use crate::transport::registry::http::error_body;
use crate::transport::registry::http::error_body::MAX_ERROR_BODY_BYTES;
use crate::transport::registry::http::proxy::is_loopback;
use crate::transport::registry::http::web_page;
use crate::transport::registry::http::{Call, Payload, Response};
use crate::transport::registry::options::Secret;
use std::sync::{MutexGuard, PoisonError};
use std::time::Instant;
use ureq::http::{Method, header};
use url::Url;

const CLIENT_ID: &str = "imgmv";
/// docker's user name for identity tokens.
const TOKEN_USER: &str = "<token>";

/// A request to a token service.
struct TokenRequest {
    realm: Url,
    service: Option<String>,
    scopes: Vec<String>,
}

impl RegistryClient {
    /// Sends `call` with authorization for `scope` and retries while that may help. Returns the final response, of any
    /// status. Messages name `what`.
    pub fn send(&self, call: &Call, mut payload: Payload<'_>, scope: &Scope, what: &str) -> Result<Response> {
        let home = self.api()?.origin();
        let (mut token, mut refusals) = (call.token, 0);
        let mut refused: Option<(Response, Option<String>)> = None;
        loop {
            let authorization = self.authorization(scope, token)?;
            if let Some((response, sent)) = refused.take() {
                if sent == authorization {
                    return Ok(response);
                }
                response.drain();
            }
            let sent = authorization.as_deref().map(|value| (&home, value));
            let response = self.send_with_retries(what, call, &mut payload, sent)?;
            if response.status != 401 || response.url.origin() != home {
                return Ok(response);
            }
            let may_retry = self.learn(&response, scope, authorization.as_deref(), token)?;
            if !may_retry || matches!(payload, Payload::Stream { .. }) {
                return Ok(response);
            }
            // Parallel requests may use up every new shared token. After two refusals, the request fetches its own.
            refusals += u32::from(authorization.is_some());
            if refusals > 1 {
                token = TokenUse::Own;
            }
            refused = Some((response, authorization));
        }
    }

    /// Learns from a 401 to a request with the authorization `sent`. Returns whether another token may be accepted.
    fn learn(&self, response: &Response, scope: &Scope, sent: Option<&str>, token: TokenUse) -> Result<bool> {
        let mut auth = self.auth_state();
        let may_retry = sent.is_none() || token == TokenUse::Shared && auth.is_shared(scope, sent);
        let learned = auth.learn(response, scope, sent, self.api()?, &self.access);
        drop(auth);
        learned.map(|()| may_retry).map_err(|error| self.with_host(error))
    }

    /// Returns the `Authorization` for a request with `scope`; `None` until the registry has asked for one.
    pub(crate) fn authorization(&self, scope: &Scope, token: TokenUse) -> Result<Option<String>> {
        let mut auth = self.auth_state();
        let Some(scheme) = auth.scheme.clone() else {
            return Ok(None);
        };
        let (realm, service) = match scheme {
            AuthScheme::Basic => {
                let found = auth.credentials(&self.access, &self.host, scope.repository(), &*self.watch);
                if self.blocked_by_plain_http(&found)? {
                    return Err(Error::denied(self.plain_http_note()));
                }
                return Ok(match found.login {
                    Some(LoginSecret::Password { user, password }) => Some(state::basic_header(&user, &password)),
                    Some(LoginSecret::Token(token)) => Some(state::bearer_header(&token)),
                    Some(LoginSecret::Identity(_)) | None => None,
                });
            }
            AuthScheme::Bearer { realm, service } => (realm, service),
        };
        if token == TokenUse::Own {
            return self.new_token(auth, &realm, service, scope).map(|own| Some(state::bearer_header(&own.secret)));
        }
        if let Some(token) = auth.token(scope) {
            return Ok(Some(state::bearer_header(&token.secret)));
        }
        let lock = auth.fetch_lock(scope);
        drop(auth);
        let _fetching = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut auth = self.auth_state();
        // Another request may have fetched it in the meantime.
        if let Some(token) = auth.token(scope) {
            return Ok(Some(state::bearer_header(&token.secret)));
        }
        let fetched = self.new_token(auth, &realm, service, scope)?;
        let header = state::bearer_header(&fetched.secret);
        self.auth_state().store_token(scope, fetched);
        Ok(Some(header))
    }

    /// Fetches a token for `scope`; `auth` is released before the request.
    fn new_token(
        &self,
        mut auth: MutexGuard<'_, AuthState>,
        realm: &Url,
        service: Option<String>,
        scope: &Scope,
    ) -> Result<Token> {
        let found = auth.credentials(&self.access, &self.host, scope.repository(), &*self.watch);
        let scopes = auth.scopes(scope);
        let had_login = found.login.is_some();
        let found = self.allowed_for(realm, found)?;
        if had_login && found.login.is_none() {
            auth.withheld.get_or_insert_with(|| found.note.clone());
        }
        drop(auth);
        match found.login.clone() {
            Some(LoginSecret::Token(token)) => Ok(Token::permanent(token)),
            _ => self.fetch_token(&TokenRequest { realm: realm.clone(), service, scopes }, scope, &found),
        }
    }

    /// Whether `found` would be sent over plain HTTP, which neither the user nor an earlier login allowed.
    fn blocked_by_plain_http(&self, found: &FoundCredentials) -> Result<bool> {
        let allowed = found.login.is_none() || found.over_http || self.access.sends_given_credentials_over_http();
        Ok(!allowed && self.is_over_plain_http()?)
    }

    /// Whether requests to the registry leave this host over plain HTTP.
    pub(crate) fn is_over_plain_http(&self) -> Result<bool> {
        let api = self.api()?;
        Ok(api.scheme() == "http" && !is_loopback(api.host_str().unwrap_or_default()))
    }

    fn plain_http_note(&self) -> String {
        format!(
            "{} does not use TLS, so its credentials were not sent; allow plain HTTP with --src-insecure or \
             --dst-insecure, or permanently with: imgmv login --insecure {}",
            self.host, self.host
        )
    }

    /// Returns `found` if `realm` may receive it (see `token.rs`), else no credentials, with a warning.
    fn allowed_for(&self, realm: &Url, found: FoundCredentials) -> Result<FoundCredentials> {
        if self.blocked_by_plain_http(&found)? {
            let note = self.plain_http_note();
            self.watch.say(&note);
            return Ok(FoundCredentials { note, ..FoundCredentials::default() });
        }
        let sends_secret = matches!(found.login, Some(LoginSecret::Password { .. } | LoginSecret::Identity(_)));
        if !sends_secret || token::may_see_credentials(realm, self.api()?, &self.access.token_hosts) {
            return Ok(found);
        }
        let realm_host = realm.host_str().unwrap_or_default();
        let note = format!(
            "{} names the token service {realm_host}, in another domain; the credentials were not sent to it (to \
             allow it, add --token-host {realm_host})",
            self.host
        );
        self.watch.say(&note);
        Ok(FoundCredentials { note, ..FoundCredentials::default() })
    }

    fn fetch_token(&self, request: &TokenRequest, scope: &Scope, found: &FoundCredentials) -> Result<Token> {
        let requested = Instant::now();
        let mut response = match &found.login {
            Some(LoginSecret::Identity(secret)) => self.exchange_identity_token(request, secret)?,
            Some(LoginSecret::Password { user, password }) => {
                self.get_token(request, Some(&state::basic_header(user, password)))?
            }
            Some(LoginSecret::Token(_)) | None => self.get_token(request, None)?,
        };
        let from = response.url.host_str().unwrap_or_default().to_owned();
        if response.status == 200 && web_page::is_page(&response) {
            return Err(web_page::error(&self.host, &response, "a token"));
        }
        if response.status == 200 {
            return Token::parse(&response.bytes(MAX_ERROR_BODY_BYTES, "a token")?, &from, requested);
        }
        let error = self.token_refused(scope, found, &from, response);
        Err(Error::new(error.kind(), state::scrub(&error.to_string(), found.login.as_ref())))
    }

    fn token_refused(&self, scope: &Scope, found: &FoundCredentials, from: &str, response: Response) -> Error {
        let (status, text) = (response.status, error_body::text(response));
        let reason = if text.is_empty() { String::new() } else { format!(" ({text})") };
        let note = if found.note.is_empty() { String::new() } else { format!(" ({})", found.note) };
        let (host, target) = (&self.host, format!("{}/{}", self.host, scope.repository()));
        let target = target.trim_end_matches('/');
        match (status, &found.login) {
            (400..=403, Some(_)) => Error::denied(format!(
                "{from} refused the credentials for {target}{note}{reason}; log in again with: imgmv login {host}"
            )),
            (400..=403, None) => Error::denied(format!(
                "{host} requires credentials to {} {target}, or the repository does not exist{reason}; log in with: \
                 imgmv login {host}{note}",
                scope.verb()
            )),
            _ => Error::network(format!("the token service {from} of {host} failed with status {status}{reason}")),
        }
    }

    /// Requests a token by GET, anonymously without `authorization`.
    fn get_token(&self, request: &TokenRequest, authorization: Option<&str>) -> Result<Response> {
        let mut url = request.realm.clone();
        url.query_pairs_mut()
            .extend_pairs(request.service.iter().map(|service| ("service", service)))
            .extend_pairs(request.scopes.iter().map(|scope| ("scope", scope)))
            .append_pair("client_id", CLIENT_ID);
        let call = Call::new(Method::GET, url).with(header::ACCEPT, "application/json");
        let origin = request.realm.origin();
        self.send_with_retries("a token", &call, &mut Payload::Nothing, authorization.map(|value| (&origin, value)))
    }

    /// Exchanges an identity token for a token by POST, or by GET if the service does not support POST.
    fn exchange_identity_token(&self, request: &TokenRequest, secret: &Secret) -> Result<Response> {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token").append_pair("client_id", CLIENT_ID);
        form.append_pair("service", request.service.as_deref().unwrap_or_default());
        if !request.scopes.is_empty() {
            form.append_pair("scope", &request.scopes.join(" "));
        }
        let form = form.append_pair("refresh_token", secret.reveal()).finish();
        let call = Call::new(Method::POST, request.realm.clone())
            .with(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .with(header::ACCEPT, "application/json");
        let response = self.send_with_retries("a token", &call, &mut Payload::Bytes(form.as_bytes()), None)?;
        if !matches!(response.status, 404 | 405) {
            return Ok(response);
        }
        response.drain();
        self.get_token(request, Some(&state::basic_header(TOKEN_USER, secret)))
    }
}
