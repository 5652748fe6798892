//! The proxy of a URL: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, read as curl and Go read them. ureq
//! itself reads one proxy for both schemes, and no domain without a leading dot.

use crate::error::{Error, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::{env, fmt, net::IpAddr};
use ureq::ProxyProtocol;
use ureq::http::Uri;
use url::Url;

/// A proxy's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyKind {
    Http,
    /// HTTP over TLS.
    Https,
    Socks,
}

/// A proxy and its credentials. Displayed as `HOST:PORT` and the variable that names it, without the credentials.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Proxy {
    variable: &'static str,
    inner: ureq::Proxy,
    /// `http://HOST:PORT`.
    uri: Uri,
}

impl Proxy {
    /// Parses a proxy's URL, or `HOST:PORT`, from a `variable`. Any other text is `Usage`.
    fn parse(variable: &'static str, text: &str) -> Result<Proxy> {
        // The text may contain a password, so the error does not quote it.
        let wrong = |why: &str| Error::usage(format!("the proxy in {variable} is invalid: {why}"));
        if text.contains(char::REPLACEMENT_CHARACTER) {
            return Err(wrong("it is not UTF-8"));
        }
        let inner = ureq::Proxy::new(text).map_err(|_| {
            wrong("expected [USER:PASSWORD@]HOST[:PORT], with http://, https://, socks5:// or socks5h:// before it")
        })?;
        let authority = inner.uri().authority().map_or("", |authority| authority.as_str());
        let port = authority.rsplit_once(inner.host()).map_or("", |(_, port)| port);
        if port.len() > 1 && port[1..].parse::<u16>().is_err() {
            return Err(wrong("its port is not a number up to 65535"));
        }
        let uri = format!("http://{}:{}", inner.host(), inner.port()).parse::<Uri>();
        let uri = uri.ok().filter(|uri| uri.host().is_some_and(|host| !host.is_empty()));
        let uri = uri.ok_or_else(|| wrong("it has no host"))?;
        Ok(Proxy { variable, inner, uri })
    }

    pub fn kind(&self) -> ProxyKind {
        match self.inner.protocol() {
            ProxyProtocol::Http => ProxyKind::Http,
            ProxyProtocol::Https => ProxyKind::Https,
            _ => ProxyKind::Socks,
        }
    }

    /// Returns a name, or an IP address, which may be in brackets.
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }

    /// Returns `http://HOST:PORT`, for any protocol.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Converts it for ureq's own connector.
    pub fn to_ureq(&self) -> ureq::Proxy {
        self.inner.clone()
    }

    /// Returns the value of `Proxy-Authorization`, if the URL has credentials.
    pub fn authorization(&self) -> Option<String> {
        let (user, password) = (self.inner.username(), self.inner.password());
        (user.is_some() || password.is_some()).then(|| {
            let pair = format!("{}:{}", user.unwrap_or_default(), password.unwrap_or_default());
            format!("Basic {}", STANDARD.encode(pair))
        })
    }

    /// The error when the proxy requires credentials (407) or refuses those it was sent. `challenges` are its
    /// `Proxy-Authenticate` headers.
    pub fn credentials_error(&self, challenges: impl Iterator<Item = String>) -> Error {
        let schemes: Vec<String> = challenges
            .filter_map(|challenge| challenge.split_ascii_whitespace().next().map(str::to_owned))
            .take(8)
            .collect();
        let known = schemes.is_empty() || schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic"));
        let variable = self.variable;
        Error::denied(match (known, self.authorization().is_some()) {
            (false, _) => {
                let schemes = schemes.join(", ");
                format!("the proxy {self} requires an authentication scheme that imgmv does not support: {schemes}")
            }
            (true, true) => format!("the proxy {self} refused the user and password in {variable}; correct them"),
            (true, false) => {
                format!("the proxy {self} requires credentials; write USER:PASSWORD@ before its host in {variable}")
            }
        })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        write!(f, "{authority} ({})", self.variable)
    }
}

/// Omits the credentials.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A variable's name and value; `None` if it is unset or empty.
type Setting = Option<(&'static str, String)>;

/// The user's proxies.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    https: Setting,
    http: Setting,
    no_proxy: String,
}

impl Proxies {
    pub fn from_environment() -> Proxies {
        let first = |names: &[&'static str]| -> Setting {
            let values =
                names.iter().filter_map(|name| Some((*name, env::var_os(name)?.to_string_lossy().into_owned())));
            values.into_iter().find(|(_, value)| !value.is_empty())
        };
        let all = first(&["ALL_PROXY", "all_proxy"]);
        Proxies {
            https: first(&["HTTPS_PROXY", "https_proxy"]).or_else(|| all.clone()),
            http: first(&["http_proxy", "HTTP_PROXY"]).or(all),
            no_proxy: first(&["NO_PROXY", "no_proxy"]).map(|(_, value)| value).unwrap_or_default(),
        }
    }

    /// Uses the same proxy for both schemes.
    pub fn from_text(proxy: &str, no_proxy: &str) -> Proxies {
        let setting = Some(("ALL_PROXY", proxy.to_owned()));
        Proxies { https: setting.clone(), http: setting, no_proxy: no_proxy.to_owned() }
    }

