//! The images of each entry: listed tags as they are, filtered tags from one list of each repository.

use super::entry::{EntrySource, SyncEntry};
use super::lock::LockFile;
use crate::cli::address;
use crate::cli::context::CliRun;
use crate::cli::open;
use crate::cli::verbs::sync::SyncOptions;
use crate::image::Reference;
use crate::parallel;
use crate::sets::ListedTag;
use crate::source::TagListing;
use crate::sync::deletion::SourceTags;
use crate::tag_filter::{TagFilter, TagSelection};
use crate::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::ffi::OsStr;

/// Repositories whose tags are listed at the same time.
const PARALLEL_LISTS: usize = 16;

/// The images that an entry has at its source.
pub enum Found {
    /// These tags or digests of its repository, and how they were found.
    Tags { tags: Vec<ListedTag>, source: SourceTags },
    /// The images of a source that is not a repository.
    Whole,
}

/// The number of tags that pass one filter, and the tags.
type Selected = Result<(usize, Vec<Box<str>>)>;

/// A repository, and the entries (by index) that filter its tags.
type Filtering<'e> = (&'e Reference, Vec<(usize, &'e TagFilter)>);

/// Finds the images of each of `entries`, in their order. With `lock` no tag is listed: the tags of the lock file are
/// filtered.
///
/// # Errors
/// - `Interrupted`. Every other error is that of an entry.
pub fn find(
    entries: &[SyncEntry],
    lock: Option<&LockFile>,
    options: &SyncOptions,
    run: &CliRun,
) -> Result<Vec<Result<Found>>> {
    let mut repositories: BTreeMap<&Reference, Vec<(usize, &TagFilter)>> = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        if let EntrySource::Filtered(repository, filter) = &entry.source {
            repositories.entry(repository).or_default().push((at, filter));
        }
    }
    let repositories: Vec<Filtering<'_>> = repositories.into_iter().collect();
    let lists = parallel::try_map(&repositories, PARALLEL_LISTS, |(repository, filters)| {
        run.cancel.check()?;
        match list(repository, filters, lock, options, run) {
            Err(error) if error.kind() == Kind::Interrupted => Err(error),
            list => Ok(list),
        }
    })?;
    let mut filtered = BTreeMap::new();
    for ((repository, filters), list) in repositories.iter().zip(lists) {
        match list {
            Ok((list, tags)) => {
                let repository = repository.full_repository();
                let selected = tags.into_iter().map(|tags| {
                    let (selected, tags) = tags?;
                    let TagList { listed, listing } = list;
                    Ok((tags, SourceTags::Listed { repository: repository.clone(), listed, selected, listing }))
                });
                filtered.extend(filters.iter().map(|(at, _)| *at).zip(selected));
            }
            Err(error) => filtered.extend(filters.iter().map(|(at, _)| (*at, Err(error.clone())))),
        }
    }
    let found = entries.iter().enumerate().map(|(at, entry)| match &entry.source {
        EntrySource::Listed(_, tags) => Ok(Found::Tags { tags: tags.clone(), source: SourceTags::Literal(tags.len()) }),
        EntrySource::Other(_) => Ok(Found::Whole),
        EntrySource::Filtered(repository, _) => match filtered.remove(&at) {
            Some(Ok((_, SourceTags::Listed { selected: 0, .. }))) => Err(Error::not_found(format!(
                "{}: no tag of {} passes the filter",
                entry.place,
                repository.full_repository()
            ))),
            Some(Ok((tags, source))) => {
                let tags = tags.into_iter().map(|from| ListedTag { from, to: None }).collect();
                Ok(Found::Tags { tags, source })
            }
            Some(Err(error)) => Err(error.at(&entry.place)),
            None => Err(Error::failed(format!("{}: the tags were not listed", entry.place))),
        },
    });
    Ok(found.collect())
}

/// A list of tags: their number, and how the list ended.
#[derive(Clone, Copy)]
struct TagList {
    listed: usize,
    listing: TagListing,
}

/// The tags of `repository` that pass each of `filters`.
fn list(
    repository: &Reference,
    filters: &[(usize, &TagFilter)],
    lock: Option<&LockFile>,
    options: &SyncOptions,
    run: &CliRun,
) -> Result<(TagList, Vec<Selected>)> {
    let mut selections: Vec<TagSelection<'_>> = filters.iter().map(|(_, filter)| filter.start()).collect();
    let mut listed = 0;
    let mut add = |tag: &str| {
        listed += 1;
        selections.iter_mut().try_for_each(|selection| selection.add(tag))
    };
    let listing = match lock {
        Some(lock) => lock.tags(repository).try_for_each(&mut add).map(|()| TagListing::default())?,
        None => {
            let address = address::parse(OsStr::new(&format!("docker://{repository}")))?;
            let opened = open::source(&*address, &options.from, &options.network, run)?;
            let not_a_store = |_| Error::failed(format!("{repository}: the tags cannot be listed"));
            opened.source.into_store().map_err(not_a_store)?.visit_tags(&mut add)?
        }
    };
    Ok((TagList { listed, listing }, selections.into_iter().map(finished).collect()))
}

/// The number of tags that pass the filter, and the tags with those of `with`.
fn finished(selection: TagSelection<'_>) -> Selected {
    let matched = selection.matched();
    selection.finish().map(|tags| (matched, tags))
}
