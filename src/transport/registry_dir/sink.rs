//! A tree as a destination.

use super::harbor;
use super::image_name::in_tree;
use super::read_back::{self, NamedImage};
use super::repository::{LAYERS, MANIFESTS, REVISIONS, Repository};
use super::sink_referrers::StoredReferrers;
use super::sink_tree::{SinkTree, owner, refuse_mounts};
use super::tree::{Tree, open, root};
use crate::blob_files::{BlobCheck, BlobFiles, is_held, partial};
use crate::cancel::Cancel;
use crate::disk::PARTIAL_LIFETIME;
use crate::error::{Error, Kind, Result};
use crate::image::{Coding, Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest, Name};
use crate::progress::Watch;
use crate::sink::{Begin, Finish, Missing, Order, Shape, Sink, SinkCapabilities, Upcoming};
use crate::source::{Claim, Origin};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

const LANES: usize = 4;
/// A new tree may be made in a folder that has only this: the root of a file system.
const LOST_AND_FOUND: &str = "lost+found";
const MAX_ENTRIES: usize = 1000;

/// The storage tree of a registry as a destination. It is created with the first write.
pub struct RegistryDirSink {
    dir: PathBuf,
    /// The tree as it was found; `None` if it did not exist.
    found: Option<Tree>,
    made: OnceLock<SinkTree>,
    verify: BlobCheck,
    /// The time that partial files are kept.
    lifetime: Duration,
    /// The manifests that this copy stored.
    stored: Mutex<HashSet<Digest>>,
    /// The referrers that this copy stored.
    referrers: Mutex<StoredReferrers>,
    /// The images that this copy named.
    named: Mutex<Vec<NamedImage>>,
    watch: Arc<dyn Watch>,
    pub(super) cancel: Cancel,
}

impl RegistryDirSink {
    /// Opens the tree in `dir`, the `rootdirectory` of a registry or its `docker/registry/v2`. A missing tree is created
    /// with the first write.
    ///
    /// Fails with `Usage` if `dir` is a Harbor's tree, a file, or a directory with other content, and with `Denied` if
    /// new files cannot get the owner of the tree's files.
    pub fn open(dir: &Path, verify: BlobCheck, watch: Arc<dyn Watch>) -> Result<RegistryDirSink> {
        harbor::refuse(dir)?;
        let found = Tree::open(dir)?;
        if found.is_none() {
            refuse_other_content(dir)?;
        }
        if let Some(owner) = owner(dir)? {
            owner.check()?;
        }
        Ok(RegistryDirSink {
            dir: dir.to_owned(),
            found,
            made: OnceLock::new(),
            verify,
            lifetime: PARTIAL_LIFETIME,
            stored: Mutex::default(),
            referrers: Mutex::default(),
            named: Mutex::default(),
            watch,
            cancel: Cancel::default(),
        })
    }

    /// Sets how long partial files of interrupted copies are kept; the default is a week.
    pub fn keep_partials(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Stops hashing when `cancel` is raised.
    pub fn cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = cancel.clone();
        self
    }

    pub(super) fn tree(&self) -> Result<&SinkTree> {
        if self.made.get().is_none() {
            let made = SinkTree::create(&self.dir)?;
            self.made.get_or_init(|| made);
        }
        Ok(self.made.get().expect("set just now"))
    }

    fn files<'a>(&'a self, place: &'a SinkTree) -> BlobFiles<'a> {
        BlobFiles { place, verify: self.verify, sync: false, watch: &*self.watch, cancel: &self.cancel }
    }

