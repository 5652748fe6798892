//! `imgmv sync`: copies many images, by a list, a pattern or the file of another tool.

use crate::cli::address::help::PLACES;
use crate::cli::ask;
use crate::cli::context::CliRun;
use crate::cli::copy_many;
use crate::cli::open::copy_options::CopyOptions;
use crate::cli::open::{self, DocumentHosts, NetworkOptions, SinkOptions, SourceOptions};
use crate::cli::output::report::{Stdout, replace_file};
use crate::cli::sync::documents::{self, DocumentOptions, SyncSet};
use crate::cli::sync::entry::{self, SyncEntry};
use crate::cli::sync::gone::{Destinations, Gone, GoneOptions};
use crate::cli::sync::jobs::{Job, Jobs};
use crate::cli::sync::listing;
use crate::cli::sync::lock::LockFile;
use crate::cli::sync::outcome::Outcome;
use crate::cli::sync::report::SyncReport;
use crate::cli::sync::transfer::Transfer;
use crate::cli::sync::{failures, together};
use crate::image::{Digest, Name};
use crate::sets::{Entry, Tags};
use crate::sync::deletion::DeletionLimit;
use crate::transfer::TransferSlots;
use crate::{Error, Result};
use clap::Args;
use clap::builder::FalseyValueParser;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Copy many images, by a list, a pattern, or the file of another tool
///
/// SRC is a file, an image, or REPOSITORY:/REGEX/ for the tags of a repository that match. imgmv recognises a list of
/// images, one on each line, a list of pairs SRC DST, its own YAML form, and the files of regsync, image-syncer, skopeo
/// sync, dregsy, hauler and ocync, and prints which one SRC is. A word is a file if it is -, a path, or ends in .txt,
/// .yml, .yaml or .json.
///
/// Images that DST has already are not copied. An image that fails does not stop the others: imgmv names it, and exits
/// with status 9. Run the same command again to resume.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{FORM}\n\n{PLACES}"))]
pub struct SyncVerb {
    /// File, image, or REPOSITORY:/REGEX/
    #[arg(value_name = "SRC")]
    src: String,
    /// Destinations of images for which SRC names none. Below HOST/[PATH/] each image keeps its path
    #[arg(value_name = "DST")]
    dst: Vec<String>,
    #[command(flatten)]
    set: SetOptions,
    #[command(flatten)]
    options: SyncOptions,
}

/// Options for the images of the set.
#[derive(Debug, Args)]
#[command(next_help_heading = "Set of images")]
pub struct SetOptions {
    /// Of the tags that a pattern or filter selects, copy only the N highest versions
    #[arg(long, value_name = "N", env = "IMGMV_LATEST", value_parser = clap::value_parser!(u32).range(1..))]
    latest: Option<u32>,
    /// Fail if SRC has a key that imgmv does not honour; by default such keys are named
    #[arg(long, env = "IMGMV_STRICT", value_parser = FalseyValueParser::new())]
    strict: bool,
    /// Expand environment variables and files in the credentials of SRC
    #[arg(long, env = "IMGMV_ALLOW_TEMPLATES", value_parser = FalseyValueParser::new())]
    allow_templates: bool,
    /// Copy the digests of the lock file, and list no tags. A missing image fails
    #[arg(long, env = "IMGMV_LOCKED", value_parser = FalseyValueParser::new())]
    locked: bool,
    /// Lock file: a run without --locked writes the digest of each image to it, if no image failed [default with
    /// --locked: SRC.lock]
    #[arg(long, value_name = "FILE", env = "IMGMV_LOCK_FILE")]
    lock_file: Option<PathBuf>,
    /// Write the images that failed to FILE, as SRC of the next run
    #[arg(long, value_name = "FILE", env = "IMGMV_FAILED_FILE")]
    failed_file: Option<PathBuf>,
    /// Delete tags at DST that no entry has any more, in the repositories and layouts of the set. Only tags are deleted,
    /// never manifests. Nothing is deleted if the tags of a source could not be listed, or an image could not be copied
    #[arg(long, env = "IMGMV_DELETE", value_parser = FalseyValueParser::new())]
    delete: bool,
    /// With --delete, maximum part or number of the tags of a repository to delete; a larger plan deletes nothing. One tag
    /// is always allowed
    #[arg(long, value_name = "N|N%", default_value = "10%", env = "IMGMV_DELETE_MAX")]
    delete_max: DeletionLimit,
    /// With --delete, do not ask
    #[arg(short, long, env = "IMGMV_YES", value_parser = FalseyValueParser::new())]
    yes: bool,
    /// Stop before a registry that counts pulls, as Docker Hub, has fewer than N of them left, and say when to run again
    #[arg(long, value_name = "N", env = "IMGMV_HUB_RESERVE")]
    hub_reserve: Option<u64>,
    /// Maximum number of images copied at the same time
    #[arg(long, value_name = "N", default_value_t = 8, env = "IMGMV_PARALLEL",
          value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,
}

