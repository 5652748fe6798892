//! The copy of one image to its destinations. Its source is read once, whatever their number.

use super::entry::{Target, TargetKind};
use super::jobs::Job;
use super::lock::LockFile;
use super::outcome::{Done, Outcome, State};
use crate::cli::context::CliRun;
use crate::cli::open::{self, Opened, copy_options};
use crate::cli::output::terminal::lock;
use crate::cli::verbs::sync::SyncOptions;
use crate::copy::convert::Format;
use crate::copy::{Compress, Copied, Naming, Options, Platforms, Source};
use crate::fanout::{FanoutLimits, SharedStore};
use crate::image::{DEFAULT_REGISTRY, Descriptor, Digest, Name, Reference, media_type};
use crate::sink::Sink;
use crate::source::Selector;
use crate::transfer::TransferSlots;
use crate::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread;

/// The options of every copy of a run.
pub struct Transfer<'a> {
    pub options: &'a SyncOptions,
    /// `--locked`.
    pub lock: Option<&'a LockFile>,
    /// Images that are copied at the same time.
    pub copies: usize,
    /// The transfers of the run.
    pub slots: TransferSlots,
    /// The registries of which only the pulls of `--hub-reserve` are left, each with its error.
    pub reserved: &'a Mutex<BTreeMap<String, Error>>,
    /// Held by a copy to a layout or to several destinations: the next one finds the blobs that both need.
    pub turn: &'a Mutex<()>,
}

impl Transfer<'_> {
    /// Copies the image of `job` to each destination that is written image by image.
    pub fn copy(&self, job: &Job<'_>, run: &CliRun) -> Vec<Outcome> {
        let targets: Vec<&Target> = job.targets().collect();
        // Only the sinks of a registry know the blobs that other copies are sending.
        let knows_uploads = matches!(&targets[..], [target] if target.is_registry());
        let _turn = (!knows_uploads).then(|| lock(self.turn));
        let results = match self.check_pulls(job).and_then(|()| self.open(job, run)) {
            Ok(opened) => self.copy_opened(job, opened, &targets, run),
            Err(error) => targets.iter().map(|_| Err(error.clone())).collect(),
        };
        results.iter().filter_map(|result| result.as_ref().err()).for_each(|error| self.note_pulls(job, error));
        let outcome =
            |(target, result)| Outcome { entry: job.at, from: job.from(), to: self.label(job, target), result };
        targets.into_iter().zip(results).map(outcome).collect()
    }

    /// Fails if the registry of the image has only reserved pulls left.
    fn check_pulls(&self, job: &Job<'_>) -> Result<()> {
        let Some(image) = job.reference()? else { return Ok(()) };
        lock(self.reserved).get(&image.host).map_or(Ok(()), |error| Err(error.clone()))
    }

    fn note_pulls(&self, job: &Job<'_>, error: &Error) {
        if let (true, Ok(Some(image))) = (error.is_pull_limit(), job.reference()) {
            lock(self.reserved).insert(image.host, error.clone());
        }
    }

    /// The name at `target`, or the destination as the user wrote it.
    pub fn label(&self, job: &Job<'_>, target: &Target) -> String {
        match job.name_at(target, self.options.keep_host) {
            Ok(Some(name)) if target.is_registry() => name.to_string(),
            _ => target.word.to_string(),
        }
    }

    /// Opens the source of `job`.
    pub fn open(&self, job: &Job<'_>, run: &CliRun) -> Result<Opened> {
        let source = job.source(self.lock)?;
        open::source(&*source, &self.options.from, &self.options.network, run)
    }

    fn copy_opened(&self, job: &Job<'_>, opened: Opened, targets: &[&Target], run: &CliRun) -> Vec<Result<Done>> {
        if let [target] = targets {
            return vec![self.copy_to(job, opened, target, run)];
        }
        let Opened { source, selectors, name } = opened;
        let store = match source.into_store() {
            Ok(store) => store,
            Err(_) => {
                let error = Error::usage("SRC is a stream, which is read once; save it to a file first");
                return targets.iter().map(|_| Err(error.clone())).collect();
            }
        };
        let shared = SharedStore::new(store, FanoutLimits::default(), &run.cancel);
        let readers: Vec<Opened> = targets
            .iter()
            .map(|_| Source::Shared(Arc::new(shared.subscribe())))
            .map(|source| Opened { source, selectors: selectors.clone(), name: name.clone() })
            .collect();
        thread::scope(|scope| {
            let copies: Vec<_> = readers
                .into_iter()
                .zip(targets)
                .map(|(opened, target)| scope.spawn(move || self.copy_to(job, opened, target, run)))
                .collect();
            let panicked = |_| Err(Error::failed("internal error: the thread of this copy panicked"));
            copies.into_iter().map(|copy| copy.join().unwrap_or_else(panicked)).collect()
        })
    }

    fn copy_to(&self, job: &Job<'_>, opened: Opened, target: &Target, run: &CliRun) -> Result<Done> {
        let Some(name) = job.name_at(target, self.options.keep_host)? else {
            return self.copy_whole(job, opened, target, run);
        };
        let address = target.address(Some(&name))?;
        // Destinations that share one read of the source must not wait for one another.
        let waits_for_uploads = job.targets().count() == 1;
        let written = open::Written { waits_for_uploads, ..self.options.copying.written() };
        let sink = open::sink(&*address, &self.options.into, &self.options.network, &written, run)?;
        let stored = Name::from(&name);
        let before = published(&*sink, &stored)?;
        let named = match (before, &target.kind) {
            (None, TargetKind::Directory) => sink.tagged(&stored)?.map(|manifest| manifest.digest()),
            _ => before,
        };
        let options = self.copy_options(job);
        if is_comparable(&options)
            && let Some(found) = self.unchanged(&opened, &*sink, &stored, before)?
        {
            return Ok(Done::same(stored, found.digest, &found.media_type, options.dry_run));
        }
        let options = Options { selectors: opened.selectors, naming: Naming::Names(vec![stored]), ..options };
        let dry_run = options.dry_run;
        let report = copy_options::copy_all(vec![(opened.source, options)], &*sink, run)?;
        let states = report.images.iter().map(|image| State::of(named, image.digest)).collect();
        let reference = job.reference()?;
        let hub = reference.is_some_and(|reference| reference.host == DEFAULT_REGISTRY) && dry_run;
        let hub_pulls = if hub { report.images.iter().map(manifests).sum() } else { 0 };
        Ok(Done { states, report, hub_pulls })
    }

    /// Copies a source that is not a repository, with the names of its images.
    fn copy_whole(&self, job: &Job<'_>, opened: Opened, target: &Target, run: &CliRun) -> Result<Done> {
        let address = target.address(None)?;
        let (into, network) = (&self.options.into, &self.options.network);
        let options = self.copy_options(job);
        let report = match address.prefix() {
            Some(prefix) => {
                let below = crate::cli::below::CopyBelow { prefix, options: &options, into, network };
                below.copy(opened, &self.options.copying, run)?
            }
            None => {
                let naming = crate::cli::address::naming(&*address, &[])?;
                let sink = open::sink(&*address, into, network, &self.options.copying.written(), run)?;
                copy_options::copy_all(vec![opened.job(Options { naming, ..options })], &*sink, run)?
            }
        };
        let state = if report.transferred.blobs == 0 { State::Same } else { State::New };
        Ok(Done { states: vec![state; report.images.len()], report, hub_pulls: 0 })
    }

    /// The options of the copy of `job`, without selectors and names.
    pub fn copy_options(&self, job: &Job<'_>) -> Options {
        let mut options = self.options.copying.engine_options();
        options.budget.copies = self.copies;
        // Destinations that share one read of the source wait for one another.
        options.slots = (job.targets().count() == 1).then(|| self.slots.clone());
        if !job.entry.platforms.is_empty() && matches!(options.platforms, Platforms::Default) {
            options.platforms = Platforms::Only(job.entry.platforms.clone());
        }
        if let Some(wanted) = job.entry.referrers {
            options.referrers.wanted &= wanted;
        }
        options
    }

    /// The image at the source if `sink` has it completely under `name`; `before` is the digest there.
    ///
    /// # Errors
    /// - `NotFound`: the source does not have the image.
    fn unchanged(
        &self,
        opened: &Opened,
        sink: &dyn Sink,
        name: &Name,
        before: Option<Digest>,
    ) -> Result<Option<Descriptor>> {
        let (Some(Ok(store)), [selector]) = (opened.source.again().map(Source::into_store), &opened.selectors[..])
        else {
            return Ok(None);
        };
        let Some(before) = before else { return Ok(None) };
        let missing = || Error::not_found(format!("{} does not exist at the source", described(selector)));
        let found = store.resolve(selector)?.ok_or_else(missing)?;
        let is_complete = |found: &Descriptor| {
            Ok::<_, Error>(!media_type::is_index(&found.media_type) || is_complete(sink, name, &before)?)
        };
        Ok(if found.digest == before && is_complete(&found)? { Some(found) } else { None })
    }
}

