//! The mirrors in the configuration of this host's engines: containerd's `certs.d/HOST/hosts.toml`, docker's
//! `daemon.json` (for docker.io only), and containers-registries.conf(5) with its `.d` directory.

pub mod insecure;
pub(super) mod registries_conf;
pub(super) mod store;
pub(super) mod toml;

use crate::image::{DEFAULT_REGISTRY, Reference, is_host};
use crate::transport::registry::options::API_ROOT;
use registries_conf::{MirrorEntry, RegistryEntry};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use toml::{Setting, settings, unquoted};

const MAX_MIRRORS: usize = 8;

/// A host that has a copy of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// `HOST[:PORT]`.
    pub host: String,
    /// The repository's name at the mirror.
    pub repository: String,
    /// The path of the mirror's API.
    pub root: String,
    /// The mirrored registry, if requests must name it (`?ns=`, as containerd sends).
    pub namespace: Option<String>,
    /// Plain HTTP and untrusted certificates are allowed.
    pub insecure: bool,
    /// Its tags are trusted, not only its digests.
    pub resolves: bool,
}

/// A server whose API is at its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorServer {
    /// `HOST[:PORT]`.
    pub host: String,
    /// Plain HTTP and untrusted certificates are allowed.
    pub insecure: bool,
}

/// Parses `[http://|https://]HOST[:PORT]`.
pub fn parse_server(text: &str, insecure: bool) -> Option<MirrorServer> {
    const ANY: &str = "any";
    let Mirror { host, repository, insecure, .. } = Mirror::parse(text, ANY, insecure)?;
    (repository == ANY).then_some(MirrorServer { host, insecure })
}

impl Mirror {
    /// Parses `[http://|https://]HOST[:PORT][/PATH][/v2][/]` as a mirror of `repository`, which is below `PATH` there.
    pub fn parse(text: &str, repository: &str, insecure: bool) -> Option<Mirror> {
        let (plain, rest) = split_scheme(text)?;
        let rest = rest.trim_end_matches('/');
        let rest = rest.strip_suffix("/v2").unwrap_or(rest);
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let repository = if path.is_empty() { repository.to_owned() } else { format!("{path}/{repository}") };
        let root = API_ROOT.to_owned();
        let mirror = Mirror {
            host: host.to_owned(),
            repository,
            root,
            namespace: None,
            insecure: insecure || plain,
            resolves: true,
        };
        mirror.validated()
    }

    /// Parses a URL of hosts.toml as a mirror of `repository` at `registry`. Its path is the API's (`whole_path`), or
    /// precedes the API's `/v2`.
    fn from_hosts_toml_url(url: &str, (registry, repository): (&str, &str), whole_path: bool) -> Option<Mirror> {
        let (plain, rest) = split_scheme(url)?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_matches('/');
        let path = if path.is_empty() { String::new() } else { format!("/{path}") };
        let root = if whole_path || path.ends_with(API_ROOT) { path } else { path + API_ROOT };
        let mirror = Mirror {
            host: host.to_owned(),
            repository: repository.to_owned(),
            root,
            namespace: Some(registry.to_owned()),
            insecure: plain,
            resolves: true,
        };
        mirror.validated()
    }