/// The options of each copy.
#[derive(Debug, Args)]
pub struct SyncOptions {
    /// Below a prefix, put the host of the source in front of the path: registry.lan/docker.io/library/app
    #[arg(long, env = "IMGMV_KEEP_HOST", value_parser = FalseyValueParser::new(), help_heading = "Set of images")]
    pub keep_host: bool,
    #[command(flatten)]
    pub copying: CopyOptions,
    #[command(flatten)]
    pub from: SourceOptions,
    #[command(flatten)]
    pub into: SinkOptions,
    #[command(flatten)]
    pub network: NetworkOptions,
}

const EXAMPLES: &str = r"Examples:
  imgmv sync images.txt registry.lan:5000/
  imgmv sync images.txt registry.lan:5000/mirror/ --dry-run
  imgmv sync regsync.yml
  imgmv sync 'quay.io/org/app:/^1\.\d+$/' registry.lan:5000/org/app --latest 5
  imgmv sync images.txt oci:./mirror --failed-file failed.yml
  imgmv sync regsync.yml --delete --dry-run
  imgmv sync images.yml --lock-file images.lock
  imgmv sync images.yml --lock-file images.lock --locked
  kubeadm config images list | imgmv sync - registry.lan:5000/";

const FORM: &str = r#"The YAML form:
  defaults: {to: registry.lan/, platforms: [linux/amd64], referrers: false}
  images:
    - alpine:3.20
    - from: quay.io/org/app
      to: [registry.lan/app, oci:./mirror]
      tags: {regex: '^v', not: debug, semver: '>=1.2 <2', latest: 5, with: [edge]}
Every key but images and from may be absent. The tags are filtered in the order
regex or glob, not, semver, latest; with adds tags that are not filtered."#;

