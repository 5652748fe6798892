//! containers-registries.conf(5): the mirrors of a registry, and whether it is insecure.

use super::toml;
use super::toml::settings;
use crate::transport::registry::auth::files::config_home;
use std::fs;
use std::path::{Path, PathBuf};

/// The limit on files of one `.d` directory.
const MAX_FILES: usize = 64;

/// A `[[registry]]` and its mirrors, as written in the file.
#[derive(Debug, Default)]
pub struct RegistryEntry {
    pub prefix: Option<String>,
    pub location: String,
    pub insecure: bool,
    pub mirrors: Vec<MirrorEntry>,
}

/// A `[[registry.mirror]]`, as written in the file.
#[derive(Debug, Default)]
pub struct MirrorEntry {
    pub location: String,
    pub insecure: bool,
    pub pull_from_mirror: String,
}

impl RegistryEntry {
    pub fn prefix(&self) -> &str {
        self.prefix.as_deref().unwrap_or(&self.location)
    }

    /// Returns the location of its images.
    pub fn location(&self) -> &str {
        if self.location.is_empty() { self.prefix() } else { &self.location }
    }

    /// Returns the part of `host/repository` after this entry's prefix. Of several entries, the longest prefix applies.
    pub fn path_below<'r>(&self, host: &str, repository: &'r str) -> Option<&'r str> {
        let (own, path) = self.prefix().split_once('/').unwrap_or((self.prefix(), ""));
        let hosts = match own.strip_prefix('*') {
            Some(domain) => domain.starts_with('.') && host.ends_with(domain),
            None => own == host,
        };
        let rest = if path.is_empty() { Some(repository) } else { repository.strip_prefix(path)?.strip_prefix('/') };
        rest.filter(|rest| hosts && !rest.is_empty())
    }
}

/// Returns the file in effect: the user's own, else the system's below `root` (`/`).
pub fn path(root: &Path) -> Option<PathBuf> {
    let own = config_home().map(|home| home.join("containers/registries.conf"));
    let shared = root.join("etc/containers/registries.conf");
    [own, Some(shared)].into_iter().flatten().find(|file| file.is_file())
}

/// Reads the registries of `file` and of its `registries.conf.d`, each with its file.
pub fn read(file: &Path) -> Vec<(PathBuf, RegistryEntry)> {
    let mut all = Vec::new();
    for file in files(file) {
        let found = toml::read(&file).map(|text| parse(&text)).unwrap_or_default();
        all.extend(found.into_iter().map(|registry| (file.clone(), registry)));
    }
    all
}

/// Returns `registries.conf` and the files of its `registries.conf.d`.
fn files(file: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(file.with_extension("conf.d")).into_iter().flatten().flatten();
    let mut drop_ins: Vec<PathBuf> = entries.take(MAX_FILES).map(|entry| entry.path()).collect();
    drop_ins.retain(|file| file.extension().is_some_and(|ending| ending == "conf"));
    drop_ins.sort();
    [vec![file.to_owned()], drop_ins].concat()
}

pub fn parse(text: &str) -> Vec<RegistryEntry> {
    let mut all: Vec<RegistryEntry> = Vec::new();
    for setting in settings(text) {
        let section = &*setting.section;
        if (section, &*setting.key) == ("registry", "") {
            all.push(RegistryEntry::default());
        }
        let Some(registry) = all.last_mut() else { continue };
        if (section, &*setting.key) == ("registry.mirror", "") {
            registry.mirrors.push(MirrorEntry::default());
        }
        match (section, &*setting.key, registry.mirrors.last_mut()) {
            ("registry", "prefix", _) => registry.prefix = Some(setting.text().to_owned()),
            ("registry", "insecure", _) => registry.insecure = setting.is_true(),
            ("registry", "location", _) => registry.location = setting.text().to_owned(),
            ("registry.mirror", "location", Some(mirror)) => mirror.location = setting.text().to_owned(),
            ("registry.mirror", "insecure", Some(mirror)) => mirror.insecure = setting.is_true(),
            ("registry.mirror", "pull-from-mirror", Some(mirror)) => {
                mirror.pull_from_mirror = setting.text().to_owned()
            }
            _ => {}
        }
    }
    all
}
