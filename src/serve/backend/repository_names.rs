//! Maps the image names of a source to repositories and tags.
//!
//! `docker.io/library/app:2` is tag `2` of `library/app`, of `app`, and of `docker.io/library/app`. Images that have
//! only a tag, and untagged images, are in a repository named after the directory or file.

use super::catalog::RepositoryRequest;
use crate::image::{DEFAULT_REGISTRY, Descriptor, Digest, Name, is_repository, is_tag};
use crate::source::Root;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

/// The repository name if the name of the directory or file has no valid character.
const FALLBACK_NAME: &str = "image";

/// The tags of one repository.
#[derive(Debug, Default)]
pub struct Tags(BTreeMap<String, Descriptor>);

impl Tags {
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    pub fn get(&self, tag: &str) -> Option<&Descriptor> {
        self.0.get(tag)
    }

    /// The tagged manifest with `digest`, if one exists.
    pub fn by_digest(&self, digest: &Digest) -> Option<&Descriptor> {
        self.0.values().find(|entry| entry.digest == *digest)
    }
}

/// All repositories of one source.
#[derive(Debug, Default)]
pub struct RepositoryTable {
    /// Tags by `NAME` and by `HOST/NAME`.
    by_name: HashMap<String, std::sync::Arc<Tags>>,
    listed: BTreeSet<String>,
}

impl RepositoryTable {
    /// Builds the table of `roots`; images without a full name are in the repository `default_repository`.
    pub fn new(roots: Vec<Root>, default_repository: &str) -> RepositoryTable {
        let mut tags: BTreeMap<(Option<String>, String), Tags> = BTreeMap::new();
        for root in roots {
            let (host, repository, tag) = split_name(root.name.as_ref(), default_repository);
            let entry = tags.entry((host, repository)).or_default();
            if let Some(tag) = tag {
                entry.0.entry(tag).or_insert(root.descriptor);
            }
        }
        let mut hosts: HashMap<&str, usize> = HashMap::new();
        for (_, repository) in tags.keys() {
            *hosts.entry(repository).or_default() += 1;
        }
        let full = |host: &Option<String>, repository: &str| {
            host.as_ref().map_or_else(|| repository.to_owned(), |host| format!("{host}/{repository}"))
        };
        // A name that occurs with several hosts is listed with each host, if that is a valid repository name.
        let listed = tags.keys().filter_map(|(host, repository)| {
            let name = if hosts[&**repository] > 1 { full(host, repository) } else { repository.clone() };
            is_repository(&name).then_some(name)
        });
        let listed = listed.collect();
        let mut by_name: HashMap<String, Tags> = HashMap::new();
        for ((host, repository), tags) in tags {
            // The short name has the tags of all hosts. docker.io takes precedence, whatever the order.
            let docker = host.as_deref() == Some(DEFAULT_REGISTRY);
            let short = by_name.entry(repository.clone()).or_default();
            for (tag, at) in &tags.0 {
                if docker {
                    short.0.insert(tag.clone(), at.clone());
                } else {
                    short.0.entry(tag.clone()).or_insert_with(|| at.clone());
                }
            }
            if host.is_some() {
                by_name.insert(full(&host, &repository), tags);
            }
        }
        let by_name = by_name.into_iter().map(|(name, tags)| (name, tags.into())).collect();
        RepositoryTable { by_name, listed }
    }

    pub fn repositories(&self) -> impl Iterator<Item = &String> {
        self.listed.iter()
    }

    /// The tags of the requested repository. `ns` selects only images named for that registry.
    pub fn tags(&self, request: &RepositoryRequest) -> Option<std::sync::Arc<Tags>> {
        let found = match &request.ns {
            Some(ns) => self.by_name.get(&format!("{ns}/{}", request.name)),
            None => self.by_name.get(&request.name).or_else(|| match request.name.contains('/') {
                true => None,
                false => self.by_name.get(&format!("library/{}", request.name)),
            }),
        };
        found.cloned()
    }
}

/// Splits an image name into host, repository and tag.
fn split_name(name: Option<&Name>, default_repository: &str) -> (Option<String>, String, Option<String>) {
    match name.map(|name| (name, name.reference())) {
        Some((_, Some(reference))) => (Some(reference.host), reference.repository, reference.tag),
        Some((name, None)) if is_tag(name.as_str()) => (None, default_repository.to_owned(), Some(name.to_string())),
        _ => (None, default_repository.to_owned(), None),
    }
}

/// The repository for images without a full name in the directory or file at `path`: its file name without `.tar`,
/// reduced to the characters that a repository may have.
pub fn default_repository(path: &Path) -> String {
    let absolute = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = absolute.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name = name.strip_suffix(".tar").unwrap_or(&name);
    let fitting: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let parts: Vec<&str> = fitting.split('-').filter(|part| !part.is_empty()).collect();
    let name: String = parts.join("-").chars().take(128).collect();
    let name = name.trim_end_matches('-');
    if is_repository(name) { name.to_owned() } else { FALLBACK_NAME.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::backend::catalog::Search;

    fn table(names: &[Option<&str>]) -> RepositoryTable {
        let roots = names.iter().enumerate().map(|(at, name)| {
            Root::new(name.map(|name| Name::new(name).unwrap()), Descriptor::of("", at.to_string().as_bytes()))
        });
        RepositoryTable::new(roots.collect(), "mirror")
    }

    fn found(table: &RepositoryTable, name: &str, ns: Option<&str>) -> Vec<String> {
        let request =
            RepositoryRequest { name: name.into(), ns: ns.map(str::to_owned), user: None, search: Search::Everywhere };
        table.tags(&request).map(|tags| tags.names().cloned().collect()).unwrap_or_default()
    }

    #[test]
    fn an_image_is_found_by_its_own_name_and_by_its_hosts() {
        let table = table(&[Some("docker.io/library/app:2"), Some("v1"), None, Some("registry.lan:5000/team/app:3")]);
        assert_eq!(table.repositories().collect::<Vec<_>>(), ["library/app", "mirror", "team/app"]);
        for name in ["app", "library/app", "docker.io/library/app"] {
            assert_eq!(found(&table, name, None), ["2"], "{name}");
        }
        assert_eq!(found(&table, "team/app", Some("registry.lan:5000")), ["3"]);
        assert_eq!(found(&table, "team/app", None), ["3"]);
        assert_eq!(found(&table, "mirror", None), ["v1"]);
        assert!(found(&table, "library/app", Some("ghcr.io")).is_empty());
        assert!(found(&table, "mirror", Some("docker.io")).is_empty());
    }

    #[test]
    fn what_several_hosts_have_is_listed_with_each() {
        let table = table(&[Some("ghcr.io/org/app:1"), Some("docker.io/org/app:1"), Some("docker.io/org/app:2")]);
        assert_eq!(table.repositories().collect::<Vec<_>>(), ["docker.io/org/app", "ghcr.io/org/app"]);
        assert_eq!(found(&table, "org/app", None), ["1", "2"]);
        let request = RepositoryRequest { name: "org/app".into(), ns: None, user: None, search: Search::Everywhere };
        assert_eq!(table.tags(&request).unwrap().get("1").unwrap().digest, Digest::of(b"1"));
    }

    #[test]
    fn a_directory_gives_its_name_to_what_has_none() {
        for (path, name) in [
            ("/srv/mirror", "mirror"),
            ("./bundle.tar", "bundle"),
            ("/x/My Images_2.tar", "my-images-2"),
            ("/x/___", "image"),
            ("/x/\u{1f4e6}", "image"),
        ] {
            assert_eq!(default_repository(Path::new(path)), name, "{path}");
        }
    }
}
