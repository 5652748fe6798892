//! A layout that clients of `serve` push to: uploads become blobs, manifests become entries of `index.json`, and both
//! can be deleted. Layouts share blobs by hard links, so that each layout is complete for other tools.

use super::directory::{INDEX_FILE, LayoutDirectory};
use super::index;
use super::upload;
use super::upload::Upload;
use crate::blob_files::{TempFileWriter, partial, temp_file};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::image::{Algorithm, Descriptor, Digest, LayoutIndex, MAX_MANIFEST_BYTES, Manifest, Name};
use crate::progress::Watch;
use crate::transfer::BlobWriter;
use crate::transfer::Verified;
use rustix::fs::{AtFlags, linkat, renameat, statat, unlinkat};
use rustix::io::Errno;
use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The layout of one repository, open for pushes. Other processes may read and write it at the same time.
#[derive(Clone)]
pub struct PushedLayout {
    layout: Arc<LayoutDirectory>,
    watch: Arc<dyn Watch>,
    cancel: Cancel,
}

impl PushedLayout {
    /// Opens the layout in `dir`; creates it and its parent directories if they are missing.
    pub fn create(dir: &Path, watch: Arc<dyn Watch>, cancel: &Cancel) -> Result<PushedLayout> {
        let layout = Arc::new(LayoutDirectory::create(dir)?);
        let layout = PushedLayout { layout, watch, cancel: cancel.clone() };
        if !layout.layout.is_layout()? || layout.layout.directory.size(INDEX_FILE)?.is_none() {
            layout.rewrite(|_| {})?;
        }
        Ok(layout)
    }

    /// Opens the layout in `dir`; `None` if it is missing or still being created.
    pub fn open(dir: &Path, watch: Arc<dyn Watch>, cancel: &Cancel) -> Result<Option<PushedLayout>> {
        match LayoutDirectory::open(dir)? {
            Some(layout) if layout.is_layout()? && layout.directory.size(INDEX_FILE)?.is_some() => {
                Ok(Some(PushedLayout { layout: Arc::new(layout), watch, cancel: cancel.clone() }))
            }
            _ => Ok(None),
        }
    }

    /// Whether `dir` is still the opened directory, and was not removed or replaced.
    pub fn is_at(&self, dir: &Path) -> bool {
        match (rustix::fs::fstat(self.layout.directory.fd()), std::fs::metadata(dir)) {
            (Ok(open), Ok(named)) => (open.st_dev, open.st_ino) == (named.dev(), named.ino()),
            _ => false,
        }
    }

    /// Opens or creates `dir` as a pool: a directory of blobs without images, shared by layouts on the same file system
    /// (see [`PushedLayout::share`]).
    pub fn pool(dir: &Path, watch: Arc<dyn Watch>, cancel: &Cancel) -> Result<PushedLayout> {
        Ok(PushedLayout { layout: Arc::new(LayoutDirectory::create(dir)?), watch, cancel: cancel.clone() })
    }

    /// Starts an upload, hashed with `algorithm`, the likely algorithm of its digest.
    pub fn start_upload(&self, algorithm: Algorithm) -> Result<Upload> {
        Upload::create(&self.layout, algorithm, &self.cancel)
    }

    /// Opens the upload `id`; `None` if it is missing or locked.
    pub fn resume_upload(&self, id: &str) -> Result<Option<Upload>> {
        match upload::is_id(id) {
            true => Upload::resume(&self.layout, id, &self.cancel),
            false => Ok(None),
        }
    }

    /// Verifies `upload`, renames it to the blob `digest` and shares the blob with `pool`.
    ///
    /// Fails with `Invalid` if the bytes have another digest; the upload is then removed.
    pub fn finish_upload(&self, upload: Upload, digest: &Digest, pool: &PushedLayout) -> Result<Verified> {
        let verified = upload.finish(&upload::claim(digest))?;
        self.share(digest, pool)?;
        Ok(verified)
    }

