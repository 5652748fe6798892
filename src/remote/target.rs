//! The two forms in which a user names a remote host: an ssh URL, and scp's `HOST:`.

use crate::error::{Error, Result};
use crate::image::Digest;

/// A remote host as the user wrote it: an IP address, or a name from DNS or `~/.ssh/config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshTarget {
    /// The user; `None`: from the ssh configuration.
    pub user: Option<String>,
    /// An IPv6 address has no brackets. Never starts with `-` or has characters that a shell or ssh interprets.
    pub host: String,
    /// The port; `None`: from the ssh configuration.
    pub port: Option<u16>,
}

impl SshTarget {
    /// Whether `text` has the form of a host: `ssh://…`, `HOST:` or `USER@HOST:…`. (`NAME:TAG` is a reference.)
    pub fn matches(text: &str) -> bool {
        if text.starts_with("ssh://") {
            return true;
        }
        let Some((host, behind)) = split_host(text) else {
            return false;
        };
        let shaped = |text: &str| !text.is_empty() && !text.contains('/');
        match host.split_once('@') {
            Some((_, algorithm)) if is_digest(algorithm, behind) => false,
            Some((user, host)) => shaped(user) && shaped(host),
            None => behind.is_empty() && shaped(host),
        }
    }

    /// Parses `ssh://[USER@]HOST[:PORT][/REF]` and `[USER@]HOST:[REF]`. The second value is `REF`.
    ///
    /// Fails with `Usage` if the user or host could be read as an option or a shell command, or the port is invalid.
    pub fn parse(text: &str) -> Result<(SshTarget, Option<String>)> {
        let wrong = |why: &str| Error::usage(format!("{text:?} names no host: {why}"));
        let (authority, port, behind) = match text.strip_prefix("ssh://") {
            Some(rest) => {
                let (authority, behind) = rest.split_once('/').unwrap_or((rest, ""));
                let at = authority.find('@').map_or(0, |at| at + 1);
                match split_host(&authority[at..]) {
                    Some((host, port)) => (&authority[..at + host.len()], Some(port), behind),
                    None => (authority, None, behind),
                }
            }
            None => {
                let (host, behind) = split_host(text).ok_or_else(|| wrong("expected HOST: or USER@HOST:"))?;
                (host, None, behind)
            }
        };
        let port = match port {
            None => None,
            Some(port) => match port.parse::<u16>() {
                Ok(port) if port > 0 => Some(port),
                _ => return Err(wrong("the port is not a number from 1 to 65535")),
            },
        };
        let (user, host) = match authority.split_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        if user.is_some_and(|user| !is_user(user)) {
            return Err(wrong("the user is empty, starts with -, or has characters that a shell interprets"));
        }
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let fits = match bare {
            Some(ip) => is_ipv6(ip),
            None => is_host(host),
        };
        if !fits {
            return Err(wrong("a host has letters, digits and . - _ and does not start with -"));
        }
        let host = bare.unwrap_or(host).to_owned();
        let reference = (!behind.is_empty()).then(|| behind.to_owned());
        Ok((SshTarget { user: user.map(str::to_owned), host, port }, reference))
    }
}

impl std::fmt::Display for SshTarget {
    /// Prints `[USER@]HOST[:PORT]`, with an IPv6 address in brackets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(&self.host)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Splits at the colon after the host: the last one in `u@[::1]:x`, the first in `h:a/b:c`.
fn split_host(text: &str) -> Option<(&str, &str)> {
    let from = match (text.find('['), text.find(']')) {
        (Some(open), Some(close)) if open < close && (open == 0 || text[..open].ends_with('@')) => close,
        _ => 0,
    };
    let colon = from + text[from..].find(':')?;
    Some((&text[..colon], &text[colon + 1..]))
}

/// Whether `app@sha256:…` was split: a reference by digest, not a user and a host.
fn is_digest(algorithm: &str, hex: &str) -> bool {
    format!("{algorithm}:{hex}").parse::<Digest>().is_ok()
}

fn is_user(user: &str) -> bool {
    let safe = |c: char| c.is_alphanumeric() || "._-+\\%".contains(c);
    !user.is_empty() && user.len() <= 255 && !user.starts_with('-') && user.chars().all(safe)
}

fn is_host(host: &str) -> bool {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    !host.is_empty() && host.len() <= 253 && !host.starts_with('-') && host.bytes().all(safe)
}

/// An IPv6 address may have a zone (RFC 4007), as in `fe80::1%eth0`.
fn is_ipv6(text: &str) -> bool {
    let (ip, zone) = text.split_once('%').unwrap_or((text, "0"));
    ip.parse::<std::net::Ipv6Addr>().is_ok() && is_host(zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_ssh_and_scp_write_them() {
        for (text, user, host, port, reference) in [
            ("ssh://node1", None, "node1", None, None),
            ("ssh://root@node1:2222/app:2", Some("root"), "node1", Some(2222), Some("app:2")),
            ("ssh://node1/ghcr.io/org/app:2", None, "node1", None, Some("ghcr.io/org/app:2")),
            ("ssh://u@[fe80::1%eth0]:22", Some("u"), "fe80::1%eth0", Some(22), None),
            ("ssh://[::1]", None, "::1", None, None),
            ("node1.lan:", None, "node1.lan", None, None),
            ("u@node1:app:2", Some("u"), "node1", None, Some("app:2")),
            ("u@[::1]:app", Some("u"), "::1", None, Some("app")),
        ] {
            assert!(SshTarget::matches(text), "{text}");
            let (target, found) = SshTarget::parse(text).unwrap();
            assert_eq!((target.user.as_deref(), target.host.as_str(), target.port), (user, host, port), "{text}");
            assert_eq!(found.as_deref(), reference, "{text}");
            assert_eq!(SshTarget::parse(&format!("ssh://{target}")).unwrap(), (target, None));
        }
    }

    #[test]
    fn what_ssh_would_take_for_an_option_or_a_shell_for_a_command_is_refused() {
        for text in [
            "ssh://-oProxyCommand=id",
            "-oProxyCommand=id:",
            "ssh://-l@h",
            "u@-h:",
            "ssh://h:0",
            "ssh://h:70000",
            "ssh://h:x",
            "ssh://",
            "ssh:///app",
            "ssh://$(id)",
            "ssh://a b",
            "ssh://u;id@h",
            "ssh://u'@h",
            "ssh://h\n",
            "ssh://[::g]",
            "@h:",
        ] {
            assert!(SshTarget::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_reference_is_not_taken_for_a_host() {
        let pinned = format!("app@{}", Digest::of(b""));
        for text in [
            &pinned[..],
            "app:2",
            "registry:5000/app",
            "app",
            "docker://u@h:1/x",
            "registry.lan:5000/app:2",
            "./a:",
            "a/b:",
        ] {
            assert!(!SshTarget::matches(text), "{text}");
        }
    }
}
