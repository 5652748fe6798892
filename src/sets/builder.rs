//! The set while it is read: its entries, checked and counted against the limits of memory.

use super::tree::Field;
use super::word::{has_tag, split_pattern};
use super::{Entry, Format, HostOptions, ImageSet, ListedTag, ReadOptions, Tags};
use crate::error::{Error, Result};
use crate::image::{Digest, is_tag};
use crate::message::{on_one_line, printable, shortened};
use crate::tag_filter::{TagFilter, TagPattern, VersionRange};
use std::collections::HashMap;

/// The maximum number of entries of one document.
pub(super) const MAX_ENTRIES: usize = 50_000;
/// The maximum memory of the entries of one document and of its tree, as counted here.
const MAX_SET_BYTES: usize = 30 << 20;
/// The maximum length of a source or destination: the longest path of Linux.
const MAX_NAME_BYTES: usize = 4096;
/// A compiled pattern needs about these bytes at least.
const PATTERN_BYTES: usize = 20 << 10;
/// A compiled pattern needs at most these bytes for each byte of its text, times its repetitions.
const PATTERN_FACTOR: usize = 128;
/// The largest compiled pattern.
const MAX_PATTERN_BYTES: usize = 1 << 20;
/// The keys that are named; more of them are only counted.
const MAX_NAMED_KEYS: usize = 1000;
/// The bytes that the allocator adds to each allocation.
const ALLOCATION_BYTES: usize = 16;
/// A parsed range of versions needs at most these bytes, and 32 times the memory of its text.
const RANGE_BYTES: usize = 512;
const RANGE_FACTOR: usize = 32;

/// How the text of a pattern is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Syntax {
    Regex,
    AnchoredRegex,
    Glob,
}

/// A set that is being read.
pub(super) struct SetBuilder<'o> {
    pub options: &'o ReadOptions<'o>,
    entries: Vec<Entry>,
    hosts: Vec<HostOptions>,
    not_honoured: Vec<String>,
    more_keys: usize,
    patterns: HashMap<(Syntax, Box<str>), TagPattern>,
    ranges: HashMap<Box<str>, VersionRange>,
    bytes: usize,
}

