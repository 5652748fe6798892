//! containers-registries.conf(5), as far as it says of a registry where its mirrors are and whether it is insecure.

use super::toml;
use super::toml::lines;
use crate::transport::registry::auth::files::config_home;
use std::fs;
use std::path::{Path, PathBuf};

/// Of one `.d` directory.
const MAX_FILES: usize = 64;

/// A `[[registry]]` with its mirrors, as they are written.
#[derive(Debug, Default)]
pub struct Registry {
    pub prefix: Option<String>,
    pub location: String,
    pub insecure: bool,
    pub mirrors: Vec<Written>,
}

#[derive(Debug, Default)]
pub struct Written {
    pub location: String,
    pub insecure: bool,
    /// `pull-from-mirror`.
    pub only: String,
}

impl Registry {
    pub fn prefix(&self) -> &str {
        self.prefix.as_deref().unwrap_or(&self.location)
    }

    /// Where its images are.
    pub fn location(&self) -> &str {
        if self.location.is_empty() { self.prefix() } else { &self.location }
    }

    /// What of `host/repository` lies behind this one's prefix: of several registries the longest prefix counts.
    pub fn behind<'r>(&self, host: &str, repository: &'r str) -> Option<&'r str> {
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
pub fn place(root: &Path) -> Option<PathBuf> {
    let own = config_home().map(|home| home.join("containers/registries.conf"));
    let shared = root.join("etc/containers/registries.conf");
    [own, Some(shared)].into_iter().flatten().find(|file| file.is_file())
}

/// The registries of `file` and of what is in `registries.conf.d` beside it, each with the file that has it.
pub fn read(file: &Path) -> Vec<(PathBuf, Registry)> {
    let mut all = Vec::new();
    for file in files(file) {
        let found = toml::read(&file).map(|text| registries(&text)).unwrap_or_default();
        all.extend(found.into_iter().map(|registry| (file.clone(), registry)));
    }
    all
}

/// `registries.conf` and what is in `registries.conf.d` beside it.
fn files(file: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(file.with_extension("conf.d")).into_iter().flatten().flatten();
    let mut more: Vec<PathBuf> = entries.take(MAX_FILES).map(|entry| entry.path()).collect();
    more.retain(|file| file.extension().is_some_and(|ending| ending == "conf"));
    more.sort();
    [vec![file.to_owned()], more].concat()
}

pub fn registries(text: &str) -> Vec<Registry> {
    let mut all: Vec<Registry> = Vec::new();
    for line in lines(text) {
        let section = &*line.section;
        if (section, &*line.key) == ("registry", "") {
            all.push(Registry::default());
        }
        let Some(registry) = all.last_mut() else { continue };
        if (section, &*line.key) == ("registry.mirror", "") {
            registry.mirrors.push(Written::default());
        }
        match (section, &*line.key, registry.mirrors.last_mut()) {
            ("registry", "prefix", _) => registry.prefix = Some(line.text().to_owned()),
            ("registry", "insecure", _) => registry.insecure = line.is_true(),
            ("registry", "location", _) => registry.location = line.text().to_owned(),
            ("registry.mirror", "location", Some(mirror)) => mirror.location = line.text().to_owned(),
            ("registry.mirror", "insecure", Some(mirror)) => mirror.insecure = line.is_true(),
            ("registry.mirror", "pull-from-mirror", Some(mirror)) => mirror.only = line.text().to_owned(),
            _ => {}
        }
    }
    all
}