fn described(selector: &Selector) -> String {
    selector.to_string()
}

/// The digest of `name` at the destination. A missing permission to read is not an error yet: the push reports it.
fn published(sink: &dyn Sink, name: &Name) -> Result<Option<Digest>> {
    match sink.published(name) {
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Denied | Kind::Failed) => Ok(None),
        found => found,
    }
}

/// Whether an image with the same digest at both ends needs no copy.
fn is_comparable(options: &Options) -> bool {
    !options.referrers.wanted
        && matches!(options.platforms, Platforms::Default | Platforms::All)
        && matches!(options.compress, Compress::Default | Compress::Keep)
        && options.format == Format::Keep
}

/// Whether `sink` has the index `digest` under `name` with all manifests that it lists.
fn is_complete(sink: &dyn Sink, name: &Name, digest: &Digest) -> Result<bool> {
    let Some(manifest) = sink.tagged(name)?.filter(|manifest| manifest.digest() == *digest) else { return Ok(false) };
    for child in manifest.children() {
        let below = name.reference().map(|named| Reference { tag: None, digest: Some(child.digest), ..named });
        let Some(below) = below else { return Ok(false) };
        let is_index = media_type::is_index(&child.media_type);
        if is_index || sink.published(&Name::from(&below))? != Some(child.digest) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The number of manifests of `image`.
fn manifests(image: &Copied) -> usize {
    1 + if media_type::is_index(&image.media_type) { image.platforms.len() } else { 0 }
}
