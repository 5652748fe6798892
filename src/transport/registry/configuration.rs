//! What configuration files and variables say of a registry, from their text alone. The fuzz target `configuration` reads
//! this way; the files themselves are read where they are needed.

use super::auth::file::AuthFile;
use super::auth::secret::Login;
use super::http::proxy::Proxies;
use super::mirrors;
use super::mirrors::Mirror;
use super::mirrors::insecure;
use super::mirrors::registries_conf;
use crate::error::Result;
use std::path::Path;
use url::Url;

/// A kind of configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// docker's config.json and containers' auth.json.
    Credentials,
    /// containers-registries.conf(5).
    RegistriesConf,
    /// containerd's hosts.toml.
    HostsToml,
    /// docker's.
    DaemonJson,
    /// A proxy's variable, and NO_PROXY on the line after it.
    Proxy,
}

/// What a text says.
#[derive(Debug, Default)]
pub struct Says {
    pub mirrors: Vec<Mirror>,
    pub insecure: bool,
    /// The user, if one is kept; helpers are not asked.
    pub user: Option<String>,
    /// The proxy without its credentials.
    pub proxy: Option<String>,
}

/// What `text` says of `repository` at `host` (`HOST[:PORT]`).
///
/// `Invalid` or `Usage` where it is not what it should be, without a word of what is in it.
pub fn read(kind: Kind, text: &str, host: &str, repository: &str) -> Result<Says> {
    let nothing = Says::default();
    Ok(match kind {
        Kind::Credentials => {
            let kept = AuthFile::parse(Path::new("config.json"), text.as_bytes())?.stored(host, repository);
            let user = kept.map(|login| match login {
                Login::Password { user, .. } => user,
                Login::Identity(_) | Login::Token(_) => String::new(),
            });
            Says { user, ..nothing }
        }
        Kind::RegistriesConf => {
            let all = registries_conf::parse(text);
            let insecure = insecure::find_insecure(all.iter(), host, repository).is_some();
            Says { mirrors: mirrors::from_registries_conf(&all, host, repository), insecure, ..nothing }
        }
        Kind::HostsToml => {
            let mirrors = mirrors::from_hosts_toml(text, host, repository);
            Says { insecure: mirrors.iter().any(|mirror| mirror.insecure), mirrors, ..nothing }
        }
        Kind::DaemonJson => {
            let mirrors = mirrors::from_daemon_json(text, repository);
            Says { mirrors, insecure: insecure::in_daemon_json(text, host), ..nothing }
        }
        Kind::Proxy => {
            let (proxy, exempt) = text.split_once('\n').unwrap_or((text, ""));
            let url = Url::parse(&format!("https://{host}/{repository}"));
            let found = url.ok().map(|url| Proxies::from_text(proxy, exempt).for_url(&url)).transpose()?.flatten();
            Says { proxy: found.map(|proxy| proxy.to_string()), ..nothing }
        }
    })
}
