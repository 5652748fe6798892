//! The mirrors that this machine's engines are told to use: containerd's `certs.d/HOST/hosts.toml`, docker's
//! `daemon.json` (for docker.io alone) and containers-registries.conf(5). Of their TOML only what these files are made of
//! is read: sections, and keys with one value on their line.

use super::files::config_home;
use crate::image::{DEFAULT_REGISTRY, is_host};
use serde::Deserialize;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// In bytes, of a file of settings.
const MAX_FILE: u64 = 1 << 20;
const MAX_MIRRORS: usize = 8;

/// A host that has copies of another one's repositories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// `HOST[:PORT]`.
    pub host: String,
    /// Plain HTTP and certificates that do not verify are allowed.
    pub insecure: bool,
}

impl Mirror {
    /// From `HOST[:PORT]`, or that with `https://` or `http://` before it and `/` or `/v2` behind it. Paths below a host
    /// are not known.
    pub fn parse(text: &str, insecure: bool) -> Option<Mirror> {
        let (plain, rest) = match text.split_once("://") {
            Some(("http", rest)) => (true, rest),
            Some(("https", rest)) => (false, rest),
            Some(_) => return None,
            None => (false, text),
        };
        let host = rest.trim_end_matches('/').trim_end_matches("/v2");
        is_host(host).then(|| Mirror { host: host.to_owned(), insecure: insecure || plain })
    }
}

/// The mirrors of `host` by the files below `root` (`/`) and the user's own, each once, in the files' order.
pub fn configured(host: &str, root: &Path) -> Vec<Mirror> {
    let own = config_home().map(|home| home.join("containers/registries.conf"));
    let shared = root.join("etc/containers/registries.conf");
    let podman = [own, Some(shared)].into_iter().flatten().find(|file| file.is_file());
    let mut all: Vec<Mirror> = of_containerd(&root.join("etc/containerd/certs.d"), host);
    if host == DEFAULT_REGISTRY {
        all.extend(of_docker(&root.join("etc/docker/daemon.json")));
    }
    all.extend(podman.into_iter().flat_map(|file| of_podman(&file, host)));
    let mut each: Vec<Mirror> = Vec::new();
    for mirror in all {
        if mirror.host != host && !each.iter().any(|known| known.host == mirror.host) {
            each.push(mirror);
        }
    }
    each.truncate(MAX_MIRRORS);
    each
}

fn of_containerd(certs: &Path, host: &str) -> Vec<Mirror> {
    let files = [host, "_default"].map(|name| certs.join(name).join("hosts.toml"));
    let Some(text) = files.iter().find_map(read) else { return Vec::new() };
    let lines = lines(&text);
    let sections = lines.iter().filter(|line| line.key.is_empty()).filter_map(|line| {
        let url = line.section.strip_prefix("host.")?.trim_matches(['"', '\'']);
        let said = |key: &str| lines.iter().find(|own| own.section == line.section && own.key == key);
        let pulls = said("capabilities").is_none_or(|own| own.value.contains("pull"));
        let insecure = said("skip_verify").is_some_and(|own| own.value == "true");
        Mirror::parse(url, insecure).filter(|_| pulls)
    });
    sections.collect()
}

fn of_docker(file: &PathBuf) -> Vec<Mirror> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Daemon {
        #[serde(default)]
        registry_mirrors: Vec<String>,
    }
    let daemon = read(file).and_then(|text| serde_json::from_str::<Daemon>(&text).ok());
    let mirrors = daemon.map(|daemon| daemon.registry_mirrors).unwrap_or_default();
    mirrors.iter().filter_map(|url| Mirror::parse(url, false)).collect()
}

fn of_podman(file: &PathBuf, host: &str) -> Vec<Mirror> {
    let mut found = Vec::new();
    // Of the `[[registry]]` in hand: whether it is ours.
    let mut ours = false;
    for line in lines(&read(file).unwrap_or_default()) {
        match (&*line.section, &*line.key) {
            ("registry", "") => ours = false,
            ("registry", "prefix" | "location") => ours = ours || unquoted(&line.value) == host,
            ("registry.mirror", "location") if ours => found.extend(Mirror::parse(unquoted(&line.value), false)),
            ("registry.mirror", "insecure") if ours && line.value == "true" => {
                if let Some(last) = found.last_mut() {
                    last.insecure = true;
                }
            }
            _ => {}
        }
    }
    found
}

/// A key with its value, below a section; the section's own line has no key.
struct Line {
    section: String,
    key: String,
    value: String,
}

fn lines(text: &str) -> Vec<Line> {
    let mut section = String::new();
    let mut all = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if line.starts_with('[') && line.ends_with(']') && !line.contains('=') {
            section = line.trim_matches(['[', ']']).trim().to_owned();
            all.push(Line { section: section.clone(), key: String::new(), value: String::new() });
        } else if let Some((key, value)) = line.split_once('=') {
            let value = value.split(" #").next().unwrap_or_default().trim().to_owned();
            all.push(Line { section: section.clone(), key: key.trim().to_owned(), value });
        }
    }
    all
}

fn unquoted(value: &str) -> &str {
    value.trim_matches(['"', '\''])
}

fn read(file: &PathBuf) -> Option<String> {
    let mut text = String::new();
    File::open(file).ok()?.take(MAX_FILE).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn each_engines_file_names_its_mirrors() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let file = root.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        write(
            "etc/containerd/certs.d/docker.io/hosts.toml",
            "server = \"https://docker.io\"\n[host.\"https://one.lan:5000/v2\"]\n  capabilities = [\"pull\", \"resolve\"]\n\
             # [host.\"https://not.lan\"]\n[host.\"http://two.lan\"]\n[host.\"https://push.lan\"]\n capabilities = [\"push\"]\n",
        );
        write(
            "etc/docker/daemon.json",
            r#"{"registry-mirrors": ["https://three.lan/", "ftp://x", "https://one.lan:5000"]}"#,
        );
        write(
            "registries.conf",
            "[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"four.lan\"\n\
             insecure = true\n[[registry]]\nlocation = \"quay.lan\"\n[[registry.mirror]]\nlocation = \"five.lan\"\n",
        );
        let hosts = |mirrors: Vec<Mirror>| mirrors.into_iter().map(|m| (m.host, m.insecure)).collect::<Vec<_>>();
        let found = hosts(configured(DEFAULT_REGISTRY, root.path()));
        let expected = [("one.lan:5000", false), ("two.lan", true), ("three.lan", false)];
        assert_eq!(found[..3], expected.map(|(host, insecure)| (host.to_owned(), insecure)));
        let podman = root.path().join("registries.conf");
        assert_eq!(hosts(of_podman(&podman, "docker.io")), [("four.lan".to_owned(), true)]);
        assert_eq!(hosts(of_podman(&podman, "quay.lan")), [("five.lan".to_owned(), false)]);
        assert_eq!(hosts(of_podman(&podman, "other.lan")), []);
    }
}
