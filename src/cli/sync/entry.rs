//! The entries of a set with their addresses parsed: a source, and the destinations of its images.

use crate::cli::address::{self, Address};
use crate::image::{Platform, Reference};
use crate::sets::{Entry, ListedTag, Tags};
use crate::tag_filter::{TagFilter, TagPattern};
use crate::transport::registry::Prefix;
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::ffi::OsStr;
use std::sync::Arc;

/// An entry whose addresses are valid.
pub struct SyncEntry {
    /// The place in the document, for messages.
    pub place: Box<str>,
    pub source: EntrySource,
    /// Entries with the same destinations share them.
    pub targets: Arc<[Target]>,
    /// Empty: those of the command line.
    pub platforms: Vec<Platform>,
    /// None: as the command line says.
    pub referrers: Option<bool>,
}

/// The source of an entry.
pub enum EntrySource {
    /// Listed tags or digests of a repository.
    Listed(Reference, Vec<ListedTag>),
    /// The tags of a repository that pass a filter.
    Filtered(Reference, Box<TagFilter>),
    /// Any other source of a copy, as written.
    Other(Box<dyn Address>),
}

/// A destination of an entry.
pub struct Target {
    /// As the user wrote it.
    pub word: Box<str>,
    /// The same for every spelling of one place, where that is known.
    pub place: Box<str>,
    pub kind: TargetKind,
}

/// How the images of an entry are named at a destination, and how the destination is written.
pub enum TargetKind {
    /// Each image keeps its path below the prefix.
    Prefix(Prefix),
    /// Each tag of the source in this repository.
    Repository(Reference),
    /// The one image of the entry gets this name in a registry.
    Image(Reference),
    /// A layout or a registry's tree; each image keeps its name.
    Directory,
    /// A destination that is written once, with all of its images.
    Once,
}

impl SyncEntry {
    /// Parses the addresses of `entry`. Its images go to `defaults` if the entry has no destination. `known` has the
    /// destinations of the entry before.
    ///
    /// # Errors
    /// - `Usage`, with the place: an address is invalid, or the entry has no destination.
    fn parse(entry: Entry, defaults: &[Box<str>], known: &mut Arc<[Target]>) -> Result<SyncEntry> {
        let Entry { place, from, tags, to, platforms, referrers } = entry;
        let words = if to.is_empty() { defaults } else { &to };
        let parsed = || -> Result<(EntrySource, Arc<[Target]>)> {
            if words.is_empty() {
                return Err(Error::usage(format!("{from} has no destination; write DST on the command line")));
            }
            let source = EntrySource::parse(&from, tags)?;
            if !known.iter().map(|target| &target.word).eq(words) {
                *known = words.iter().map(|word| Target::parse(word)).collect::<Result<_>>()?;
            }
            Ok((source, known.clone()))
        };
        let (source, targets) = parsed().map_err(|error| error.at(&place))?;
        let entry = SyncEntry { place, source, targets, platforms, referrers };
        entry.check_names()?;
        Ok(entry)
    }

    /// Fails if several images of the entry would get one name.
    fn check_names(&self) -> Result<()> {
        let one = match &self.source {
            EntrySource::Listed(_, tags) => tags.len() == 1,
            EntrySource::Filtered(..) => false,
            EntrySource::Other(_) => true,
        };
        let fixed = self.targets.iter().find(|target| matches!(target.kind, TargetKind::Image(_)));
        match fixed {
            Some(target) if !one => Err(Error::usage(format!(
                "{}: {} is the name of one image, but the entry may have several; remove its tag",
                self.place, target.word
            ))),
            _ => Ok(()),
        }
    }

    /// The filter of the entry as its YAML form has it, if it has one.
    pub fn filter(&self) -> Option<Value> {
        let EntrySource::Filtered(_, filter) = &self.source else { return None };
        let patterns = |patterns: &[TagPattern]| json!(patterns.iter().map(TagPattern::as_regex).collect::<Vec<_>>());
        let mut tags = Map::new();
        let mut insert = |key: &str, value: Value, is_set: bool| is_set.then(|| tags.insert(key.to_owned(), value));
        insert("regex", patterns(&filter.include), !filter.include.is_empty());
        insert("not", patterns(&filter.exclude), !filter.exclude.is_empty());
        let ranges: Vec<String> = filter.semver.iter().map(ToString::to_string).collect();
        insert("semver", json!(ranges), !ranges.is_empty());
        insert("prerelease", json!(true), filter.prerelease);
        insert("latest", json!(filter.latest), filter.latest.is_some());
        insert("with", json!(filter.with), !filter.with.is_empty());
        Some(Value::Object(tags))
    }

    /// The source, for messages.
    pub fn from(&self) -> String {
        match &self.source {
            EntrySource::Listed(repository, _) | EntrySource::Filtered(repository, _) => repository.full_repository(),
            EntrySource::Other(address) => address.to_string(),
        }
    }
}

