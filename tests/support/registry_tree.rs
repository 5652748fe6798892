//! The storage tree of a registry, made and read without imgmv's own code for it.
#![allow(dead_code)]

use imgmv::{Descriptor, Digest, Hasher, Manifest};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A tree below a `rootdirectory`.
#[derive(Clone)]
pub struct RegistryTree(PathBuf);

impl RegistryTree {
    pub fn at(root: &Path) -> RegistryTree {
        RegistryTree(root.to_owned())
    }

    pub fn root(&self) -> &Path {
        &self.0
    }

    /// `docker/registry/v2`.
    pub fn base(&self) -> PathBuf {
        self.0.join("docker/registry/v2")
    }

    pub fn data(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.base().join("blobs").join(digest.algorithm().name()).join(&hex[..2]).join(&hex).join("data")
    }

    pub fn repository(&self, name: &str) -> PathBuf {
        self.base().join("repositories").join(name)
    }

    pub fn layer_link(&self, repository: &str, digest: &Digest) -> PathBuf {
        let link = format!("_layers/{}/{}/link", digest.algorithm().name(), digest.hex());
        self.repository(repository).join(link)
    }

    pub fn revision_link(&self, repository: &str, digest: &Digest) -> PathBuf {
        let link = format!("_manifests/revisions/{}/{}/link", digest.algorithm().name(), digest.hex());
        self.repository(repository).join(link)
    }

    pub fn tag_link(&self, repository: &str, tag: &str) -> PathBuf {
        self.repository(repository).join(format!("_manifests/tags/{tag}/current/link"))
    }

    pub fn index_link(&self, repository: &str, tag: &str, digest: &Digest) -> PathBuf {
        let link = format!("_manifests/tags/{tag}/index/{}/{}/link", digest.algorithm().name(), digest.hex());
        self.repository(repository).join(link)
    }

    pub fn put_data(&self, digest: &Digest, bytes: &[u8]) {
        write(&self.data(digest), bytes);
    }

    pub fn put_manifest(&self, repository: &str, digest: &Digest, bytes: &[u8]) {
        self.put_data(digest, bytes);
        write(&self.revision_link(repository, digest), digest.to_string().as_bytes());
    }

    pub fn put_layer(&self, repository: &str, digest: &Digest, bytes: &[u8]) {
        self.put_data(digest, bytes);
        write(&self.layer_link(repository, digest), digest.to_string().as_bytes());
    }

    pub fn put_tag(&self, repository: &str, tag: &str, digest: &Digest) {
        write(&self.index_link(repository, tag, digest), digest.to_string().as_bytes());
        write(&self.tag_link(repository, tag), digest.to_string().as_bytes());
    }

    /// The names of all repositories.
    pub fn repositories(&self) -> BTreeSet<String> {
        let all = self.base().join("repositories");
        let folders = walkdir::WalkDir::new(&all).into_iter().flatten();
        let manifests = folders.filter(|entry| entry.file_name() == "_manifests");
        let name =
            |entry: walkdir::DirEntry| entry.path().parent().unwrap().strip_prefix(&all).unwrap().display().to_string();
        manifests.map(name).collect()
    }

    /// The digest that each folder in `tags` points at. Each has one, as a registry's clients expect.
    pub fn tags(&self, repository: &str) -> BTreeMap<String, Digest> {
        let Ok(entries) = fs::read_dir(self.repository(repository).join("_manifests/tags")) else {
            return BTreeMap::new();
        };
        let tag = |entry: fs::DirEntry| {
            let tag = entry.file_name().into_string().unwrap();
            let digest = self.follow(&self.tag_link(repository, &tag)).unwrap_or_else(|| panic!("{tag} has no link"));
            assert_eq!(self.follow(&self.index_link(repository, &tag, &digest)), Some(digest), "{tag}");
            (tag, digest)
        };
        entries.flatten().map(tag).collect()
    }

    /// The content of a link file: exactly a digest.
    pub fn follow(&self, link: &Path) -> Option<Digest> {
        let text = fs::read_to_string(link).ok()?;
        Some(text.parse().unwrap_or_else(|error| panic!("{}: {error}", link.display())))
    }

    /// All blobs, by the digests of their paths.
    pub fn blobs(&self) -> BTreeMap<Digest, Vec<u8>> {
        let files = walkdir::WalkDir::new(self.base().join("blobs")).into_iter().flatten();
        let blobs = files.filter(|entry| entry.file_name() == "data").map(|entry| {
            let parts: Vec<String> =
                entry.path().iter().rev().take(4).map(|part| part.to_str().unwrap().to_owned()).collect();
            (format!("{}:{}", parts[3], parts[1]).parse().unwrap(), fs::read(entry.path()).unwrap())
        });
        blobs.collect()
    }

    /// Every tag leads to a manifest, and everything below it is there with its digest and its links. Returns the number
    /// of tags.
    pub fn resolves(&self) -> usize {
        let mut count = 0;
        for repository in self.repositories() {
            for digest in self.tags(&repository).values() {
                count += 1;
                let mut ahead = vec![*digest];
                while let Some(at) = ahead.pop() {
                    assert_eq!(self.follow(&self.revision_link(&repository, &at)), Some(at), "{repository} {at}");
                    let bytes = self.right(&at);
                    let claim = Descriptor::new("", at, bytes.len() as u64);
                    let manifest = Manifest::parse(bytes, &claim).unwrap();
                    ahead.extend(manifest.children().iter().map(|child| child.digest));
                    for blob in manifest.blobs() {
                        let link = self.layer_link(&repository, &blob.digest);
                        assert_eq!(self.follow(&link), Some(blob.digest), "{}", link.display());
                        assert_eq!(self.right(&blob.digest).len() as u64, blob.size);
                    }
                }
            }
        }
        count
    }

    fn right(&self, digest: &Digest) -> Vec<u8> {
        let bytes = fs::read(self.data(digest)).unwrap_or_else(|error| panic!("{digest}: {error}"));
        assert_eq!(Hasher::new(digest.algorithm()).with(&bytes).finish(), *digest);
        bytes
    }

    /// The paths of imgmv's unfinished files, below the base.
    pub fn unfinished(&self) -> Vec<String> {
        let files = walkdir::WalkDir::new(&self.0).into_iter().flatten();
        let unfinished = files.filter(|entry| entry.file_name().to_string_lossy().starts_with(".imgmv-"));
        unfinished.map(|entry| entry.path().strip_prefix(self.base()).unwrap().display().to_string()).collect()
    }
}

pub fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}