    /// Returns itself if all its names are valid.
    fn validated(self) -> Option<Mirror> {
        let part = |part: &str| {
            !matches!(part, "" | "." | "..") && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let root = self.root.is_empty() || self.root.strip_prefix('/').is_some_and(|root| root.split('/').all(part));
        let named = format!("{}/{}", self.host, self.repository).parse::<Reference>();
        (root && is_host(&self.host) && named.is_ok()).then_some(self)
    }
}

/// Returns whether a URL is plain HTTP, and the text after its scheme. The default scheme is https.
fn split_scheme(url: &str) -> Option<(bool, &str)> {
    match url.split_once("://") {
        Some(("http", rest)) => Some((true, rest)),
        Some(("https", rest)) => Some((false, rest)),
        Some(_) => None,
        None => Some((false, url)),
    }
}

/// Returns the mirrors of `repository` at `host` from the files below `root` (`/`) and the user's own, without
/// duplicates, in the order of the files.
pub fn configured_mirrors(host: &str, repository: &str, root: &Path) -> Vec<Mirror> {
    let podman = registries_conf::path(root);
    let mut all: Vec<Mirror> = from_containerd(&containerd_certs_dir(root), host, repository);
    if host == DEFAULT_REGISTRY {
        all.extend(from_docker(&root.join("etc/docker/daemon.json"), repository));
    }
    all.extend(podman.into_iter().flat_map(|file| from_podman(&file, host, repository)));
    let mut unique: Vec<Mirror> = Vec::new();
    for mirror in all {
        let same = |known: &Mirror| {
            (&known.host, &known.repository, &known.root) == (&mirror.host, &mirror.repository, &mirror.root)
        };
        let home = mirror.host == host && mirror.repository == repository && mirror.root == API_ROOT;
        if !home && !unique.iter().any(same) {
            unique.push(mirror);
        }
    }
    unique.truncate(MAX_MIRRORS);
    unique
}

/// Returns containerd's directory of host configurations below `root` (`/`).
pub(super) fn containerd_certs_dir(root: &Path) -> PathBuf {
    root.join("etc/containerd/certs.d")
}

fn from_containerd(certs: &Path, host: &str, repository: &str) -> Vec<Mirror> {
    let files = [host, "_default"].map(|name| certs.join(name).join("hosts.toml"));
    let text = files.iter().find_map(|file| toml::read(file));
    text.map(|text| from_hosts_toml(&text, host, repository)).unwrap_or_default()
}

/// Returns the hosts that a hosts.toml names before `host`, or in place of it.
pub(super) fn from_hosts_toml(text: &str, host: &str, repository: &str) -> Vec<Mirror> {
    let settings = settings(text);
    let find = |section: &str, key: &str| settings.iter().find(|own| own.section == section && own.key == key);
    let mirror = |section: &str, url: &str| {
        let is = |key| find(section, key).is_some_and(Setting::is_true);
        let can = |what: &str| find(section, "capabilities").is_none_or(|own| own.value.contains(what));
        let mirror = Mirror::from_hosts_toml_url(url, (host, repository), is("override_path"))?;
        can("pull").then(|| Mirror {
            insecure: mirror.insecure || is("skip_verify"),
            resolves: can("resolve"),
            ..mirror
        })
    };
    let hosts = settings.iter().filter(|setting| setting.key.is_empty()).filter_map(|setting| {
        let url = unquoted(setting.section.strip_prefix("host.")?);
        mirror(&setting.section, url)
    });
    // containerd asks `server` in place of the registry; imgmv asks it before the registry.
    let server = find("", "server").and_then(|setting| mirror("", setting.text()));
    let server = server.filter(|server| host != DEFAULT_REGISTRY || !server.host.ends_with(DEFAULT_REGISTRY));
    hosts.chain(server).collect()
}

fn from_docker(file: &Path, repository: &str) -> Vec<Mirror> {
    toml::read(file).map(|text| from_daemon_json(&text, repository)).unwrap_or_default()
}

/// Returns the mirrors of docker's own registry in daemon.json.
pub(super) fn from_daemon_json(text: &str, repository: &str) -> Vec<Mirror> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Daemon {
        #[serde(default)]
        registry_mirrors: Vec<String>,
    }
    let daemon = serde_json::from_str::<Daemon>(text);
    let mirrors = daemon.map(|daemon| daemon.registry_mirrors).unwrap_or_default();
    mirrors.iter().filter_map(|url| Mirror::parse(url, repository, false)).collect()
}

fn from_podman(file: &Path, host: &str, repository: &str) -> Vec<Mirror> {
    let all: Vec<RegistryEntry> = registries_conf::read(file).into_iter().map(|(_, registry)| registry).collect();
    from_registries_conf(&all, host, repository)
}