impl EntrySource {
    fn parse(from: &str, tags: Tags) -> Result<EntrySource> {
        let address = address::parse(OsStr::new(from))?;
        if address.prefix().is_some() {
            return Err(Error::usage(format!("{from} is a prefix of a registry, not an image; write a repository")));
        }
        let Some(reference) = address.repository() else {
            return match tags {
                Tags::Named => Ok(EntrySource::Other(address)),
                _ => Err(Error::usage(format!("{from} is not a repository of a registry; only a registry has tags"))),
            };
        };
        let repository = Reference { tag: None, digest: None, ..reference.clone() };
        Ok(match tags {
            Tags::Named => {
                let image = match (reference.tag_or_latest(), reference.digest) {
                    (tag, Some(digest)) => ListedTag { from: digest.to_string().into(), to: tag.map(Box::from) },
                    (tag, None) => ListedTag { from: tag.unwrap_or("latest").into(), to: None },
                };
                EntrySource::Listed(repository, vec![image])
            }
            Tags::Listed(tags) => EntrySource::Listed(repository, tags),
            Tags::Filtered(filter) => EntrySource::Filtered(repository, Box::new(filter)),
        })
    }
}

impl Target {
    /// Whether it is a registry.
    pub fn is_registry(&self) -> bool {
        !matches!(self.kind, TargetKind::Directory | TargetKind::Once)
    }

    fn parse(word: &str) -> Result<Target> {
        let address = address::parse(OsStr::new(word))?;
        let kind = match (address.prefix(), address.repository()) {
            (Some(prefix), _) => TargetKind::Prefix(prefix.clone()),
            (None, Some(reference)) if reference.digest.is_some() => {
                return Err(Error::usage(format!("{word}: a destination has a tag, not a digest")));
            }
            (None, Some(reference)) if reference.tag.is_some() => TargetKind::Image(reference.clone()),
            (None, Some(reference)) => TargetKind::Repository(reference.clone()),
            (None, None) if address.profile().keeps_images => TargetKind::Directory,
            (None, None) => TargetKind::Once,
        };
        let place = address.identity().map_or_else(|| word.into(), String::into_boxed_str);
        Ok(Target { word: word.into(), place, kind })
    }

    /// The address to open for an image with the name `name` at this destination.
    pub fn address(&self, name: Option<&Reference>) -> Result<Box<dyn Address>> {
        match (&self.kind, name) {
            (TargetKind::Prefix(_) | TargetKind::Repository(_) | TargetKind::Image(_), Some(name)) => {
                address::parse(OsStr::new(&format!("docker://{}", Reference { digest: None, ..name.clone() })))
            }
            _ => address::parse(OsStr::new(&*self.word)),
        }
    }

    /// The name that the image `source` gets here. `tag` is its tag at the destination, if that is another one.
    ///
    /// # Errors
    /// - `Usage`: the name is not valid, as with a repository that is too long.
    pub fn name(&self, source: &Reference, tag: Option<&str>, keep_host: bool) -> Result<Reference> {
        let tagged = match tag {
            Some(tag) => Reference { tag: Some(tag.to_owned()), digest: None, ..source.clone() },
            None => source.clone(),
        };
        let in_repository = |repository: &Reference| {
            let digest = tagged.digest.filter(|_| tagged.tag.is_none());
            Reference { tag: tagged.tag.clone(), digest, ..repository.clone() }
        };
        match &self.kind {
            TargetKind::Prefix(prefix) if keep_host => prefix.under(&with_host(&tagged)),
            TargetKind::Prefix(prefix) => prefix.under(&tagged),
            TargetKind::Repository(repository) => Ok(in_repository(repository)),
            TargetKind::Image(image) => Ok(image.clone()),
            TargetKind::Directory | TargetKind::Once => Ok(tagged),
        }
    }
}

/// `image` with its host as the first part of its path; a colon becomes `_`.
fn with_host(image: &Reference) -> Reference {
    let host = image.host.to_ascii_lowercase().replace(':', "_");
    Reference { repository: format!("{host}/{}", image.repository), ..image.clone() }
}

/// Parses every entry. `defaults` are the destinations of the command line.
///
/// # Errors
/// - `Usage`, with the place: an address is invalid, or an entry has no destination. Or no entry uses `defaults`.
pub fn parse_all(entries: Vec<Entry>, defaults: &[Box<str>]) -> Result<Vec<SyncEntry>> {
    if let ([first, ..], true) = (defaults, !entries.is_empty() && entries.iter().all(|entry| !entry.to.is_empty())) {
        return Err(Error::usage(format!("{first} is not used: every entry has its own destination; remove DST")));
    }
    let (mut parsed, mut known) = (Vec::with_capacity(entries.len()), Arc::default());
    for entry in entries {
        parsed.push(SyncEntry::parse(entry, defaults, &mut known)?);
    }
    Ok(parsed)
}
