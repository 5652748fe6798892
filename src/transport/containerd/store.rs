//! containerd's directory as a source.

use super::records;
use super::records::{Listing, Record};
use crate::disk::directory::Directory;
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, MAX_MANIFEST, Manifest, Name};
use crate::source::{Profile, Root, Selector, Store, select, unnamed_root};
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

const DATABASE: [&str; 2] = ["io.containerd.metadata.v1.bolt", "meta.db"];
const CONTENT: [&str; 2] = ["io.containerd.content.v1.content", "blobs"];
/// Blobs that are kept open from the plan on, at most: half of what a process may usually have.
const KEPT_OPEN: usize = 512;

/// The images of a containerd directory, as its database named them when it was opened.
///
/// A blob is read if it is in the content store, whichever namespace it was brought there for: it is what its digest
/// says.
pub struct ContainerdStore {
    root: String,
    namespaces: Vec<String>,
    /// The one that was asked for; none: every one.
    namespace: Option<String>,
    records: Vec<Record>,
    content: Option<Directory>,
    /// Blobs of the manifests that were read: containerd may collect them before it is their turn.
    opened: Mutex<HashMap<Digest, Arc<File>>>,
}

impl ContainerdStore {
    /// Opens the directory `root` (`/var/lib/containerd`, usually), for the images of `namespace`, or of all.
    ///
    /// Fails with `NotFound` where there is no such directory or namespace, with `Denied` where it cannot be read (it
    /// is root's), and with `Invalid` where it is not containerd's or its database is damaged.
    pub fn open(root: &Path, namespace: Option<&str>) -> Result<ContainerdStore> {
        let folder = Directory::open(root).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Error::not_found(format!(
                "there is no containerd directory at {}; --src-root names another",
                root.display()
            )),
            _ => rooted(Error::reading(root.display(), e)),
        })?;
        let Listing { namespaces, mut records } = database(&folder)?;
        if let Some(namespace) = namespace {
            if !namespaces.iter().any(|there| there == namespace) {
                return Err(Error::not_found(format!(
                    "containerd at {} has no namespace {namespace}; there is {}",
                    root.display(),
                    if namespaces.is_empty() { "none".to_owned() } else { namespaces.join(", ") }
                )));
            }
            records.retain(|record| record.namespace == namespace);
        }
        let content = inside(&folder, CONTENT[0])?;
        let content = content.map(|content| inside(&content, CONTENT[1])).transpose()?.flatten();
        Ok(ContainerdStore {
            root: root.display().to_string(),
            namespaces,
            namespace: namespace.map(str::to_owned),
            records,
            content,
            opened: Mutex::default(),
        })
    }

    /// Every namespace there is.
    pub fn namespaces(&self) -> &[String] {
        &self.namespaces
    }

    /// Every name there is, with its namespace.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The records as roots, each image of a name once; those that only CRI calls so come last and without a name.
    fn all(&self) -> Vec<Root> {
        let mut seen = BTreeSet::new();
        let (ids, named): (Vec<&Record>, Vec<&Record>) = self.records.iter().partition(|record| is_id(record));
        let mut roots = Vec::new();
        for record in named.iter().filter(|record| seen.insert((&record.name, record.target.digest))) {
            // A name that is not fit to be used is none; the image is there by its digest.
            roots.push(Root::new(Name::new(record.name.as_str()).ok(), record.target.clone()));
        }
        for record in ids {
            if !roots.iter().any(|root| root.descriptor.digest == record.target.digest) {
                roots.push(Root::new(None, record.target.clone()));
            }
        }
        roots
    }

    /// The image that CRI calls `text` (`sha256:` and its config's digest).
    fn by_id(&self, text: &str) -> Option<Root> {
        let record = self.records.iter().find(|record| record.name == text && is_id(record))?;
        Some(Root::new(None, record.target.clone()))
    }

    /// One name may stand for different images in different namespaces.
    fn unambiguous(&self, chosen: &[Root]) -> Result<()> {
        for root in chosen {
            let Some(name) = &root.name else { continue };
            let same: Vec<&Record> = self.records.iter().filter(|record| record.name == name.as_str()).collect();
            if same.iter().any(|record| record.target.digest != root.descriptor.digest) {
                let places: Vec<String> =
                    same.iter().map(|r| format!("{} ({})", r.namespace, r.target.digest.short())).collect();
                return Err(Error::usage(format!(
                    "{name} is another image in each of the namespaces {}; choose one with --src-namespace",
                    places.join(", ")
                )));
            }
        }
        Ok(())
    }

    fn file(&self, digest: &Digest) -> Result<Option<File>> {
        let Some(content) = &self.content else { return Ok(None) };
        match inside(content, digest.algorithm().name())? {
            Some(blobs) => blobs.file(&digest.hex()).map_err(rooted),
            None => Ok(None),
        }
    }

    fn opened(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Arc<File>>> {
        self.opened.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The blob, kept open from now on as long as there is room.
    fn keep_open(&self, digest: &Digest) -> Result<Option<Arc<File>>> {
        if let Some(file) = self.opened().get(digest) {
            return Ok(Some(file.clone()));
        }
        let Some(file) = self.file(digest)?.map(Arc::new) else { return Ok(None) };
        let mut opened = self.opened();
        if opened.len() < KEPT_OPEN {
            opened.insert(*digest, file.clone());
        }
        Ok(Some(file))
    }

    fn lacks(&self, blob: &Descriptor) -> Error {
        let (digest, root) = (blob.digest, &self.root);
        let namespace = self.namespace.as_deref().unwrap_or("NAMESPACE");
        if !blob.media_type.contains("layer") && !blob.media_type.contains("rootfs") {
            return Error::not_found(format!("blob {digest} is not in containerd's content store at {root}"));
        }
        Error::not_found(format!(
            "containerd at {root} has the image but no longer its layer {digest}: it discards layers once they are \
             unpacked where discard_unpacked_layers is set; fetch them again with `ctr -n {namespace} content fetch \
             IMAGE`, or copy from the image's registry"
        ))
    }
}

impl Store for ContainerdStore {
    fn roots(&self, picks: &[Selector]) -> Result<Vec<Root>> {
        let all = self.all();
        let mut chosen = Vec::new();
        for pick in picks {
            let id = match pick {
                Selector::Name(text) => self.by_id(text),
                Selector::Digest(digest) if all.iter().all(|root| root.descriptor.digest != *digest) => {
                    let bytes = self.manifest(&Descriptor::new("", *digest, 0));
                    bytes.ok().and_then(|bytes| unnamed_root(digest, bytes))
                }
                Selector::Digest(_) => None,
            };
            match id {
                Some(root) => chosen.push(root),
                None => {
                    if let Selector::Name(text) = pick {
                        let answers = |root: &&Root| root.name.as_ref().is_some_and(|name| name.as_str() == text);
                        self.unambiguous(&all.iter().filter(answers).cloned().collect::<Vec<_>>())?;
                    }
                    let found = select(&all, std::slice::from_ref(pick));
                    chosen.extend(found.map_err(|e| e.at(format!("containerd at {}", self.root)))?);
                }
            }
        }
        let chosen = if picks.is_empty() { all } else { chosen };
        self.unambiguous(&chosen)?;
        Ok(chosen)
    }

    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        let file = self.keep_open(&at.digest)?;
        let file = file.ok_or_else(|| {
            Error::not_found(format!("manifest {} is not in containerd's content store at {}", at.digest, self.root))
        })?;
        let mut bytes = Vec::new();
        let read = At { file, at: 0 }.take(MAX_MANIFEST + 1).read_to_end(&mut bytes);
        read.map_err(|e| Error::reading(format!("manifest {}", at.digest), e))?;
        if bytes.len() as u64 > MAX_MANIFEST {
            return Err(Error::invalid(format!("manifest {} has more than {MAX_MANIFEST} bytes", at.digest)));
        }
        if let Ok(manifest) = Manifest::parse(bytes.clone(), at) {
            for blob in manifest.blobs() {
                self.keep_open(&blob.digest)?;
            }
        }
        Ok(bytes)
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        let file = self.keep_open(&blob.digest)?.ok_or_else(|| self.lacks(blob))?;
        Ok(Box::new(At { file, at: from }))
    }

    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        let Some(file) = self.keep_open(digest)? else { return Ok(None) };
        let size = file.metadata().map_err(|e| Error::reading(format!("blob {digest}"), e))?.len();
        let named = self.records.iter().find(|record| record.target.digest == *digest);
        let media_type = named.map_or("", |record| &record.target.media_type);
        Ok(Some(Descriptor::new(media_type, *digest, size)))
    }

    fn names(&self) -> Result<Vec<Name>> {
        let names: BTreeSet<Name> = self.all().into_iter().filter_map(|root| root.name).collect();
        Ok(names.into_iter().collect())
    }

    /// containerd keeps an index of which it has one platform's image.
    fn profile(&self) -> Profile {
        let there = self.namespaces.join(", ");
        let empty_message = match &self.namespace {
            Some(namespace) => format!("containerd at {} has no image in its namespace {namespace}", self.root),
            None => format!("containerd at {} has no image in any of its namespaces ({there})", self.root),
        };
        Profile { is_sparse: true, empty_message, ..Profile::default() }
    }
}

/// Reads on from an offset, without moving that of others who read the same file.
struct At {
    file: Arc<File>,
    at: u64,
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

fn database(root: &Directory) -> Result<Listing> {
    let place = inside(root, DATABASE[0])?;
    let file = place.as_ref().map(|place| place.file(DATABASE[1]).map_err(rooted)).transpose()?.flatten();
    let shown = root.show(&DATABASE.join("/"));
    let file = file.ok_or_else(|| {
        Error::invalid(format!("{} is not containerd's directory: there is no {shown}", root.path().display()))
    })?;
    records::listing(&file).map_err(|e| e.at(shown))
}

fn inside(folder: &Directory, name: &str) -> Result<Option<Directory>> {
    folder.inner(name).map_err(rooted)
}

/// What to do where permission is lacking.
fn rooted(error: Error) -> Error {
    match error.kind() {
        Kind::Denied => Error::denied(format!("{error}; containerd's directory is root's, so run this as root")),
        _ => error,
    }
}

/// CRI gives each image a second name that is its config's digest.
fn is_id(record: &Record) -> bool {
    record.name.parse::<Digest>().is_ok()
}
