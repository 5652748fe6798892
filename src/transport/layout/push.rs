//! A layout that a registry's clients push to: uploads become blobs, manifests become entries of `index.json`, and what
//! is deleted goes. Blobs are shared between layouts by hard links, so that each layout is whole for every other tool.

use super::directory::{INDEX_FILE, Place};
use super::index;
use super::sink::Whole;
use super::upload;
use super::upload::Upload;
use super::{partial, temp_file};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::image::{Algorithm, Descriptor, Digest, LayoutIndex, MAX_MANIFEST_BYTES, Manifest, Name};
use crate::progress::Watch;
use crate::transfer::BlobWriter;
use crate::transfer::Verified;
use rustix::fs::{AtFlags, linkat, renameat, statat, unlinkat};
use rustix::io::Errno;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// One repository's layout, open for pushing. Others may read and write it meanwhile.
#[derive(Clone)]
pub struct PushedLayout {
    place: Arc<Place>,
    watch: Arc<dyn Watch>,
    cancel: Cancel,
}

impl PushedLayout {
    /// The layout in `dir`, made with what leads to it where there is none.
    pub fn create(dir: &Path, watch: Arc<dyn Watch>, cancel: &Cancel) -> Result<PushedLayout> {
        let place = Arc::new(Place::create(dir)?);
        let layout = PushedLayout { place, watch, cancel: cancel.clone() };
        if !layout.place.is_layout()? || layout.place.folder.size(INDEX_FILE)?.is_none() {
            layout.rewrite(|_| {})?;
        }
        Ok(layout)
    }

    /// The layout in `dir`; `None` where there is none, or one that is just being made.
    pub fn open(dir: &Path, watch: Arc<dyn Watch>, cancel: &Cancel) -> Result<Option<PushedLayout>> {
        match Place::open(dir)? {
            Some(place) if place.is_layout()? && place.folder.size(INDEX_FILE)?.is_some() => {
                Ok(Some(PushedLayout { place: Arc::new(place), watch, cancel: cancel.clone() }))
            }
            _ => Ok(None),
        }
    }

    /// Whether this is still the directory `dir`, which may have been removed or replaced meanwhile.
    pub fn is_at(&self, dir: &Path) -> bool {
        match (rustix::fs::fstat(self.place.folder.fd()), std::fs::metadata(dir)) {
            (Ok(open), Ok(named)) => (open.st_dev, open.st_ino) == (named.dev(), named.ino()),
            _ => false,
        }
    }

    /// A folder of blobs without images, which layouts beside it share (see [`PushedLayout::share`]).
    pub fn pool(dir: &Path, watch: Arc<dyn Watch>, cancel: &Cancel) -> Result<PushedLayout> {
        Ok(PushedLayout { place: Arc::new(Place::create(dir)?), watch, cancel: cancel.clone() })
    }

    /// Begins an upload whose digest will probably be of `algorithm`.
    pub fn begin(&self, algorithm: Algorithm) -> Result<Upload> {
        Upload::begin(&self.place, algorithm, &self.cancel)
    }

    /// The upload `id`; `None` where there is none, or somebody has it.
    pub fn take_up(&self, id: &str) -> Result<Option<Upload>> {
        match upload::is_id(id) {
            true => Upload::take_up(&self.place, id, &self.cancel),
            false => Ok(None),
        }
    }

    /// Makes `upload` the blob `digest`, shared with `pool`.
    ///
    /// Fails with `Invalid` where it is another blob; then nothing of it stays.
    pub fn keep(&self, upload: Upload, digest: &Digest, pool: &PushedLayout) -> Result<Verified> {
        let verified = upload.finish(&upload::claim(digest))?;
        self.share(digest, pool)?;
        Ok(verified)
    }

