//! As much of `~/.ssh/config` (ssh_config(5)) as it takes to reach a host: Host, HostName, User, Port, IdentityFile.

use super::pattern;
use crate::{
    error::{Error, Result},
    remote::split_words,
};
use std::path::{Path, PathBuf};

/// What the configuration says of one host.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub host_name: Option<String>,
    pub user: Option<String>,
    pub port: Option<u16>,
    /// In the order they are to be tried; empty: none is configured.
    pub identities: Vec<PathBuf>,
}

impl Settings {
    /// Reads `text`, the configuration of a user whose home is `home`, for `host` as it was typed. The first value of
    /// an option counts, as in ssh.
    ///
    /// `Usage` where it names a way to the host that is not built in (ProxyJump, ProxyCommand). `Match` sections other
    /// than `Match all` are passed over.
    pub fn read(text: &str, host: &str, home: &Path) -> Result<Settings> {
        let mut settings = Settings::default();
        let mut applies = true;
        for line in text.lines() {
            let Some((keyword, values)) = option(line) else {
                continue;
            };
            let first = values.first().map(String::as_str).unwrap_or_default();
            match keyword.as_str() {
                "host" => applies = pattern::fits(values.iter().map(String::as_str), host),
                "match" => applies = first.eq_ignore_ascii_case("all"),
                _ if !applies => {}
                "hostname" => settings.host_name = settings.host_name.or_else(|| Some(first.replace("%h", host))),
                "user" => settings.user = settings.user.or_else(|| Some(first.to_owned())),
                "port" => settings.port = settings.port.or_else(|| first.parse().ok()),
                "identityfile" if first != "none" => settings.identities.push(in_home(first, home)),
                "proxyjump" | "proxycommand" if first != "none" => {
                    return Err(Error::usage(format!(
                        "~/.ssh/config reaches {host} by {keyword}, which the built-in ssh cannot do; install an ssh \
                         client, or name one with --ssh"
                    )));
                }
                _ => {}
            }
        }
        Ok(settings)
    }
}

/// `Keyword value…` or `Keyword=value…`; none for an empty line or a comment.
fn option(line: &str) -> Option<(String, Vec<String>)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
    let rest = line[end..].trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest);
    let values = split_words(rest).unwrap_or_else(|_| vec![rest.trim().to_owned()]);
    Some((line[..end].to_lowercase(), values))
}

fn in_home(path: &str, home: &Path) -> PathBuf {
    match path.strip_prefix("~/").or_else(|| path.strip_prefix("%d/")) {
        Some(rest) => home.join(rest),
        None => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "
# mine
Host web1 \"web2\"
    HostName=%h.lan
    User deploy
    IdentityFile ~/.ssh/web key
Match user nobody
    User wrong
Host *
    User root
    Port 2222
    IdentityFile \"/keys/a b\"
Host far
    ProxyJump bastion
";

    #[test]
    fn the_first_value_that_fits_counts() {
        let web = Settings::read(CONFIG, "web2", Path::new("/home/u")).unwrap();
        assert_eq!(web.host_name.as_deref(), Some("web2.lan"));
        assert_eq!((web.user.as_deref(), web.port), (Some("deploy"), Some(2222)));
        assert_eq!(web.identities, [Path::new("/home/u/.ssh/web"), Path::new("/keys/a b")]);
        let other = Settings::read(CONFIG, "db", Path::new("/home/u")).unwrap();
        assert_eq!((other.host_name, other.user.as_deref()), (None, Some("root")));
    }

    #[test]
    fn a_host_behind_a_jump_is_refused_rather_than_reached_another_way() {
        assert!(Settings::read(CONFIG, "far", Path::new("/")).unwrap_err().to_string().contains("proxyjump"));
    }
}