impl<'o> SetBuilder<'o> {
    pub fn new(options: &'o ReadOptions<'o>) -> SetBuilder<'o> {
        SetBuilder {
            options,
            entries: Vec::new(),
            hosts: Vec::new(),
            not_honoured: Vec::new(),
            more_keys: 0,
            patterns: HashMap::new(),
            ranges: HashMap::new(),
            bytes: 0,
        }
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// `Invalid`: a name is not one, or a limit is exceeded.
    pub fn add(&mut self, entry: Entry) -> Result<()> {
        let names = [&entry.from].into_iter().chain(&entry.to);
        for name in names.clone() {
            check_name(name).map_err(|problem| Error::invalid(format!("{}: {problem}", entry.place)))?;
        }
        let text: usize = names.map(|name| name.len() + size_of::<Box<str>>() + ALLOCATION_BYTES).sum();
        let platforms = entry.platforms.len() * (size_of::<crate::Platform>() + 3 * ALLOCATION_BYTES);
        self.count(size_of::<Entry>() + entry.place.len() + ALLOCATION_BYTES + text + platforms, &entry.place)?;
        if self.entries.len() == MAX_ENTRIES {
            return Err(Error::invalid(format!(
                "{}: the document has more than {MAX_ENTRIES} entries; divide it into several documents",
                entry.place
            )));
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Counts memory that the set needs.
    pub fn count(&mut self, bytes: usize, place: &str) -> Result<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes <= MAX_SET_BYTES {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{place}: the entries up to here need more than {} MiB of memory; divide the document",
            MAX_SET_BYTES >> 20
        )))
    }

    /// Notes a key that is not honoured.
    pub fn skip(&mut self, field: Field<'_>) {
        self.not_honoured(|| field.place());
    }

    /// Notes a value that is not honoured, once. A place is made only while places are named.
    pub fn not_honoured(&mut self, place: impl FnOnce() -> String) {
        if self.not_honoured.len() == MAX_NAMED_KEYS {
            self.more_keys += 1;
            return;
        }
        let place = place();
        if !self.not_honoured.contains(&place) {
            self.not_honoured.push(place);
        }
    }

    /// Notes what the document says of a registry.
    pub fn add_host(&mut self, host: HostOptions, place: &str) -> Result<()> {
        let login = host.login.as_ref().map_or(0, |login| login.user.len() + 4096);
        self.count(size_of::<HostOptions>() + host.host.len() + host.path.len() + login, place)?;
        self.hosts.push(host);
        Ok(())
    }

    /// The source that `word` names, and its tags: one image, or the tags that `REPO:/regex/` selects.
    pub fn selected<'w>(&mut self, word: &'w str) -> Result<(&'w str, Tags)> {
        let Some((repository, regex)) = split_pattern(word) else { return Ok((word, Tags::Named)) };
        if has_tag(repository) {
            return Err(Error::invalid(format!(
                "{}: a pattern selects tags; leave out the tag or digest before it",
                shortened(word)
            )));
        }
        let filter = TagFilter { include: vec![self.pattern(Syntax::Regex, regex)?], ..TagFilter::default() };
        Ok((repository, Tags::Filtered(filter)))
    }

    /// Compiles a pattern; equal patterns of a document are compiled once.
    pub fn pattern(&mut self, syntax: Syntax, text: &str) -> Result<TagPattern> {
        self.count(size_of::<TagPattern>() + ALLOCATION_BYTES, &shortened(text))?;
        let key = (syntax, Box::from(text));
        if let Some(pattern) = self.patterns.get(&key) {
            return Ok(pattern.clone());
        }
        self.count(compiled_bytes(text), &shortened(text))?;
        let compiled = match syntax {
            Syntax::Regex => TagPattern::regex(text),
            Syntax::AnchoredRegex => TagPattern::anchored_regex(text),
            Syntax::Glob => TagPattern::glob(text),
        };
        let pattern = compiled.map_err(|error| Error::invalid(error.to_string()))?;
        self.patterns.insert(key, pattern.clone());
        Ok(pattern)
    }

    /// A tag or a digest of a list. The error is the reason as the end of a sentence.
    pub fn listed(&mut self, text: &str) -> Result<ListedTag, String> {
        check_tag(text)?;
        self.count_tags(1, text).map_err(|error| error.to_string())?;
        Ok(ListedTag { from: text.into(), to: None })
    }

    /// Counts listed tags: short texts, most of them.
    pub fn count_tags(&mut self, count: usize, place: &str) -> Result<()> {
        self.count(count.saturating_mul(size_of::<ListedTag>() + 2 * ALLOCATION_BYTES), place)
    }

    /// Parses a range of versions; equal ranges of a document are parsed once.
    pub fn range(&mut self, text: &str) -> Result<VersionRange> {
        self.count(size_of::<VersionRange>() + ALLOCATION_BYTES, &shortened(text))?;
        if let Some(range) = self.ranges.get(text) {
            return Ok(range.clone());
        }
        self.count(RANGE_BYTES + text.len() * RANGE_FACTOR, &shortened(text))?;
        let range = VersionRange::parse(text).map_err(|error| Error::invalid(error.to_string()))?;
        self.ranges.insert(text.into(), range.clone());
        Ok(range)
    }

    /// Ends the document.
    ///
    /// # Errors
    /// `Invalid`: it lists no images, and the options do not allow that.
    pub fn finish(mut self, format: Format) -> Result<ImageSet> {
        if self.more_keys > 0 {
            self.not_honoured.push(format!("{} more", self.more_keys));
        }
        if self.entries.is_empty() && !self.options.allow_empty {
            let ignored = match self.not_honoured.is_empty() {
                true => String::new(),
                false => format!(" (not honoured: {})", crate::message::some_of(&self.not_honoured)),
            };
            return Err(Error::invalid(format!(
                "the {format} lists no images that imgmv can copy{ignored}; --allow-empty accepts that"
            )));
        }
        Ok(ImageSet { format, entries: self.entries, hosts: self.hosts, not_honoured: self.not_honoured })
    }
}

/// An upper bound of the memory of a compiled pattern: each `{N,M}` may repeat all the text.
fn compiled_bytes(pattern: &str) -> usize {
    let repetition = |behind: &str| {
        let counts = behind.split('}').next().unwrap_or_default().split(',');
        counts.map(|count| count.trim().parse().unwrap_or(1)).max().unwrap_or(1).max(1)
    };
    let repetitions = pattern.split('{').skip(1).map(repetition).fold(1, usize::saturating_mul);
    PATTERN_BYTES + pattern.len().saturating_mul(PATTERN_FACTOR).saturating_mul(repetitions).min(MAX_PATTERN_BYTES)
}

/// Checks a source or destination. The error is the end of a message that begins with the place.
fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        Err("a source or destination is empty; write a reference".to_owned())
    } else if name.len() > MAX_NAME_BYTES {
        Err(format!("{} has {} bytes; at most {MAX_NAME_BYTES} are allowed", shortened(name), name.len()))
    } else if is_template(name) {
        Err(format!("{} has a template; templates are expanded in credentials only", shortened(name)))
    } else if name.starts_with('-') && name != "-" {
        Err(format!("{} is an option, not a source or destination", shortened(name)))
    } else if !name.bytes().all(|byte| byte.is_ascii_graphic()) && on_one_line(name) != name {
        Err(format!("{:?} has control characters; retype it", printable(&shortened(name))))
    } else {
        Ok(())
    }
}

/// Whether `text` has a Go template or a variable.
pub(super) fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("${")
}

/// Checks a tag or a digest. The error is the reason as the end of a sentence.
pub(super) fn check_tag(text: &str) -> Result<(), String> {
    if is_tag(text) || text.parse::<Digest>().is_ok() {
        return Ok(());
    }
    Err(format!("{:?} is not a tag or a digest", printable(&shortened(text))))
}