impl SyncVerb {
    pub fn run(mut self, run: &CliRun) -> Result<()> {
        let started = Instant::now();
        if self.set.delete && self.set.locked {
            return Err(Error::usage(
                "--delete with --locked: a lock file is not a complete list of tags; delete in a run without --locked",
            ));
        }
        self.options.network.jobs = self.options.copying.transfer.jobs;
        self.options.network.fetch_foreign = self.options.copying.fetches_foreign();
        self.options.network.to_network = true;
        self.options.network.many_copies = self.set.parallel > 1;
        self.options.network.hub_reserve = self.set.hub_reserve;
        let documents = DocumentOptions {
            allow_templates: self.set.allow_templates,
            strict: self.set.strict,
            allow_empty: self.options.copying.transfer.allow_empty,
        };
        if self.set.delete && !self.set.yes && !self.options.copying.transfer.dry_run && !ask::can_ask() {
            return Err(Error::usage("--delete: this is not a terminal, so imgmv cannot ask; add --yes or --dry-run"));
        }
        let mut set = documents::read(&self.src, documents, run)?;
        self.options.network.documented = Arc::new(DocumentHosts::new(std::mem::take(&mut set.hosts)));
        self.limit_to_latest(&mut set.entries)?;
        let lock = self.read_lock(&set)?;
        let defaults: Vec<Box<str>> = self.dst.iter().map(|word| word.as_str().into()).collect();
        let at_file = |error: Error| if set.format.is_some() { error.at(&self.src) } else { error };
        let entries = entry::parse_all(std::mem::take(&mut set.entries), &defaults).map_err(at_file)?;
        let found = listing::find(&entries, lock.as_ref(), &self.options, run)?;
        let mut destinations = match self.set.delete {
            true => Some(Destinations::new(&entries, &found, self.options.keep_host)?),
            false => None,
        };
        let mut jobs = Jobs::default();
        let mut outcomes = Vec::new();
        for (at, (entry, found)) in entries.iter().zip(&found).enumerate() {
            match found {
                Ok(found) => jobs.add(at, entry, found, self.options.keep_host).map_err(at_file)?,
                Err(error) => outcomes.extend(failed(at, entry, error)),
            }
        }
        let stdout = self.stdout(&entries, run)?;
        outcomes.extend(self.copy_all(&jobs, lock.as_ref(), run));
        run.cancel.check()?;
        // An error of these files must not hide the answer.
        let written = self.write_files(&outcomes, &entries, run);
        let deletion = GoneOptions { limit: self.set.delete_max, yes: self.set.yes };
        let gone = match &mut destinations {
            Some(destinations) => {
                destinations.add_failures(&outcomes);
                destinations.delete(deletion, &self.known(&outcomes), &self.options, run)?
            }
            None => Gone::default(),
        };
        let report = SyncReport {
            format: set.format.map(|format| format.to_string()),
            not_honoured: &set.not_honoured,
            outcomes: &outcomes,
            gone: &gone,
            dry_run: self.options.copying.transfer.dry_run,
            duration: started.elapsed(),
        };
        report.print(run, stdout)?;
        let checked = report.check();
        let mut errors = checked.err().into_iter().chain(gone.refused).chain(written.err());
        let first = errors.next().map_or(Ok(()), Err);
        errors.for_each(|error| error.to_string().lines().for_each(|line| run.screen.error(line)));
        first
    }

    /// Applies `--latest` to each filter that has no limit.
    fn limit_to_latest(&self, entries: &mut [Entry]) -> Result<()> {
        let Some(latest) = self.set.latest else { return Ok(()) };
        let mut is_used = false;
        for entry in entries {
            if let Tags::Filtered(filter) = &mut entry.tags {
                is_used = true;
                filter.latest.get_or_insert(latest as usize);
            }
        }
        match is_used {
            true => Ok(()),
            false => Err(Error::usage("--latest needs a pattern or a filter of tags, and SRC has none")),
        }
    }

    /// The file of `--lock-file`, or the document with `.lock`.
    fn lock_path(&self, set: &SyncSet) -> Result<Option<PathBuf>> {
        match (&self.set.lock_file, self.set.locked, &set.file) {
            (Some(file), ..) => Ok(Some(file.clone())),
            (None, false, _) => Ok(None),
            (None, true, Some(file)) => Ok(Some(PathBuf::from(format!("{}.lock", file.display())))),
            (None, true, None) => Err(Error::usage("--locked needs --lock-file, since SRC is not a file")),
        }
    }

    fn read_lock(&self, set: &SyncSet) -> Result<Option<LockFile>> {
        let Some(file) = self.lock_path(set)?.filter(|_| self.set.locked) else { return Ok(None) };
        let label = file.display().to_string();
        let text = fs::read_to_string(&file).map_err(|error| {
            Error::reading(&label, error).reworded(format!("{label} cannot be read; a run with --lock-file writes it"))
        })?;
        LockFile::parse(&text, &label).map(Some)
    }