    /// Writes the links of the image `root` in the repository whose folder is `repository`, children first. The tag is not
    /// written. Returns the digests of its manifests.
    pub(super) fn link_image(&self, repository: &str, root: &Descriptor) -> Result<Vec<Digest>> {
        let tree = self.tree()?;
        let folder = tree.repository(repository)?;
        let layers = tree.folder(&folder, &folder, &[LAYERS])?;
        let links = tree.folder(&folder, &folder, &[MANIFESTS])?;
        let revisions = tree.folder(&links, &links, &[REVISIONS])?;
        let manifests = read_back::manifests(&tree.tree, root, &self.stored())?;
        for at in &manifests {
            self.cancel.check()?;
            let manifest = read_back::manifest(&tree.tree, at)?;
            for blob in manifest.blobs() {
                if tree.tree.size(&blob.digest)? != Some(blob.size) {
                    return Err(Error::failed(format!(
                        "{} was removed during the copy; stop the registry's garbage collection and run the same \
                         command again",
                        tree.tree.blob_path(&blob.digest)
                    )));
                }
                tree.link(&folder, &layers, &blob.digest)?;
            }
            for blob in manifest.foreign_layers() {
                if tree.tree.size(&blob.digest)? == Some(blob.size) {
                    tree.link(&folder, &layers, &blob.digest)?;
                }
            }
            tree.link(&links, &revisions, &at.digest)?;
        }
        Ok(manifests.iter().map(|at| at.digest).collect())
    }

    /// Stores the bytes of `manifest`, without a link.
    pub(super) fn put_manifest_bytes(&self, manifest: &Manifest) -> Result<()> {
        self.files(self.tree()?).put(&manifest.bytes, &manifest.digest())
    }

    /// Takes note of `image` for [`RegistryDirSink::read_back`].
    pub(super) fn note_named(&self, image: NamedImage) {
        self.named.lock().unwrap_or_else(PoisonError::into_inner).push(image);
    }

    /// Checks that what was named still exists.
    fn read_back(&self) -> Result<()> {
        let Some(tree) = self.made.get() else { return Ok(()) };
        let named = std::mem::take(&mut *self.named.lock().unwrap_or_else(PoisonError::into_inner));
        let stored = self.stored();
        let mut failed = Vec::new();
        for image in &named {
            failed.extend(read_back::check(&tree.tree, image, &stored).err());
        }
        match (&failed[..], named.len()) {
            ([], _) => Ok(()),
            ([one], 1) => Err(one.clone()),
            (several, count) => {
                let causes: Vec<String> = several.iter().map(Error::to_string).collect();
                let message = format!("{} of {count} images in {} are incomplete", several.len(), self.dir.display());
                Err(Error::several(Kind::Partial, &message, &causes))
            }
        }
    }

    pub(super) fn referrers(&self) -> MutexGuard<'_, StoredReferrers> {
        self.referrers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stored(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fails with `Usage` if `dir` exists and has other content than a tree.
fn refuse_other_content(dir: &Path) -> Result<()> {
    let Some(found) = open(&root(dir))? else { return Ok(()) };
    let mut entries = std::fs::read_dir(found.path()).map_err(|e| Error::reading(found.path().display(), e))?;
    let is_other = |name: &std::ffi::OsStr| name != LOST_AND_FOUND && name != "docker" && !is_unfinished(name);
    let other = entries.by_ref().take(MAX_ENTRIES).flatten().map(|entry| entry.file_name());
    match other.into_iter().find(|name| is_other(name)) {
        None => Ok(()),
        Some(name) => Err(Error::usage(format!(
            "{} is not a registry's storage tree: it has no docker/registry/v2, but it has {:?}; name the rootdirectory \
             of the registry's configuration, or an empty directory for a new tree",
            dir.display(),
            name.to_string_lossy()
        ))),
    }
}

/// Whether an interrupted copy left the file.
fn is_unfinished(name: &std::ffi::OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(crate::blob_files::temp_file::PREFIX))
}

impl Sink for RegistryDirSink {
    /// An uncompressed layer is compressed, as for a registry: the image then has the same digest in both.
    fn capabilities(&self) -> SinkCapabilities {
        SinkCapabilities {
            shape: Shape::AsFound,
            order: Order::Parallel(LANES),
            large_uploads: None,
            compress: Some(Coding::Gzip),
            unsupported: &[],
            unnamed_blobs: true,
            unnamed_images: false,
            needs_replay: false,
            referrers: true,
        }
    }

    fn published(&self, name: &Name) -> Result<Option<Digest>> {
        let (_, repository, _) = place(Some(name))?;
        if let Some(tree) = &self.found {
            refuse_mounts(tree, &repository)?;
        }
        Ok(None)
    }

