//! `--delete`: the tags at the destinations that no entry has any more. `sync/deletion` decides; this reads the destinations,
//! asks the user and deletes.

use super::entry::{EntrySource, SyncEntry, Target, TargetKind};
use super::listing::Found;
use super::outcome::Outcome;
use super::report::DeletedTag;
use crate::cli::ask;
use crate::cli::context::CliRun;
use crate::cli::open::deletable_names;
use crate::cli::output::terminal::line;
use crate::cli::verbs::sync::SyncOptions;
use crate::image::{Digest, Name, Reference};
use crate::message::{counted, on_one_line};
use crate::parallel;
use crate::sync::deletion::{
    ApprovedPlan, DeletionLimit, DeletionPlan, RepositoryPlan, Scope, SourceTags, WantedNames, list,
};
use crate::transport::address::DeletableNames;
use crate::{Error, Kind, Result};
use std::collections::{BTreeMap, HashMap};

/// Repositories that are read at the same time.
const PARALLEL_REPOSITORIES: usize = 8;
/// Questions to one of them at the same time.
const PARALLEL_QUESTIONS: usize = 8;
/// A tag for the name of a repository.
const ANY_TAG: &str = "latest";

/// How deletions are carried out.
#[derive(Debug, Clone, Copy)]
pub struct GoneOptions {
    pub limit: DeletionLimit,
    /// Whether the user is not asked.
    pub yes: bool,
}

/// The repositories and layouts into which a set is copied.
pub struct Destinations {
    scope: Scope,
    /// The address of each repository or layout of `scope`.
    addresses: BTreeMap<String, String>,
}

/// The deletions of a run.
#[derive(Default)]
pub struct Gone {
    pub tags: Vec<DeletedTag>,
    /// The errors, each with its repository.
    pub errors: Vec<(String, Error)>,
    /// Why nothing may be deleted in the whole run.
    pub refused: Option<Error>,
}

impl Destinations {
    /// The destinations of `entries`, of which `found` has the images.
    ///
    /// # Errors
    /// - `Usage`: a destination is not a registry or a layout, or a source; or a source is not a repository.
    pub fn new(entries: &[SyncEntry], found: &[Result<Found>], keep_host: bool) -> Result<Destinations> {
        let mut destinations = Destinations { scope: Scope::default(), addresses: BTreeMap::new() };
        for (entry, found) in entries.iter().zip(found) {
            for target in &*entry.targets {
                destinations.add(entry, target, found, keep_host)?;
            }
        }
        destinations.check_sources(entries)?;
        Ok(destinations)
    }

    /// Fails if a source is a destination too: its tags that no filter selects would be deleted.
    fn check_sources(&self, entries: &[SyncEntry]) -> Result<()> {
        match entries.iter().find(|entry| self.addresses.contains_key(&entry.from())) {
            Some(entry) => Err(Error::usage(format!(
                "{}: {} is a source and a destination, so --delete would delete tags of a source; sync it without --delete",
                entry.place,
                entry.from()
            ))),
            None => Ok(()),
        }
    }

    fn add(&mut self, entry: &SyncEntry, target: &Target, found: &Result<Found>, keep_host: bool) -> Result<()> {
        let source = match &entry.source {
            EntrySource::Listed(repository, _) | EntrySource::Filtered(repository, _) => repository,
            EntrySource::Other(address) => {
                return Err(Error::usage(format!(
                    "{address} is not a repository of a registry, so its tags cannot be compared; sync it without --delete"
                )));
            }
        };
        let (tags, source_tags) = match found {
            Ok(Found::Tags { tags, source }) => (&tags[..], source.clone()),
            Ok(Found::Whole) => (&[][..], SourceTags::Literal(0)),
            Err(error) => {
                let repository = source.full_repository();
                (&[][..], SourceTags::Failed { repository, error: error.clone() })
            }
        };
        let mut names: BTreeMap<String, Vec<Name>> = BTreeMap::new();
        // The repository is in the scope without any name too.
        let at = target.name(&Reference { tag: Some(ANY_TAG.to_owned()), ..source.clone() }, None, keep_host)?;
        names.entry(self.place(target, &at)?).or_default();
        for tag in tags {
            let separator = if tag.from.contains(':') { '@' } else { ':' };
            let image: Reference = format!("{source}{separator}{}", tag.from).parse()?;
            let name = target.name(&image, tag.to.as_deref(), keep_host)?;
            names.entry(self.place(target, &name)?).or_default().push(Name::from(&name));
        }
        names.into_iter().for_each(|(place, names)| self.scope.add(&place, names, source_tags.clone()));
        Ok(())
    }

    /// The repository or layout of `name` at `target`.
    fn place(&mut self, target: &Target, name: &Reference) -> Result<String> {
        let (place, address) = match &target.kind {
            TargetKind::Once => return Err(unsupported(target)),
            TargetKind::Directory => {
                let address = target.address(None)?;
                let directory = address.layout().ok_or_else(|| unsupported(target))?;
                let word = format!("oci:{}", directory.display());
                (address.identity().unwrap_or_else(|| word.clone()), word)
            }
            TargetKind::Prefix(_) | TargetKind::Repository(_) | TargetKind::Image(_) => {
                let repository = name.full_repository();
                (repository.clone(), format!("docker://{repository}"))
            }
        };
        self.addresses.entry(place.clone()).or_insert(address);
        Ok(place)
    }

    /// Notes the images that were not copied: nothing is deleted then.
    pub fn add_failures(&mut self, outcomes: &[Outcome]) {
        for outcome in outcomes {
            if let Err(error) = &outcome.result {
                self.scope.add_failed(&outcome.from, error);
            }
        }
    }

