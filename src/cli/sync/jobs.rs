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
#[derive(Clone)]
pub struct Job<'e> {
    /// The index of the entry in the set.
    pub at: usize,
    pub entry: &'e SyncEntry,
    /// The tag or digest in the entry's repository; none: the whole source.
    pub image: Option<&'e ListedTag>,
    /// The indexes of the destinations that an earlier entry has with the same image and name.
    pub written: Box<[usize]>,
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
        let targets = self.entry.targets.iter().enumerate();
        targets
            .filter(|(at, target)| !matches!(target.kind, TargetKind::Once) && !self.written.contains(at))
            .map(|(_, target)| target)
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
            let job = Job { at, entry, image, written: Box::default() };
            let mut written = Vec::new();
            for (nth, target) in entry.targets.iter().enumerate() {
                if !self.names.take(&job, target, keep_host)? {
                    written.push(nth);
                } else if let TargetKind::Once = target.kind {
                    self.add_together(target, job.clone());
                }
            }
            let job = Job { written: written.into(), ..job };
            if job.targets().next().is_some() {
                self.each.push(job);
            }
        }
        Ok(())
    }

    fn add_together(&mut self, target: &'e Target, job: Job<'e>) {
        match self.together.iter_mut().find(|together| together.target.place == target.place) {
            Some(together) => together.jobs.push(job),
            None => self.together.push(Together { target, jobs: vec![job] }),
        }
    }
}

impl Names {
    /// Whether the name of `job` at `target` is new. The same image and platforms under the same name are copied once.
    fn take(&mut self, job: &Job<'_>, target: &Target, keep_host: bool) -> Result<bool> {
        let Some(name) = job.name_at(target, keep_host)? else { return Ok(true) };
        let place = if let TargetKind::Directory | TargetKind::Once = target.kind { &*target.place } else { "" };
        let platforms: Vec<String> = job.entry.platforms.iter().map(ToString::to_string).collect();
        let (to, from) = (self.hasher.hash_one((place, &name)), self.hasher.hash_one((job.reference()?, platforms)));
        match self.sources.entry(to) {
            Slot::Vacant(slot) => {
                slot.insert(from);
                Ok(true)
            }
            Slot::Occupied(before) if *before.get() == from => Ok(false),
            Slot::Occupied(_) => Err(Error::usage(format!(
                "{}: {} would get the name {name}, which an earlier entry gives to another image or to other platforms; \
                 change one destination, or add --keep-host",
                job.entry.place,
                job.from()
            ))),
        }
    }
}
