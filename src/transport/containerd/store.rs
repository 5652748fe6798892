//! containerd's directory as a source.

use super::records;
use super::records::{Listing, Record};
use crate::disk::directory::Directory;
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest, Name};
use crate::source::{Profile, Root, Selector, Store, select, with_unlisted};
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

const DATABASE: [&str; 2] = ["io.containerd.metadata.v1.bolt", "meta.db"];
const CONTENT: [&str; 2] = ["io.containerd.content.v1.content", "blobs"];
/// The maximum number of blobs kept open: half of a process's usual limit of open files.
const MAX_OPEN_BLOBS: usize = 512;

/// The images in containerd's directory, as its database listed them when the store was opened.
///
/// Blobs are read from the content store whichever namespace they belong to: the digest identifies them.
pub struct ContainerdStore {
    root: String,
    namespaces: Vec<String>,
    /// The requested namespace; `None`: all.
    namespace: Option<String>,
    records: Vec<Record>,
    content: Option<Directory>,
    /// The open blobs of the manifests read so far, since containerd may garbage-collect them before they are copied.
    opened: Mutex<HashMap<Digest, Arc<File>>>,
}

impl ContainerdStore {
    /// Opens the directory `root` (usually `/var/lib/containerd`), for the images of `namespace` or of all namespaces.
    ///
    /// Fails with `NotFound` if the directory or namespace is missing, with `Denied` if root's permission is needed,
    /// and with `Invalid` if `root` is not containerd's directory or its database is damaged.
    pub fn open(root: &Path, namespace: Option<&str>) -> Result<ContainerdStore> {
        let directory = Directory::open(root).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Error::not_found(format!(
                "no containerd directory at {}; name another one with --src-root",
                root.display()
            )),
            _ => with_root_hint(Error::reading(root.display(), e)),
        })?;
        let Listing { namespaces, mut records } = database(&directory)?;
        if let Some(namespace) = namespace {
            if !namespaces.iter().any(|existing| existing == namespace) {
                return Err(Error::not_found(format!(
                    "containerd at {} has no namespace {namespace}; its namespaces: {}",
                    root.display(),
                    if namespaces.is_empty() { "none".to_owned() } else { namespaces.join(", ") }
                )));
            }
            records.retain(|record| record.namespace == namespace);
        }
        let content = inside(&directory, CONTENT[0])?;
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

    /// All namespaces.
    pub fn namespaces(&self) -> &[String] {
        &self.namespaces
    }

    /// All names of the requested namespaces.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The records as roots, each name and image once. Images that only have CRI's id come last, without a name.
    fn all(&self) -> Vec<Root> {
        let mut seen = BTreeSet::new();
        let (ids, named): (Vec<&Record>, Vec<&Record>) = self.records.iter().partition(|record| is_id(record));
        let mut roots = Vec::new();
        for record in named.iter().filter(|record| seen.insert((&record.name, record.target.digest))) {
            // An image whose name is invalid is listed by its digest.
            roots.push(Root::new(Name::new(record.name.as_str()).ok(), record.target.clone()));
        }
        for record in ids {
            if !roots.iter().any(|root| root.descriptor.digest == record.target.digest) {
                roots.push(Root::new(None, record.target.clone()));
            }
        }
        roots
    }

    /// The image with CRI's id `text` (`sha256:` and its config's digest).
    fn by_id(&self, text: &str) -> Option<Root> {
        let record = self.records.iter().find(|record| record.name == text && is_id(record))?;
        Some(Root::new(None, record.target.clone()))
    }

    /// Fails with `Usage` if a name of `chosen` has different images in different namespaces.
    fn check_unambiguous(&self, chosen: &[Root]) -> Result<()> {
        for root in chosen {
            let Some(name) = &root.name else { continue };
            let same: Vec<&Record> = self.records.iter().filter(|record| record.name == name.as_str()).collect();
            if same.iter().any(|record| record.target.digest != root.descriptor.digest) {
                let namespaces: Vec<String> =
                    same.iter().map(|r| format!("{} ({})", r.namespace, r.target.digest.short())).collect();
                return Err(Error::usage(format!(
                    "{name} is ambiguous: the namespaces {} have different images; choose one with --src-namespace",
                    namespaces.join(", ")
                )));
            }
        }
        Ok(())
    }

    fn file(&self, digest: &Digest) -> Result<Option<File>> {
        let Some(content) = &self.content else { return Ok(None) };
        match inside(content, digest.algorithm().name())? {
            Some(blobs) => blobs.file(&digest.hex()).map_err(with_root_hint),
            None => Ok(None),
        }
    }

    fn opened(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Arc<File>>> {
        self.opened.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Opens a blob and keeps it open, up to [`MAX_OPEN_BLOBS`].
    fn keep_open(&self, digest: &Digest) -> Result<Option<Arc<File>>> {
        if let Some(file) = self.opened().get(digest) {
            return Ok(Some(file.clone()));
        }
        let Some(file) = self.file(digest)?.map(Arc::new) else { return Ok(None) };
        let mut opened = self.opened();
        if opened.len() < MAX_OPEN_BLOBS {
            opened.insert(*digest, file.clone());
        }
        Ok(Some(file))
    }

    fn missing(&self, blob: &Descriptor) -> Error {
        let (digest, root) = (blob.digest, &self.root);
        let namespace = self.namespace.as_deref().unwrap_or("NAMESPACE");
        if !blob.media_type.contains("layer") && !blob.media_type.contains("rootfs") {
            return Error::not_found(format!("blob {digest} is not in containerd's content store at {root}"));
        }
        Error::not_found(format!(
            "containerd at {root} has the image, but not its layer {digest}: with discard_unpacked_layers it discards \
             layers after unpacking; fetch them again with `ctr -n {namespace} content fetch IMAGE`, or copy from the \
             image's registry"
        ))
    }
}

impl Store for ContainerdStore {
    fn roots(&self, selectors: &[Selector]) -> Result<Vec<Root>> {
        let read = |digest: &Digest| Ok(self.manifest(&Descriptor::new("", *digest, 0)).ok());
        let all = with_unlisted(self.all(), selectors, read)?.into_owned();
        let mut chosen = Vec::new();
        for selector in selectors {
            if let Selector::Name(text) = selector {
                if let Some(root) = self.by_id(text) {
                    chosen.push(root);
                    continue;
                }
                let is_named = |root: &&Root| root.name.as_ref().is_some_and(|name| name.as_str() == text);
                self.check_unambiguous(&all.iter().filter(is_named).cloned().collect::<Vec<_>>())?;
            }
            let found = select(&all, std::slice::from_ref(selector));
            chosen.extend(found.map_err(|e| e.at(format!("containerd at {}", self.root)))?);
        }
        let chosen = if selectors.is_empty() { all } else { chosen };
        self.check_unambiguous(&chosen)?;
        Ok(chosen)
    }

    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        let file = self.keep_open(&at.digest)?;
        let file = file.ok_or_else(|| {
            Error::not_found(format!("manifest {} is not in containerd's content store at {}", at.digest, self.root))
        })?;
        let mut bytes = Vec::new();
        let read = BlobAt { file, at: 0 }.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|e| Error::reading(format!("manifest {}", at.digest), e))?;
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(Error::invalid(format!("manifest {} has more than {MAX_MANIFEST_BYTES} bytes", at.digest)));
        }
        if let Ok(manifest) = Manifest::parse(bytes.clone(), at) {
            for blob in manifest.blobs() {
                self.keep_open(&blob.digest)?;
            }
        }
        Ok(bytes)
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        let file = self.keep_open(&blob.digest)?.ok_or_else(|| self.missing(blob))?;
        Ok(Box::new(BlobAt { file, at: from }))
    }

    fn file_of(&self, digest: &Digest) -> Option<String> {
        let blobs = inside(self.content.as_ref()?, digest.algorithm().name()).ok().flatten()?;
        Some(blobs.display(&digest.hex()))
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

    /// containerd stores an index with the image of one platform only.
    fn profile(&self) -> Profile {
        let all = self.namespaces.join(", ");
        let empty_message = match &self.namespace {
            Some(namespace) => format!("containerd at {} has no image in its namespace {namespace}", self.root),
            None => format!("containerd at {} has no image in any of its namespaces ({all})", self.root),
        };
        Profile { is_sparse: true, empty_message, ..Profile::default() }
    }
}

/// Reads a shared file from an offset, without the file's own position.
struct BlobAt {
    file: Arc<File>,
    at: u64,
}

impl Read for BlobAt {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

fn database(root: &Directory) -> Result<Listing> {
    let directory = inside(root, DATABASE[0])?;
    let file = directory.as_ref().map(|directory| directory.file(DATABASE[1]).map_err(with_root_hint));
    let file = file.transpose()?.flatten();
    let shown = root.display(&DATABASE.join("/"));
    let file = file.ok_or_else(|| {
        Error::invalid(format!("{} is not containerd's directory: {shown} is missing", root.path().display()))
    })?;
    records::listing(&file).map_err(|e| e.at(shown))
}

fn inside(directory: &Directory, name: &str) -> Result<Option<Directory>> {
    directory.subdirectory(name).map_err(with_root_hint)
}

/// Adds the solution to a permission error.
fn with_root_hint(error: Error) -> Error {
    match error.kind() {
        Kind::Denied => Error::denied(format!("{error}; containerd's directory belongs to root: run imgmv as root")),
        _ => error,
    }
}

/// Whether the record is an image id: CRI gives each image a second name that is its config's digest.
fn is_id(record: &Record) -> bool {
    record.name.parse::<Digest>().is_ok()
}