    /// Returns the proxy for `url`; loopback never has one. Fails with `Usage` if the variable for its scheme is not a
    /// proxy.
    pub fn for_url(&self, url: &Url) -> Result<Option<Proxy>> {
        let chosen = if url.scheme() == "https" { &self.https } else { &self.http };
        let host = url.host_str().unwrap_or_default();
        match chosen {
            Some((variable, text)) if !is_loopback(host) && !self.is_exempt(host, url.port_or_known_default()) => {
                Proxy::parse(variable, text).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn is_exempt(&self, host: &str, port: Option<u16>) -> bool {
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        self.no_proxy.split([',', ' ']).map(str::trim).filter(|rule| !rule.is_empty()).any(|rule| {
            let rule = rule.to_ascii_lowercase();
            if rule == "*" {
                return true;
            }
            if let Some((network, bits)) = rule.split_once('/') {
                return is_in_network(&host, network, bits);
            }
            if let Ok(ip) = rule.trim_matches(['[', ']']).parse::<IpAddr>() {
                return host.parse() == Ok(ip);
            }
            let (name, only) = match rule.rsplit_once(':') {
                Some((name, number)) => (name, number.parse::<u16>().ok()),
                None => (rule.as_str(), None),
            };
            let domain = name.trim_start_matches('*').trim_start_matches('.');
            let within = host.strip_suffix(domain).is_some_and(|before| before.is_empty() || before.ends_with('.'));
            within && !domain.is_empty() && only.is_none_or(|only| Some(only) == port)
        })
    }
}

/// Whether `host` (a name or an IP address, brackets allowed) is this host.
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether the IP address `host` is in `network/bits`.
pub fn is_in_network(host: &str, network: &str, bits: &str) -> bool {
    let widen = |text: &str| {
        text.parse::<IpAddr>().ok().map(|ip| match ip {
            IpAddr::V4(four) => (u128::from(u32::from(four)) << 96, 32),
            IpAddr::V6(six) => (u128::from(six), 128),
        })
    };
    match (widen(host), widen(network), bits.parse::<u32>()) {
        (Some((host, width)), Some((network, same)), Ok(bits)) if width == same && bits <= width => {
            bits == 0 || (host ^ network) >> (128 - bits) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scheme_has_its_proxy_and_no_proxy_is_read_as_curl_does() {
        let no_proxy = "internal.lan, .dotted.lan,*.star.lan,10.0.0.0/8,only.lan:5000,fd00::/8 192.168.1.1";
        let setting = |text: &str| Some(("ALL_PROXY", text.to_owned()));
        let proxies = Proxies { https: setting("http://s:1"), http: setting("p:2"), no_proxy: no_proxy.into() };
        let cases = [
            ("https://registry.lan/", Some("s:1 (ALL_PROXY)")),
            ("http://registry.lan/", Some("p:2 (ALL_PROXY)")),
            ("https://internal.lan/", None),
            ("https://a.INTERNAL.lan:5000/", None),
            ("https://notinternal.lan/", Some("s:1 (ALL_PROXY)")),
            ("https://a.dotted.lan/", None),
            ("https://a.star.lan/", None),
            ("https://10.9.8.7/", None),
            ("https://11.9.8.7/", Some("s:1 (ALL_PROXY)")),
            ("https://192.168.1.1/", None),
            ("https://only.lan:5000/", None),
            ("https://only.lan/", Some("s:1 (ALL_PROXY)")),
            ("https://[fd12::1]/", None),
            ("https://127.0.0.1:5000/", None),
            ("https://localhost/", None),
            ("http://[::1]:5000/", None),
        ];
        for (url, expected) in cases {
            let found = proxies.for_url(&url.parse().unwrap()).unwrap().map(|proxy| proxy.to_string());
            assert_eq!(found.as_deref(), expected, "{url}");
        }
        assert_eq!(
            Proxies { no_proxy: "*".into(), ..proxies }.for_url(&"https://r.lan/".parse().unwrap()).unwrap(),
            None
        );
    }

    #[test]
    fn a_proxys_kind_and_credentials_are_read_and_never_shown() {
        let cases = [
            ("squid.lan:3128", ProxyKind::Http, "squid.lan:3128 (V)", None),
            ("http://u:s%40x@squid.lan", ProxyKind::Http, "squid.lan:80 (V)", Some("Basic dTpzQHg=")),
            ("https://[::1]:3129/", ProxyKind::Https, "[::1]:3129 (V)", None),
            ("socks5h://u:secret@10.0.0.1", ProxyKind::Socks, "10.0.0.1:1080 (V)", Some("Basic dTpzZWNyZXQ=")),
        ];
        for (text, kind, shown, authorization) in cases {
            let proxy = Proxy::parse("V", text).unwrap();
            assert_eq!((proxy.kind(), &*proxy.to_string()), (kind, shown));
            assert_eq!((proxy.authorization().as_deref(), format!("{proxy:?}")), (authorization, proxy.to_string()));
        }
        for text in [
            "ftp://u:secret@x",
            "http://",
            "http://:80",
            "/",
            "\u{1}",
            "a b",
            "http://u:secret@",
            "http://x:99999",
            "é",
        ] {
            let error = Proxy::parse("V", text).unwrap_err();
            assert!(error.to_string().contains("in V") && !error.to_string().contains("secret"), "{text}: {error}");
        }
    }
}