    fn missing(&self, upcoming: Upcoming<'_>) -> Result<Missing> {
        let dry_run = matches!(upcoming, Upcoming::Blobs { dry_run: true, .. });
        let blobs = upcoming.into_blobs();
        let tree = self.made.get().map(|made| &made.tree).or(self.found.as_ref());
        let Some(tree) = tree else { return Ok(Missing::new(blobs)) };
        let held = |blob: &Descriptor| is_held(tree, blob, self.verify, dry_run, &self.cancel);
        Ok(Missing::new(blobs.into_iter().filter(|blob| !held(blob)).collect()))
    }

    fn tagged(&self, name: &Name) -> Result<Option<Manifest>> {
        let (_, repository, tag) = place(Some(name))?;
        let tree = self.made.get().map(|made| &made.tree).or(self.found.as_ref());
        let (Some(tree), Some(tag)) = (tree, tag) else { return Ok(None) };
        let Some(repository) = tree.repository(&repository)? else { return Ok(None) };
        let data = match repository.tagged(&tag) {
            Ok((_, data)) => data,
            // A broken link is replaced.
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Invalid) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(bytes) = tree.read(&data, MAX_MANIFEST_BYTES)? else { return Ok(None) };
        let claim = Descriptor::new("", data, bytes.len() as u64);
        Ok(Manifest::parse(bytes, &claim).ok())
    }

    fn begin<'a>(&'a self, claim: &Claim, _from: Option<&Origin>) -> Result<Begin<'a>> {
        Ok(match self.files(self.tree()?).writer(claim)? {
            Some(writer) => Begin::Write(writer.boxed()),
            None => Begin::Held,
        })
    }

    fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        self.put_manifest_bytes(manifest)?;
        self.stored().insert(manifest.digest());
        Ok(())
    }

    /// A referrer without a name is linked with the images that it belongs to, which are named after it.
    fn publish(&self, name: Option<&Name>, root: &Manifest) -> Result<()> {
        if let (None, Some(subject)) = (name, &root.subject) {
            self.referrers().add(&subject.digest, root);
            return Ok(());
        }
        let (name, repository, tag) = place(name)?;
        // After a power cut no link leads to data that was not written.
        self.tree()?.sync()?;
        let manifests = self.link_image(&repository, &root.descriptor)?;
        self.link_referrers(&name, &repository, manifests)?;
        if let Some(tag) = &tag {
            let tree = self.tree()?;
            let folder = tree.repository(&repository)?;
            let manifests = tree.folder(&folder, &folder, &[MANIFESTS])?;
            tree.point(&manifests, tag, &root.digest())?;
        }
        self.note_named(NamedImage::new(&name, &repository, tag.as_deref(), &root.descriptor));
        Ok(())
    }

    fn finish(&self) -> Result<Finish> {
        if let Some(tree) = self.made.get() {
            tree.sweep();
            partial::remove_expired(tree, self.lifetime);
        }
        self.referrers().all_linked()?;
        self.read_back()?;
        Ok(Finish::Done)
    }

    /// Names that were published before the copy failed stay, so their images are checked too.
    fn aborted(&self, _why: &Error) {
        if let Err(error) = self.read_back() {
            self.watch.say(&error.to_string());
        }
    }
}

/// The repository and the tag of an image in the tree.
///
/// Fails with `Usage` if `name` has no repository.
fn place(name: Option<&Name>) -> Result<(Name, String, Option<String>)> {
    let name = name.ok_or_else(|| {
        Error::usage("a registry's storage tree has no images without a name; give one with --as, or in DST")
    })?;
    let path = name.reference().map(|reference| (reference.repository, reference.tag));
    // The name of an image of a tree may be longer than a reference can be.
    let path = path.or_else(|| in_tree(name).map(|reference| (reference.repository, reference.tag)));
    let (repository, tag) = path.ok_or_else(|| {
        Error::usage(format!(
            "the image name {name} has no repository, which a registry's storage tree needs; write DST as \
             registry-dir:DIR:REPO:TAG"
        ))
    })?;
    match repository.len() > Repository::MAX_NAME_BYTES {
        true => Err(Error::usage(format!("{name}: the repository's name is too long"))),
        false => Ok((name.clone(), repository, tag)),
    }
}
