//! Which proxy a URL goes through: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, read as curl and Go do.
//! ureq's own reading knows one proxy for both schemes and no domains without a leading dot.

use crate::error::{Error, Result};
use std::{env, net::IpAddr};
use ureq::Proxy;
use url::Url;

/// The user's proxies; empty strings are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    https: String,
    http: String,
    exempt: String,
}

impl Proxies {
    pub fn from_environment() -> Proxies {
        let first =
            |names: &[&str]| names.iter().filter_map(|name| env::var(name).ok()).find(|value| !value.is_empty());
        let all = first(&["ALL_PROXY", "all_proxy"]).unwrap_or_default();
        Proxies {
            https: first(&["HTTPS_PROXY", "https_proxy"]).unwrap_or_else(|| all.clone()),
            http: first(&["http_proxy", "HTTP_PROXY"]).unwrap_or(all),
            exempt: first(&["NO_PROXY", "no_proxy"]).unwrap_or_default(),
        }
    }

    /// The proxy that `url` goes through, as text; loopback never goes through one.
    pub fn of(&self, url: &Url) -> Option<&str> {
        let chosen = if url.scheme() == "https" { &self.https } else { &self.http };
        let host = url.host_str().unwrap_or_default();
        let direct = chosen.is_empty() || is_loopback(host) || self.is_exempt(host, url.port_or_known_default());
        (!direct).then_some(chosen)
    }

    fn is_exempt(&self, host: &str, port: Option<u16>) -> bool {
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        self.exempt.split([',', ' ']).map(str::trim).filter(|rule| !rule.is_empty()).any(|rule| {
            let rule = rule.to_ascii_lowercase();
            if rule == "*" {
                return true;
            }
            if let Some((network, bits)) = rule.split_once('/') {
                return lies_in(&host, network, bits);
            }
            if let Ok(address) = rule.trim_matches(['[', ']']).parse::<IpAddr>() {
                return host.parse() == Ok(address);
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

/// Reads a proxy's URL.
pub fn parse(text: &str) -> Result<Proxy> {
    // The text may hold a password, so it is not quoted.
    Proxy::new(text).map_err(|_| Error::usage("the proxy in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY is not a URL"))
}

/// Whether `host` (a name or an address, brackets allowed) is this machine.
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether the address `host` lies in `network/bits`.
fn lies_in(host: &str, network: &str, bits: &str) -> bool {
    let widen = |text: &str| {
        text.parse::<IpAddr>().ok().map(|address| match address {
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
        let exempt = "internal.lan, .dotted.lan,*.star.lan,10.0.0.0/8,only.lan:5000,fd00::/8 192.168.1.1";
        let proxies = Proxies { https: "http://s:1".into(), http: "http://p:2".into(), exempt: exempt.into() };
        let cases = [
            ("https://registry.lan/", Some("http://s:1")),
            ("http://registry.lan/", Some("http://p:2")),
            ("https://internal.lan/", None),
            ("https://a.INTERNAL.lan:5000/", None),
            ("https://notinternal.lan/", Some("http://s:1")),
            ("https://a.dotted.lan/", None),
            ("https://a.star.lan/", None),
            ("https://10.9.8.7/", None),
            ("https://11.9.8.7/", Some("http://s:1")),
            ("https://192.168.1.1/", None),
            ("https://only.lan:5000/", None),
            ("https://only.lan/", Some("http://s:1")),
            ("https://[fd12::1]/", None),
            ("https://127.0.0.1:5000/", None),
            ("https://localhost/", None),
            ("http://[::1]:5000/", None),
        ];
        for (url, expected) in cases {
            assert_eq!(proxies.of(&url.parse().unwrap()), expected, "{url}");
        }
        assert_eq!(Proxies { exempt: "*".into(), ..proxies }.of(&"https://r.lan/".parse().unwrap()), None);
    }
}