    /// Size in bytes of the blob `digest`.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        self.place.size(digest)
    }

    /// Takes the blob `digest` over from `from`: by a second name where the file system can, else by a copy. Says
    /// whether `from` has it.
    pub fn mount(&self, digest: &Digest, from: &PushedLayout) -> Result<bool> {
        match link(&from.place, &self.place, digest)? {
            Linked::Made | Linked::There => Ok(true),
            Linked::Absent => Ok(false),
            Linked::Cannot => {
                let Some(mut bytes) = from.place.blob(digest)? else { return Ok(false) };
                let mut upload = self.begin(digest.algorithm())?;
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

    /// One blob in both: `pool` gets it, or this layout takes the one that is there. Only disk space depends on it.
    fn share(&self, digest: &Digest, pool: &PushedLayout) -> Result<()> {
        if link(&self.place, &pool.place, digest)? != Linked::There || self.is_shared(digest, pool)? {
            return Ok(());
        }
        let right = pool.size(digest)? == self.size(digest)?;
        let (good, other) = if right { (pool, self) } else { (self, pool) };
        replace_by_link(&good.place, &other.place, digest)
    }

    fn is_shared(&self, digest: &Digest, pool: &PushedLayout) -> Result<bool> {
        Ok(matches!((inode(&self.place, digest)?, inode(&pool.place, digest)?), (Some(one), Some(two)) if one == two))
    }

    /// The first of what `manifest` points at that is not here: then it must not be kept.
    pub fn lacking(&self, manifest: &Manifest) -> Result<Option<Digest>> {
        for needed in manifest.blobs().into_iter().chain(manifest.children()) {
            match self.place.size(&needed.digest)? {
                Some(size) if size == needed.size => {}
                _ => return Ok(Some(needed.digest)),
            }
        }
        Ok(None)
    }

    /// Keeps `manifest`, under `tag` (none: its digest alone). What had the tag before stays, without it.
    pub fn put_manifest(&self, manifest: &Manifest, tag: Option<&str>) -> Result<()> {
        let mut whole = Whole::new(&self.place, false)?;
        whole.write(&manifest.bytes)?;
        whole.keep(&manifest.digest())?;
        let name = tag.map(Name::new).transpose()?;
        let entry = manifest.descriptor.clone();
        // They are found through the index that lists them, unless they refer to something themselves.
        let children: Vec<Digest> = manifest.children().iter().map(|child| child.digest).collect();
        let children: Vec<Digest> = children.into_iter().filter(|child| !self.refers(child)).collect();
        self.rewrite(|index| {
            if let Some(tag) = tag {
                let before = index.remove_tag(tag);
                self.keep_referrers(index, before.into_iter().filter(|before| *before != entry.digest));
            }
            index.point(name.as_ref(), &entry);
            if name.is_some() {
                index.remove_unnamed(&children);
            }
        })
    }

    /// Takes `tag` off; says whether there was one. The manifest stays.
    pub fn untag(&self, tag: &str) -> Result<bool> {
        let mut had = false;
        self.rewrite(|index| {
            let before = index.remove_tag(tag);
            had = !before.is_empty();
            self.keep_referrers(index, before.into_iter());
        })?;
        Ok(had)
    }

    /// Removes the manifest `digest` with all its tags; says whether there was one.
    pub fn remove_manifest(&self, digest: &Digest) -> Result<bool> {
        if self.manifest(digest).is_none() {
            return Ok(false);
        }
        // The names first: nothing is named that is not there.
        self.rewrite(|index| {
            index.remove_digest(digest);
        })?;
        self.unlink(digest)?;
        Ok(true)
    }

    /// Removes the blob `digest`; says whether there was one. Where no other layout shares it, `pool` lets it go too.
    ///
    /// A manifest is none, while `index.json` lists it.
    pub fn remove_blob(&self, digest: &Digest, pool: &PushedLayout) -> Result<bool> {
        let listed = self.place.index()?.map(|index| index.entries()).transpose()?.unwrap_or_default();
        if listed.iter().any(|entry| entry.digest == *digest) || !self.unlink(digest)? {
            return Ok(false);
        }
        pool.let_go(digest)?;
        Ok(true)
    }

    /// Removes a blob of a pool that no layout shares any more. One that is being mounted meanwhile has its second
    /// name already, or will be found missing and sent.
    fn let_go(&self, digest: &Digest) -> Result<()> {
        match inode(&self.place, digest)? {
            Some((_, _, 1)) => self.unlink(digest).map(drop),
            _ => Ok(()),
        }
    }

    fn unlink(&self, digest: &Digest) -> Result<bool> {
        let Some(blobs) = self.place.blobs(digest.algorithm())? else { return Ok(false) };
        match unlinkat(blobs.fd(), digest.hex(), AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(Error::writing(blobs.display(&digest.hex()), error.into())),
        }
    }

    /// Removes uploads that nobody has written to for `life`, and what killed processes left; how many uploads.
    pub fn expire(&self, life: Duration) -> usize {
        temp_file::sweep(&self.place.folder);
        partial::sweep(&self.place, life);
        upload::sweep(&self.place.folder, life)
    }

    /// What refers to something stays listed, since it is found by nothing else.
    fn keep_referrers(&self, index: &mut LayoutIndex, digests: impl Iterator<Item = Digest>) {
        for manifest in digests.filter_map(|digest| self.manifest(&digest)).filter(|m| m.subject.is_some()) {
            index.point(None, &manifest.descriptor);
        }
    }

    fn refers(&self, digest: &Digest) -> bool {
        self.manifest(digest).is_some_and(|manifest| manifest.subject.is_some())
    }

    /// The manifest `digest`, if there is one and it is one.
    fn manifest(&self, digest: &Digest) -> Option<Manifest> {
        let blobs = self.place.blobs(digest.algorithm()).ok()??;
        let bytes = blobs.read(&digest.hex(), MAX_MANIFEST_BYTES).ok()??;
        let claim = Descriptor::new("", *digest, bytes.len() as u64);
        Manifest::parse(bytes, &claim).ok()
    }

    fn rewrite(&self, change: impl FnOnce(&mut LayoutIndex)) -> Result<()> {
        index::rewrite(&self.place, &*self.watch, &self.cancel, change)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Linked {
    Made,
    /// The other place has one by that digest.
    There,
    Absent,
    /// Not on this file system.
    Cannot,
}

fn link(from: &Place, to: &Place, digest: &Digest) -> Result<Linked> {
    let Some(source) = from.blobs(digest.algorithm())? else { return Ok(Linked::Absent) };
    let target = to.make_blobs(digest.algorithm())?;
    match linkat(source.fd(), digest.hex(), target.fd(), digest.hex(), AtFlags::empty()) {
        Ok(()) => Ok(Linked::Made),
        Err(Errno::EXIST) => Ok(Linked::There),
        Err(Errno::NOENT) => Ok(Linked::Absent),
        Err(Errno::XDEV | Errno::PERM | Errno::MLINK | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(Linked::Cannot),
        Err(error) => Err(Error::writing(target.display(&digest.hex()), error.into())),
    }
}

/// Puts a second name of the blob in `good` where `other` has a file of its own. Readers of that one keep it.
fn replace_by_link(good: &Place, other: &Place, digest: &Digest) -> Result<()> {
    let (Some(source), target) = (good.blobs(digest.algorithm())?, other.make_blobs(digest.algorithm())?) else {
        return Ok(());
    };
    let name = temp_file::fresh_name();
    if linkat(source.fd(), digest.hex(), other.folder.fd(), &name, AtFlags::empty()).is_ok() {
        let renamed = renameat(other.folder.fd(), &name, target.fd(), digest.hex());
        if renamed.is_err() {
            let _ = unlinkat(other.folder.fd(), &name, AtFlags::empty());
        }
    }
    Ok(())
}

/// Device, inode and number of names of a blob.
fn inode(place: &Place, digest: &Digest) -> Result<Option<(u64, u64, u64)>> {
    let Some(blobs) = place.blobs(digest.algorithm())? else { return Ok(None) };
    let found = statat(blobs.fd(), digest.hex(), AtFlags::SYMLINK_NOFOLLOW).ok();
    Ok(found.map(|found| (found.st_dev, found.st_ino, found.st_nlink)))
}