/// Returns the mirrors of the registry with the longest matching prefix.
pub(super) fn from_registries_conf(all: &[RegistryEntry], host: &str, repository: &str) -> Vec<Mirror> {
    let matching = all.iter().filter_map(|own| Some((own, own.path_below(host, repository)?)));
    let Some((own, rest)) = matching.max_by_key(|(own, _)| own.prefix().len()) else { return Vec::new() };
    let mirror = |entry: &MirrorEntry| {
        let mirror = Mirror::parse(&entry.location, rest, entry.insecure)?;
        (entry.pull_from_mirror != "tag-only")
            .then_some(Mirror { resolves: entry.pull_from_mirror != "digest-only", ..mirror })
    };
    own.mirrors.iter().filter_map(mirror).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Formats `HOST REPOSITORY ROOT` and the flags.
    fn formatted(mirrors: Vec<Mirror>) -> Vec<String> {
        let one = |m: Mirror| {
            let marks = [(m.insecure, " insecure"), (!m.resolves, " no-tags"), (m.namespace.is_some(), " ns")];
            let marks: String = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark).collect();
            format!("{} {} {}{marks}", m.host, m.repository, m.root)
        };
        mirrors.into_iter().map(one).collect()
    }

    fn write(root: &Path, name: &str, text: &str) -> PathBuf {
        let file = root.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        file
    }

    #[test]
    fn containerds_and_dockers_files_name_their_mirrors() {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            "etc/containerd/certs.d/docker.io/hosts.toml",
            "server = \"https://last.lan/cache\"\n[host.\"https://one.lan:5000/v2\"]\n  capabilities = [\"pull\", \"resolve\"]\n\
             # [host.\"https://not.lan\"]\n[host.\"http://two.lan\"]\n[host.\"https://push.lan\"]\n capabilities = [\"push\"]\n\
             [host.\"https://x.lan/v2/hub\"]\noverride_path = true\ncapabilities = [\n\"pull\"]\nskip_verify = true\n\
             [host.\"https://y.lan/../v2\"]\n",
        );
        write(
            root.path(),
            "etc/docker/daemon.json",
            r#"{"registry-mirrors": ["https://three.lan/", "ftp://x", "https://one.lan:5000"]}"#,
        );
        let expected = [
            "one.lan:5000 library/app /v2 ns",
            "two.lan library/app /v2 insecure ns",
            "x.lan library/app /v2/hub insecure no-tags ns",
            "last.lan library/app /cache/v2 ns",
            "three.lan library/app /v2",
        ];
        assert_eq!(formatted(configured_mirrors(DEFAULT_REGISTRY, "library/app", root.path()))[..5], expected);
        assert_eq!(formatted(from_containerd(root.path(), "other.lan", "app")), Vec::<String>::new());
    }

    #[test]
    fn podmans_files_name_mirrors_below_paths_of_the_longest_prefix() {
        let root = tempfile::tempdir().unwrap();
        let file = write(
            root.path(),
            "registries.conf",
            "[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"four.lan/hub\"\n\
             insecure = true\n[[registry]]\nlocation = \"quay.lan\"\n[[registry.mirror]]\nlocation = \"five.lan\"\n",
        );
        write(
            root.path(),
            "registries.conf.d/more.conf",
            "[[registry]]\nprefix = \"docker.io/team\"\nlocation = \"docker.io/team\"\n[[registry.mirror]]\n\
             location = \"six.lan/a/b\"\npull-from-mirror = \"digest-only\"\n[[registry]]\nprefix = \"*.sub.lan\"\n\
             [[registry.mirror]]\nlocation = \"seven.lan\"\n",
        );
        for (host, repository, expected) in [
            ("docker.io", "library/app", &["four.lan hub/library/app /v2 insecure"][..]),
            ("docker.io", "team/app", &["six.lan a/b/app /v2 no-tags"]),
            ("quay.lan", "app", &["five.lan app /v2"]),
            ("a.sub.lan", "app", &["seven.lan app /v2"]),
            ("sub.lan", "app", &[]),
            ("other.lan", "app", &[]),
        ] {
            assert_eq!(formatted(from_podman(&file, host, repository)), expected, "{host}/{repository}");
        }
    }
}
