//! The registries that this host's engines may reach insecurely: `insecure` in containers-registries.conf(5),
//! `insecure-registries` in docker's daemon.json, and `skip_verify` and `http://` in containerd's hosts.toml.

use super::registries_conf;
use super::registries_conf::RegistryEntry;
use super::toml;
use crate::transport::registry::auth::files::config_home;
use crate::transport::registry::http::proxy::is_in_network;
use crate::transport::registry::mirrors;
use serde_json::Value;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};

/// Returns the file, below `root` (`/`) or of this user, that declares `repository` at `host` (`HOST[:PORT]`) insecure.
/// An empty `repository` stands for the registry. Resolves `host` if docker's file lists networks.
pub fn declaring_file(host: &str, repository: &str, root: &Path) -> Option<PathBuf> {
    from_podman(host, repository, root).or_else(|| from_docker(host, root)).or_else(|| from_containerd(host, root))
}

fn from_podman(host: &str, repository: &str, root: &Path) -> Option<PathBuf> {
    let all = registries_conf::read(&registries_conf::path(root)?);
    let at = find_insecure(all.iter().map(|(_, registry)| registry), host, repository)?;
    Some(all[at].0.clone())
}

/// Returns the index of the entry that declares `repository` at `host` insecure. The longest matching location applies.
pub(crate) fn find_insecure<'r>(
    all: impl Iterator<Item = &'r RegistryEntry>,
    host: &str,
    repository: &str,
) -> Option<usize> {
    let matching = all.enumerate().filter(|(_, registry)| is_at(registry.location(), host, repository));
    let longest = matching.max_by_key(|(_, registry)| registry.location().len());
    longest.filter(|(_, registry)| registry.insecure).map(|(at, _)| at)
}

/// Whether `host/repository` is at or below `location`.
fn is_at(location: &str, host: &str, repository: &str) -> bool {
    let (own, path) = location.split_once('/').unwrap_or((location, ""));
    let hosts = match own.strip_prefix('*') {
        Some(domain) => domain.starts_with('.') && host.ends_with(domain),
        None => own == host,
    };
    let below = repository.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    hosts && (path.is_empty() || below)
}

fn from_docker(host: &str, root: &Path) -> Option<PathBuf> {
    let own = config_home().map(|home| home.join("docker/daemon.json"));
    let files = [own, Some(root.join("etc/docker/daemon.json"))];
    files.into_iter().flatten().find(|file| toml::read(file).is_some_and(|text| in_daemon_json(&text, host)))
}

/// Whether docker's daemon.json declares `host` insecure, by its name or by the network of one of its IP addresses.
pub(crate) fn in_daemon_json(text: &str, host: &str) -> bool {
    let document: Value = serde_json::from_str(text).unwrap_or_default();
    let list = document.get("insecure-registries").and_then(Value::as_array);
    let entries: Vec<&str> = list.into_iter().flatten().filter_map(Value::as_str).map(without_scheme).collect();
    let networks: Vec<(&str, &str)> = entries.iter().filter_map(|entry| entry.split_once('/')).collect();
    entries.contains(&host)
        || !networks.is_empty() && resolve_ips(host).iter().any(|own| is_in_any_network(own, &networks))
}

fn without_scheme(entry: &str) -> &str {
    entry.strip_prefix("http://").or(entry.strip_prefix("https://")).unwrap_or(entry).trim_end_matches('/')
}

fn is_in_any_network(ip: &str, networks: &[(&str, &str)]) -> bool {
    networks.iter().any(|(network, bits)| is_in_network(ip, network, bits))
}

/// Resolves `HOST[:PORT]` to IP addresses.
fn resolve_ips(host: &str) -> Vec<String> {
    let with_port = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        host.to_owned()
    } else {
        format!("{host}:443")
    };
    let found = with_port.to_socket_addrs().map(|all| all.map(|own| own.ip().to_string()).collect());
    found.unwrap_or_default()
}

fn from_containerd(host: &str, root: &Path) -> Option<PathBuf> {
    let file = mirrors::containerd_certs_dir(root).join(host).join("hosts.toml");
    let own = mirrors::from_hosts_toml(&toml::read(&file)?, host, "any");
    own.iter().any(|mirror| mirror.host == host && mirror.insecure).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn registries_are_insecure_by_name_path_wildcard_network_and_engine() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let file = root.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        write(
            "etc/containers/registries.conf",
            "[[registry]]\nlocation = \"r.lan:5000\"\ninsecure = true\n[[registry]]\nprefix = \"x.lan\"\n\
             location = \"y.lan/z\"\ninsecure = true\n[[registry]]\nprefix = \"*.sub.lan\"\ninsecure = true\n\
             [[registry]]\nlocation = \"r.lan:5000/safe\"\n[[registry]]\nlocation = \"m.lan\"\n\
             [[registry.mirror]]\nlocation = \"mirror.lan\"\ninsecure = true\n",
        );
        write(
            "etc/docker/daemon.json",
            r#"{"insecure-registries": ["d.lan:5000", 7, "10.1.0.0/16", "fd00::/8", "http://e.lan/", "1.2.3.4/x"]}"#,
        );
        write("etc/containerd/certs.d/c.lan/hosts.toml", "[host.\"https://c.lan\"]\nskip_verify = true\n");
        write("etc/containerd/certs.d/h.lan:80/hosts.toml", "server = \"http://h.lan:80\"\n");
        write("etc/containerd/certs.d/o.lan/hosts.toml", "[host.\"http://elsewhere.lan\"]\n");
        for (host, repository, file) in [
            ("r.lan:5000", "app", Some("registries.conf")),
            ("r.lan:5000", "", Some("registries.conf")),
            ("r.lan:5000", "safe/app", None),
            ("r.lan", "app", None),
            ("x.lan", "app", None),
            ("y.lan", "z/app", Some("registries.conf")),
            ("y.lan", "zz", None),
            ("a.sub.lan", "app", Some("registries.conf")),
            ("m.lan", "app", None),
            ("d.lan:5000", "app", Some("daemon.json")),
            ("d.lan", "app", None),
            ("e.lan", "app", Some("daemon.json")),
            ("10.1.2.3:5000", "app", Some("daemon.json")),
            ("10.2.2.3:5000", "app", None),
            ("[fd12::1]:5000", "app", Some("daemon.json")),
            ("c.lan", "app", Some("hosts.toml")),
            ("h.lan:80", "app", Some("hosts.toml")),
            ("o.lan", "app", None),
        ] {
            let found = declaring_file(host, repository, root.path());
            let name = found.as_ref().and_then(|file| file.file_name()).map(|name| name.to_string_lossy().into_owned());
            assert_eq!(name.as_deref(), file, "{host}/{repository}");
        }
    }
}
