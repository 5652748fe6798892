//! Answers that the proxy makes itself: the server is not asked.

use super::conversation::{Meter, Way};
use super::head::{Head, counted};
use super::{End, Seen, State, TooLarge, lock};
use std::io::{self, BufReader, Write};
use std::net::TcpStream;
use std::sync::Mutex;

/// What a captive portal says to every request.
pub(super) fn page() -> Head {
    let page = "<!doctype html><html><title>Log in</title><body>Log in to use this network.</body></html>";
    let length = page.len().to_string();
    let headers = [("content-type", "text/html".to_owned()), ("content-length", length)];
    Head {
        first: "HTTP/1.1 200 OK".to_owned(),
        headers: headers.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        behind: page.to_owned(),
    }
}

/// What a blob's request gets where blobs lie behind signed addresses, each of which is good for one request. They are
/// on another host: `localhost` in place of `127.0.0.1`.
pub(super) fn signed(state: &Mutex<State>, head: &Head) -> Option<Head> {
    let (method, target) = (head.word(0), head.word(1));
    if method != "GET" || !target.contains("/blobs/") {
        return None;
    }
    let answer = |status: &str, more: Option<(&str, String)>| Head {
        first: format!("HTTP/1.1 {status}"),
        headers: more.into_iter().chain([("content-length", "0".to_owned())]).map(|(n, v)| (n.to_owned(), v)).collect(),
        behind: String::new(),
    };
    let mut state = lock(state);
    match target.split_once("sig=") {
        Some((_, signature)) => {
            let fresh = state.signatures.insert(signature.to_owned());
            (!fresh).then(|| answer("403 Forbidden", None))
        }
        None => {
            let port = head.get("host").and_then(|host| host.rsplit_once(':')).map_or("80", |(_, port)| port);
            state.signed += 1;
            let to = format!("http://localhost:{port}{target}?sig={}", state.signed);
            Some(answer("307 Temporary Redirect", Some(("location", to))))
        }
    }
}

/// What the token service says, or whoever stands before the registry to one without the token of the day. Where that
/// has just expired there is a new one.
pub(super) fn guarded(state: &Mutex<State>, head: &Head, expired: bool) -> Option<Head> {
    let today = {
        let mut state = lock(state);
        state.token += usize::from(expired);
        format!("token-{}", state.token)
    };
    let answer = |status: &str, headers: &[(&str, String)]| Head {
        first: format!("HTTP/1.1 {status}"),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        behind: String::new(),
    };
    let path = head.word(1);
    if path.starts_with("/token") {
        let document = format!(r#"{{"token":"{today}","access_token":"{today}","expires_in":300}}"#);
        let length = document.len().to_string();
        let mut told = answer("200 OK", &[("Content-Type", "application/json".to_owned()), ("Content-Length", length)]);
        told.behind = document;
        return Some(told);
    }
    if head.get("authorization") == Some(&*format!("Bearer {today}")) {
        return None;
    }
    let rest = path.trim_start_matches("/v2/");
    let end = ["/blobs/", "/manifests/", "/tags/"].iter().filter_map(|part| rest.find(part)).min();
    let scope = end.map(|end| format!(",scope=\"repository:{}:pull,push\"", &rest[..end])).unwrap_or_default();
    let host = head.get("host").unwrap_or_default();
    let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"line\"{scope}");
    Some(answer("401 Unauthorized", &[("WWW-Authenticate", challenge), ("Content-Length", "0".to_owned())]))
}

/// Turns away what the line does not take; how the connection ends then.
pub(super) fn turned_away(
    meter: &mut Meter<'_>,
    head: &Head,
    from_client: &mut BufReader<TcpStream>,
    client: &mut TcpStream,
    seen: &mut Seen,
) -> io::Result<Option<End>> {
    let mut status = None;
    if let Some((times, code, wish)) = meter.line.refuses_first
        && seen.path.contains("/uploads/")
    {
        let mut state = lock(meter.state);
        let so_far = state.refused.entry(format!("{} {}", head.word(0), seen.path)).or_default();
        *so_far += 1;
        status = (*so_far <= times).then_some((code, wish));
    }
    match meter.line.body_limit {
        // A body in chunks has no length; its limit would show in its middle.
        Some((limit, how)) if head.length().is_some_and(|length| length > limit) => {
            if how == TooLarge::Reset {
                client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                counted(from_client, limit, &mut |_| Ok(()))?;
                return Ok(Some(End::Rst));
            }
            status = Some((413, None));
        }
        _ => {}
    }
    let Some((status, wish)) = status else { return Ok(None) };
    seen.status = status;
    let wish = wish.map(|wish| format!("Retry-After: {wish}\r\n")).unwrap_or_default();
    let answer = format!("HTTP/1.1 {status} X\r\n{wish}Content-Length: 0\r\nConnection: close\r\n\r\n");
    meter.pass(client, Way::Down, answer.as_bytes())?;
    Ok(Some(End::Fin))
}