    /// Copies every image, several at the same time; then what is written once, one destination after the other.
    fn copy_all(&self, jobs: &Jobs<'_>, lock: Option<&LockFile>, run: &CliRun) -> Vec<Outcome> {
        let copies = usize::from(self.set.parallel).min(jobs.each.len()).max(1);
        let (reserved, turn) = (Mutex::default(), Mutex::default());
        let slots = TransferSlots::default();
        let transfer = Transfer { options: &self.options, lock, copies, slots, reserved: &reserved, turn: &turn };
        let names: Vec<String> = jobs.each.iter().map(Job::from).collect();
        let copied = copy_many::run_all(&names, copies, run, |at, run| transfer.copy(&jobs.each[at], run));
        let mut outcomes = Vec::with_capacity(copied.len());
        for (job, result) in jobs.each.iter().zip(copied) {
            match result {
                Ok(copied) => outcomes.extend(copied),
                Err(error) => outcomes.extend(job.targets().map(|target| Outcome {
                    entry: job.at,
                    from: job.from(),
                    to: transfer.label(job, target),
                    result: Err(error.clone()),
                })),
            }
        }
        let alone = Transfer { copies: 1, ..transfer };
        for one in &jobs.together {
            outcomes.extend(together::copy(&alone, one, run));
        }
        outcomes
    }

    /// The digests of the names that this run wrote, or found to be the same.
    fn known(&self, outcomes: &[Outcome]) -> HashMap<Name, Digest> {
        if self.options.copying.transfer.dry_run {
            return HashMap::new();
        }
        let done = outcomes.iter().filter_map(|outcome| outcome.result.as_ref().ok());
        let images = done.flat_map(|done| &done.report.images);
        images.flat_map(|image| image.names.iter().map(|name| (name.clone(), image.digest))).collect()
    }

    /// Writes the lock file and the list of failures.
    fn write_files(&self, outcomes: &[Outcome], entries: &[SyncEntry], run: &CliRun) -> Result<()> {
        if self.options.copying.transfer.dry_run {
            return Ok(());
        }
        let write = |file: &Path, text: &str| {
            replace_file(file, text.as_bytes()).map_err(|error| Error::writing(file.display(), error))
        };
        if let Some(file) = &self.set.failed_file {
            write(file, &failures::text(outcomes, entries))?;
        }
        let Some(file) = self.set.lock_file.as_ref().filter(|_| !self.set.locked) else { return Ok(()) };
        if outcomes.iter().any(|outcome| outcome.result.is_err()) {
            run.watch().say(&format!("{} is not written, since an image failed", file.display()));
            return Ok(());
        }
        write(file, &locked(outcomes).text())
    }

    /// The content of standard output. Reserves it if it is an archive.
    fn stdout(&self, entries: &[SyncEntry], run: &CliRun) -> Result<Stdout> {
        let is_archive = entries.iter().flat_map(|entry| &*entry.targets).any(|target| &*target.word == "-");
        match is_archive && !self.options.copying.transfer.dry_run {
            true => open::stdout_for_archive(run).map(|()| Stdout::Archive),
            false => Ok(Stdout::Answer),
        }
    }
}

/// The failure of `entry` at each of its destinations.
fn failed<'e>(at: usize, entry: &'e SyncEntry, error: &'e Error) -> impl Iterator<Item = Outcome> + 'e {
    let outcome =
        move |to: &str| Outcome { entry: at, from: entry.from(), to: to.to_owned(), result: Err(error.clone()) };
    entry.targets.iter().map(move |target| outcome(&target.word))
}

/// The source digests of all images that were copied, or were the same.
fn locked(outcomes: &[Outcome]) -> LockFile {
    let mut lock = LockFile::default();
    for outcome in outcomes {
        let (Ok(done), Ok(name)) = (&outcome.result, outcome.from.parse()) else { continue };
        if let Some(image) = done.report.images.first() {
            lock.add(&name, image.source_digest);
        }
    }
    lock
}
