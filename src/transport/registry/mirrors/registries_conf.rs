//! containers-registries.conf(5), as far as it says of a registry where its mirrors are and whether it is insecure.

use super::toml;
use super::toml::settings;
use crate::transport::registry::auth::files::config_home;
use std::fs;
use std::path::{Path, PathBuf};

/// Of one `.d` directory.
const MAX_FILES: usize = 64;

/// A `[[registry]]` with its mirrors, as they are written.
#[derive(Debug, Default)]
pub struct RegistryEntry {
    pub prefix: Option<String>,
    pub location: String,
    pub insecure: bool,
    pub mirrors: Vec<MirrorEntry>,
}

#[derive(Debug, Default)]
pub struct MirrorEntry {
    pub location: String,
    pub insecure: bool,
    /// `pull-from-mirror`.
    pub only: String,
}

impl RegistryEntry {
    pub fn prefix(&self) -> &str {
        self.prefix.as_deref().unwrap_or(&self.location)
    }

    /// Where its images are.
    pub fn location(&self) -> &str {
        if self.location.is_empty() { self.prefix() } else { &self.location }
    }

    /// What of `host/repository` lies behind this one's prefix: of several registries the longest prefix counts.
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

/// The file that counts: the user's own, else that of the system below `root` (`/`).
pub fn path(root: &Path) -> Option<PathBuf> {
    let own = config_home().map(|home| home.join("containers/registries.conf"));
    let shared = root.join("etc/containers/registries.conf");
    [own, Some(shared)].into_iter().flatten().find(|file| file.is_file())
}

/// The registries of `file` and of what is in `registries.conf.d` beside it, each with the file that has it.
pub fn read(file: &Path) -> Vec<(PathBuf, RegistryEntry)> {
    let mut all = Vec::new();
    for file in files(file) {
        let found = toml::read(&file).map(|text| parse(&text)).unwrap_or_default();
        all.extend(found.into_iter().map(|registry| (file.clone(), registry)));
    }
    all
}

/// `registries.conf` and what is in `registries.conf.d` beside it.
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
            ("registry.mirror", "pull-from-mirror", Some(mirror)) => mirror.only = setting.text().to_owned(),
            _ => {}
        }
    }
    all
}
