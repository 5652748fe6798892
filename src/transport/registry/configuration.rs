//! Parses the text of configuration files and variables that concern a registry. Only the fuzz target `configuration`
//! uses this; the program reads the files in `auth`, `http` and `mirrors`.

use super::auth::file::AuthFile;
use super::auth::secret::LoginSecret;
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
pub enum ConfigurationKind {
    /// docker's config.json and containers' auth.json.
    Credentials,
    /// containers-registries.conf(5).
    RegistriesConf,
    /// containerd's hosts.toml.
    HostsToml,
    /// docker's daemon.json.
    DaemonJson,
    /// The value of a proxy variable, and that of NO_PROXY on the next line.
    Proxy,
}

/// The settings that a text has for one repository.
#[derive(Debug, Default)]
pub struct Settings {
    /// The mirrors, in the order in which they are tried.
    pub mirrors: Vec<Mirror>,
    /// Whether the repository may be reached without TLS verification, or over plain HTTP.
    pub insecure: bool,
    /// The user, if the text has one; credential helpers are not run.
    pub user: Option<String>,
    /// The proxy without its credentials.
    pub proxy: Option<String>,
}

/// Parses the settings for `repository` at `host` (`HOST[:PORT]`).
///
/// Fails with `Invalid` or `Usage`; the message quotes nothing of `text`, which may have secrets.
pub fn read(kind: ConfigurationKind, text: &str, host: &str, repository: &str) -> Result<Settings> {
    let nothing = Settings::default();
    Ok(match kind {
        ConfigurationKind::Credentials => {
            let kept = AuthFile::parse(Path::new("config.json"), text.as_bytes())?.stored(host, repository);
            let user = kept.map(|login| match login {
                LoginSecret::Password { user, .. } => user,
                LoginSecret::Identity(_) | LoginSecret::Token(_) => String::new(),
            });
            Settings { user, ..nothing }
        }
        ConfigurationKind::RegistriesConf => {
            let all = registries_conf::parse(text);
            let insecure = insecure::find_insecure(all.iter(), host, repository).is_some();
            Settings { mirrors: mirrors::from_registries_conf(&all, host, repository), insecure, ..nothing }
        }
        ConfigurationKind::HostsToml => {
            let mirrors = mirrors::from_hosts_toml(text, host, repository);
            Settings { insecure: mirrors.iter().any(|mirror| mirror.insecure), mirrors, ..nothing }
        }
        ConfigurationKind::DaemonJson => {
            let mirrors = mirrors::from_daemon_json(text, repository);
            Settings { mirrors, insecure: insecure::in_daemon_json(text, host), ..nothing }
        }
        ConfigurationKind::Proxy => {
            let (proxy, exempt) = text.split_once('\n').unwrap_or((text, ""));
            let url = Url::parse(&format!("https://{host}/{repository}"));
            let found = url.ok().map(|url| Proxies::from_text(proxy, exempt).for_url(&url)).transpose()?.flatten();
            Settings { proxy: found.map(|proxy| proxy.to_string()), ..nothing }
        }
    })
}