    /// Deletes what is gone; in a dry run the answer is the plan. `known` has the digests of names that the run wrote.
    /// A plan that is not allowed, or not confirmed by the user, is refused: nothing is deleted.
    ///
    /// # Errors
    /// - `Interrupted`.
    pub fn delete(
        &self,
        gone: GoneOptions,
        known: &HashMap<Name, Digest>,
        options: &SyncOptions,
        run: &CliRun,
    ) -> Result<Gone> {
        let mut result = Gone::default();
        let repositories: Vec<(&str, &WantedNames)> = self.scope.repositories().collect();
        let plans = parallel::try_map(&repositories, PARALLEL_REPOSITORIES, |(repository, wanted)| {
            run.cancel.check()?;
            match self.plan(repository, wanted, known, options, run) {
                Err(error) if error.kind() == Kind::Interrupted => Err(error),
                plan => Ok(plan),
            }
        })?;
        let mut planned = Vec::new();
        for ((repository, _), plan) in repositories.iter().zip(plans) {
            match plan {
                Ok(plan) => planned.extend(plan),
                Err(error) => result.errors.push(((*repository).to_owned(), error)),
            }
        }
        let plan = DeletionPlan::new(&self.scope, planned, Some(gone.limit));
        result.tags = plan.repositories().iter().flat_map(tags_of).collect();
        let count = result.tags.iter().filter(|tag| tag.spared.is_none()).count();
        let dry_run = options.copying.transfer.dry_run;
        let confirmed = |approved| match count == 0 || dry_run || gone.yes {
            true => Ok(approved),
            false => confirm(&result, count, run).map(|()| approved),
        };
        match plan.approve().and_then(confirmed) {
            Ok(_) if count == 0 || dry_run => {}
            Ok(approved) => self.carry_out(&approved, &mut result, options, run)?,
            Err(error) => {
                result.refused = Some(error);
                // The list of a dry run is the plan, also if it is not allowed.
                result.tags.retain(|tag| dry_run || tag.spared.is_some());
            }
        }
        Ok(result)
    }

    /// The plan for one repository; none if it does not exist.
    fn plan(
        &self,
        repository: &str,
        wanted: &WantedNames,
        known: &HashMap<Name, Digest>,
        options: &SyncOptions,
        run: &CliRun,
    ) -> Result<Option<RepositoryPlan>> {
        let DeletableNames { deleter, .. } = match self.open(repository, options, run) {
            Err(error) if error.kind() == Kind::NotFound => return Ok(None),
            place => place?,
        };
        let listed = match list(repository, &*deleter, known, PARALLEL_QUESTIONS, &run.cancel) {
            Err(error) if error.kind() == Kind::NotFound => return Ok(None),
            listed => listed?,
        };
        let mut exists = |digest: &Digest| deleter.has_manifest(digest);
        RepositoryPlan::new(repository, wanted, listed, &mut exists).map(Some)
    }

    fn open(&self, repository: &str, options: &SyncOptions, run: &CliRun) -> Result<DeletableNames> {
        let word = self.addresses.get(repository).map_or(repository, String::as_str);
        let address = crate::cli::address::parse(std::ffi::OsStr::new(word))?;
        deletable_names(&*address, &options.into, &options.network, run)
    }

    fn carry_out(&self, approved: &ApprovedPlan, result: &mut Gone, options: &SyncOptions, run: &CliRun) -> Result<()> {
        result.tags.retain(|tag| tag.spared.is_some());
        for plan in approved.repositories() {
            let repository = &plan.plan().repository;
            let report = match self.open(repository, options, run) {
                Ok(place) => plan.carry_out(&*place.deleter, &run.cancel),
                Err(error) => {
                    result.errors.push((repository.clone(), error));
                    continue;
                }
            };
            let deleted = |one: &crate::sync::deletion::PlannedDeletion| DeletedTag {
                name: one.name.to_string(),
                digest: Some(one.digest),
                spared: None,
            };
            result.tags.extend(report.deleted.iter().map(deleted));
            result.tags.extend(report.spared.iter().map(|one| DeletedTag {
                name: one.name.to_string(),
                digest: None,
                spared: Some(one.reason.to_string()),
            }));
            result.errors.extend(report.error.map(|error| (repository.clone(), error)));
        }
        run.cancel.check()
    }
}

/// Asks the user. The tags are named also with `--quiet`, since the question is about them.
fn confirm(gone: &Gone, count: usize, run: &CliRun) -> Result<()> {
    run.screen.clear();
    for tag in gone.tags.iter().filter(|tag| tag.spared.is_none()) {
        line(&format!("to delete: {}", on_one_line(&tag.name)));
    }
    match ask::confirm(&format!("delete {}", counted(count, "tag")))? {
        true => Ok(()),
        false => Err(Error::failed("no tag was deleted: the answer was not yes")),
    }
}

/// The error for a destination that is not a registry or a layout.
fn unsupported(target: &Target) -> Error {
    Error::usage(format!(
        "{}: --delete works on registries and OCI layouts; sync this destination without it",
        target.word
    ))
}

/// The tags of a plan that are deleted and spared.
fn tags_of(plan: &RepositoryPlan) -> Vec<DeletedTag> {
    let deleted = plan.deletions.iter().map(|one| DeletedTag {
        name: one.name.to_string(),
        digest: Some(one.digest),
        spared: None,
    });
    let spared = plan.spared.iter().map(|one| DeletedTag {
        name: one.name.to_string(),
        digest: None,
        spared: Some(one.reason.to_string()),
    });
    deleted.chain(spared).collect()
}
