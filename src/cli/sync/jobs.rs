//! The images to copy, each with its source, and its name at each destination.

use super::entry::{EntrySource, SyncEntry, Target, TargetKind};
use super::listing::Found;
use super::lock::LockFile;
use crate::cli::address::{self, Address};
use crate::image::Reference;
use crate::sets::ListedTag;
use crate::{Error, Result};
use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};

/// One image, or all images of a source that is not a repository.
#[derive(Clone, Copy)]
pub struct Job<'e> {
    /// The index of the entry in the set.
    pub at: usize,
    pub entry: &'e SyncEntry,
    /// The tag or digest in the entry's repository; none: the whole source.
    pub image: Option<&'e ListedTag>,
}

impl<'e> Job<'e> {
    /// The reference of the image at its source; none if the source is not a repository.
    ///
    /// # Errors
    /// - `Usage`: the tag or digest is not valid.
    pub fn reference(&self) -> Result<Option<Reference>> {
        let (EntrySource::Listed(repository, _) | EntrySource::Filtered(repository, _), Some(image)) =
            (&self.entry.source, self.image)
        else {
            return Ok(None);
        };
        let separator = if image.from.contains(':') { '@' } else { ':' };
        let reference = format!("{repository}{separator}{}", image.from).parse();
        reference.map(Some).map_err(|error: Error| error.at(&self.entry.place))
    }

    /// The source, for messages.
    pub fn from(&self) -> String {
        match self.reference() {
            Ok(Some(reference)) => reference.to_string(),
            _ => self.entry.from(),
        }
    }

    /// The address to read. With `lock` a tag is read by its digest there.
    ///
    /// # Errors
    /// - `NotFound`: the lock file does not have the image.
    pub fn source(&self, lock: Option<&LockFile>) -> Result<Box<dyn Address>> {
        let word = match (self.reference()?, lock) {
            (Some(image), Some(lock)) if image.digest.is_none() => {
                let missing = || Error::not_found(format!("{image} is not in the lock file; run without --locked"));
                let digest = lock.digest(&image).ok_or_else(missing)?;
                format!("docker://{}@{digest}", image.full_repository())
            }
            (Some(image), _) => format!("docker://{image}"),
            (None, Some(_)) => {
                let from = self.from();
                return Err(Error::usage(format!("{from} is not an image of a registry; --locked needs one")));
            }
            (None, None) => self.entry.from(),
        };
        address::parse(OsStr::new(&word))
    }

    /// The name of the image at `target`; none if the source is not a repository.
    pub fn name_at(&self, target: &Target, keep_host: bool) -> Result<Option<Reference>> {
        let tag = self.image.and_then(|image| image.to.as_deref());
        self.reference()?.map(|reference| target.name(&reference, tag, keep_host)).transpose()
    }

    /// The destinations that are written image by image.
    pub fn targets(&self) -> impl Iterator<Item = &'e Target> {
        self.entry.targets.iter().filter(|target| !matches!(target.kind, TargetKind::Once))
    }
}

/// All images of a destination that is written once.
pub struct Together<'e> {
    pub target: &'e Target,
    pub jobs: Vec<Job<'e>>,
}

/// The work of a run.
#[derive(Default)]
pub struct Jobs<'e> {
    /// Images that are copied one by one.
    pub each: Vec<Job<'e>>,
    pub together: Vec<Together<'e>>,
    names: Names,
}

/// The destinations' names by hash, with the hash of the source: two sources for one name are refused.
#[derive(Default)]
struct Names {
    hasher: RandomState,
    sources: HashMap<u64, u64>,
}

impl<'e> Jobs<'e> {
    /// Adds the images that `entry` has.
    ///
    /// # Errors
    /// - `Usage`: two images would get one name, or a name is not valid.
    pub fn add(&mut self, at: usize, entry: &'e SyncEntry, found: &'e Found, keep_host: bool) -> Result<()> {
        let images: Vec<Option<&ListedTag>> = match found {
            Found::Tags { tags, .. } => tags.iter().map(Some).collect(),
            Found::Whole => vec![None],
        };
        for image in images {
            let job = Job { at, entry, image };
            let mut is_new = false;
            for target in &entry.targets {
                let is_first = self.names.take(&job, target, keep_host)?;
                is_new |= is_first;
                if let (TargetKind::Once, true) = (&target.kind, is_first) {
                    self.add_together(target, job)?;
                }
            }
            if is_new && job.targets().next().is_some() {
                self.each.push(job);
            }
        }
        Ok(())
    }

    fn add_together(&mut self, target: &'e Target, job: Job<'e>) -> Result<()> {
        let identity = |target: &Target| Ok::<_, Error>(target.address(None)?.identity());
        let wanted = identity(target)?;
        for together in &mut self.together {
            if together.target.word == target.word || wanted.is_some() && identity(together.target)? == wanted {
                together.jobs.push(job);
                return Ok(());
            }
        }
        self.together.push(Together { target, jobs: vec![job] });
        Ok(())
    }
}

impl Names {
    /// Whether the name of `job` at `target` is new. The same image under the same name is copied once.
    fn take(&mut self, job: &Job<'_>, target: &Target, keep_host: bool) -> Result<bool> {
        let Some(name) = job.name_at(target, keep_host)? else { return Ok(true) };
        let place = if let TargetKind::Directory | TargetKind::Once = target.kind { &*target.word } else { "" };
        let (to, from) = (self.hasher.hash_one((place, &name)), self.hasher.hash_one(job.reference()?));
        match self.sources.entry(to) {
            Slot::Vacant(slot) => {
                slot.insert(from);
                Ok(true)
            }
            Slot::Occupied(before) if *before.get() == from => Ok(false),
            Slot::Occupied(_) => Err(Error::usage(format!(
                "{}: {} would get the name {name}, which another image of the set has; change one destination, or \
                 add --keep-host",
                job.entry.place,
                job.from()
            ))),
        }
    }
}