    /// The size of the blob `digest`, in bytes; `None` if it is missing.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        self.layout.size(digest)
    }

    /// Mounts the blob `digest` of `from`: by a hard link if the file system supports it, else by a copy. Returns
    /// whether `from` has the blob.
    pub fn mount(&self, digest: &Digest, from: &PushedLayout) -> Result<bool> {
        match link(&from.layout, &self.layout, digest)? {
            Linked::Created | Linked::Exists => Ok(true),
            Linked::Missing => Ok(false),
            Linked::Unsupported => {
                let Some(mut bytes) = from.layout.blob(digest)? else { return Ok(false) };
                let mut upload = self.start_upload(digest.algorithm())?;
                let mut buffer = vec![0; 256 << 10];
                loop {
                    self.cancel.check()?;
                    match std::io::Read::read(&mut bytes, &mut buffer) {
                        Ok(0) => break,
                        Ok(n) => upload.write(&buffer[..n])?,
                        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(Error::reading(format!("blob {digest}"), error)),
                    }
                }
                upload.finish(&upload::claim(digest))?;
                Ok(true)
            }
        }
    }

    /// Makes this layout and `pool` share one file of the blob `digest`, to save disk space: `pool` gets a link, or
    /// this layout links the pool's file.
    fn share(&self, digest: &Digest, pool: &PushedLayout) -> Result<()> {
        if link(&self.layout, &pool.layout, digest)? != Linked::Exists || self.is_shared(digest, pool)? {
            return Ok(());
        }
        // If the sizes differ, the pool's file is the damaged one.
        let is_intact = pool.size(digest)? == self.size(digest)?;
        let (good, other) = if is_intact { (pool, self) } else { (self, pool) };
        replace_by_link(&good.layout, &other.layout, digest)
    }

    fn is_shared(&self, digest: &Digest, pool: &PushedLayout) -> Result<bool> {
        Ok(matches!((inode(&self.layout, digest)?, inode(&pool.layout, digest)?), (Some(one), Some(two)) if one == two))
    }

    /// The first blob of `manifest` that is missing here; such a manifest must not be stored. An index needs one of its
    /// children, since a client may push only some platforms of an image.
    pub fn first_missing(&self, manifest: &Manifest) -> Result<Option<Digest>> {
        let mut missing = None;
        for needed in manifest.blobs() {
            if !self.has_blob(needed)? {
                return Ok(Some(needed.digest));
            }
        }
        for child in manifest.children() {
            match self.has_blob(child)? {
                true => return Ok(None),
                false => missing = missing.or(Some(child.digest)),
            }
        }
        Ok(missing)
    }

    fn has_blob(&self, blob: &Descriptor) -> Result<bool> {
        Ok(self.layout.size(&blob.digest)? == Some(blob.size))
    }

    /// Stores `manifest` with `tag`, or only by digest. A manifest that had the tag before stays, without the tag.
    pub fn put_manifest(&self, manifest: &Manifest, tag: Option<&str>) -> Result<()> {
        let mut writer = TempFileWriter::new(&*self.layout, false)?;
        writer.write(&manifest.bytes)?;
        writer.commit_as(&manifest.digest())?;
        let name = tag.map(Name::new).transpose()?;
        let entry = manifest.descriptor.clone();
        let children: HashSet<Digest> = manifest.children().iter().map(|child| child.digest).collect();
        self.rewrite(|index| {
            if let Some(tag) = tag {
                let before = index.remove_tag(tag);
                self.keep_referrers(index, before.into_iter().filter(|before| *before != entry.digest));
            }
            index.point(name.as_ref(), &entry);
            if name.is_some() {
                // Children need no entry, except referrers: the index that lists the children leads to them.
                let mut unnamed = index.unnamed(&children);
                unnamed.retain(|child| !self.is_referrer(child));
                index.remove_unnamed(&unnamed);
            }
        })
    }

    /// Removes `name`; returns whether it existed. The manifest stays.
    pub fn remove_name(&self, name: &Name) -> Result<bool> {
        let mut existed = false;
        self.rewrite(|index| {
            let before = index.target(name);
            existed = index.remove(name);
            self.keep_referrers(index, before.into_iter());
        })?;
        Ok(existed)
    }

    /// Removes `tag`; returns whether it existed. The manifest stays.
    pub fn untag(&self, tag: &str) -> Result<bool> {
        let mut had = false;
        self.rewrite(|index| {
            let before = index.remove_tag(tag);
            had = !before.is_empty();
            self.keep_referrers(index, before.into_iter());
        })?;
        Ok(had)
    }

    /// Removes the manifest `digest` and its tags; returns whether it existed.
    pub fn remove_manifest(&self, digest: &Digest) -> Result<bool> {
        if self.manifest(digest).is_none() {
            return Ok(false);
        }
        // The names first, so that no name points to a missing manifest.
        self.rewrite(|index| {
            index.remove_digest(digest);
        })?;
        self.unlink(digest)?;
        Ok(true)
    }

    /// Removes the blob `digest`, and the pool's file if no other layout shares it; returns whether the blob existed.
    ///
    /// A manifest listed in `index.json` does not count as a blob.
    pub fn remove_blob(&self, digest: &Digest, pool: &PushedLayout) -> Result<bool> {
        let listed = self.layout.index()?.map(|index| index.entries()).transpose()?.unwrap_or_default();
        if listed.iter().any(|entry| entry.digest == *digest) || !self.unlink(digest)? {
            return Ok(false);
        }
        pool.remove_unshared(digest)?;
        Ok(true)
    }

    /// Removes a pool's blob that no layout shares any more. A concurrent mount has made its link already, or finds the
    /// blob missing, and the client then sends it.
    fn remove_unshared(&self, digest: &Digest) -> Result<()> {
        match inode(&self.layout, digest)? {
            Some((_, _, 1)) => self.unlink(digest).map(drop),
            _ => Ok(()),
        }
    }

    fn unlink(&self, digest: &Digest) -> Result<bool> {
        let Some(blobs) = self.layout.blobs(digest.algorithm())? else { return Ok(false) };
        match unlinkat(blobs.fd(), digest.hex(), AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(Error::writing(blobs.display(&digest.hex()), error.into())),
        }
    }

    /// Removes uploads without a write for `lifetime`, and files of killed processes; returns the number of uploads
    /// removed.
    pub fn remove_expired(&self, lifetime: Duration) -> usize {
        temp_file::sweep(&self.layout.directory);
        partial::remove_expired(&*self.layout, lifetime);
        upload::remove_expired(&self.layout.directory, lifetime)
    }

    /// Lists those of `digests` that are referrers: only the index leads to them.
    fn keep_referrers(&self, index: &mut LayoutIndex, digests: impl Iterator<Item = Digest>) {
        for manifest in digests.filter_map(|digest| self.manifest(&digest)).filter(|m| m.subject.is_some()) {
            index.point(None, &manifest.descriptor);
        }
    }

    fn is_referrer(&self, digest: &Digest) -> bool {
        self.manifest(digest).is_some_and(|manifest| manifest.subject.is_some())
    }

    /// The manifest `digest`; `None` if it is missing or not a manifest.
    fn manifest(&self, digest: &Digest) -> Option<Manifest> {
        let blobs = self.layout.blobs(digest.algorithm()).ok()??;
        let bytes = blobs.read(&digest.hex(), MAX_MANIFEST_BYTES).ok()??;
        let claim = Descriptor::new("", *digest, bytes.len() as u64);
        Manifest::parse(bytes, &claim).ok()
    }

    fn rewrite(&self, change: impl FnOnce(&mut LayoutIndex)) -> Result<()> {
        index::rewrite(&self.layout, &*self.watch, &self.cancel, change)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Linked {
    Created,
    /// The target layout has a file with that digest.
    Exists,
    /// The source layout does not have the blob.
    Missing,
    /// The file system cannot link the file.
    Unsupported,
}

/// Hard-links the blob `digest` of `from` into `to`.
fn link(from: &LayoutDirectory, to: &LayoutDirectory, digest: &Digest) -> Result<Linked> {
    let Some(source) = from.blobs(digest.algorithm())? else { return Ok(Linked::Missing) };
    let target = to.make_blobs(digest.algorithm())?;
    match linkat(source.fd(), digest.hex(), target.fd(), digest.hex(), AtFlags::empty()) {
        Ok(()) => Ok(Linked::Created),
        Err(Errno::EXIST) => Ok(Linked::Exists),
        Err(Errno::NOENT) => Ok(Linked::Missing),
        Err(Errno::XDEV | Errno::PERM | Errno::MLINK | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(Linked::Unsupported),
        Err(error) => Err(Error::writing(target.display(&digest.hex()), error.into())),
    }
}

/// Replaces the blob's file in `other` by a hard link to that in `good`. Open readers keep the old file.
fn replace_by_link(good: &LayoutDirectory, other: &LayoutDirectory, digest: &Digest) -> Result<()> {
    let (Some(source), target) = (good.blobs(digest.algorithm())?, other.make_blobs(digest.algorithm())?) else {
        return Ok(());
    };
    let name = temp_file::fresh_name();
    if linkat(source.fd(), digest.hex(), other.directory.fd(), &name, AtFlags::empty()).is_ok() {
        let renamed = renameat(other.directory.fd(), &name, target.fd(), digest.hex());
        if renamed.is_err() {
            let _ = unlinkat(other.directory.fd(), &name, AtFlags::empty());
        }
    }
    Ok(())
}

/// The device, inode and link count of a blob.
fn inode(layout: &LayoutDirectory, digest: &Digest) -> Result<Option<(u64, u64, u64)>> {
    let Some(blobs) = layout.blobs(digest.algorithm())? else { return Ok(None) };
    let found = statat(blobs.fd(), digest.hex(), AtFlags::SYMLINK_NOFOLLOW).ok();
    Ok(found.map(|found| (found.st_dev, found.st_ino, found.st_nlink)))
}
