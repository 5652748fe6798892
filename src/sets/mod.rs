//! Documents that list images to copy: plain lists, pairs, imgmv's own YAML, and the files of other tools.
//!
//! [`read`] recognises the format of a document and returns its entries, the same for every format. A document is data:
//! nothing in it is executed, nothing is read from the disk, and nothing is requested. Templates are expanded only in
//! credentials, and only if the user allows it.
//!
//! - `word`: words that name a document, and `REPO:/regex/`. `list`: plain lists and pairs, line by line.
//! - `tree`: YAML and JSON as a compact tree whose values know their lines. One parser reads both, since JSON is YAML.
//! - `formats`: one file for each tool's format. Each matches over the keys of a map and names the keys that it skips.
//! - `builder`: the entries, checked and counted. `credentials`: hosts, logins and their templates.
//!
//! **Memory.** Document, tree and entries need less than 64 MiB together: 16 MiB of text, `tree` has a limit of nodes, and
//! `builder` counts the memory of the entries. A text in the tree is a range of the document. Entries share equal patterns.

mod builder;
mod credentials;
mod formats;
mod list;
mod tree;
mod word;

pub use word::{is_document_word, pattern};

use crate::error::{Error, Result};
use crate::image::Platform;
use crate::tag_filter::TagFilter;
use builder::SetBuilder;
use std::fmt;

/// The maximum length of a document.
pub const MAX_DOCUMENT_BYTES: usize = 16 << 20;

/// How a document is read. The lookups are called only for templates in credentials.
pub struct ReadOptions<'o> {
    /// Whether templates in credentials are expanded.
    pub allow_templates: bool,
    /// Whether a document without images is not an error.
    pub allow_empty: bool,
    /// The value of a variable of the environment.
    pub env: &'o dyn Fn(&str) -> Option<String>,
    /// The content of a file.
    pub file: &'o dyn Fn(&str) -> Result<String>,
}

/// Reads a document of any format.
///
/// # Errors
/// `Invalid`, with the place in the document: the format is unknown, a value has the wrong type, or a limit is exceeded.
/// `Usage`: credentials have a template, and templates are not allowed. Errors of the lookups.
pub fn read(text: &[u8], options: &ReadOptions<'_>) -> Result<ImageSet> {
    let mut set = SetBuilder::new(options);
    let text = decoded(text)?;
    if !is_tree(text) {
        return list::read(text, set);
    }
    let tree = tree::parse(text)?;
    set.count(tree.bytes(), "the document")?;
    formats::read(&tree, set)
}

/// The text without a byte order mark.
fn decoded(bytes: &[u8]) -> Result<&str> {
    if bytes.len() > MAX_DOCUMENT_BYTES {
        return Err(Error::invalid(format!(
            "the document has {} bytes; at most {MAX_DOCUMENT_BYTES} are allowed, so divide it",
            bytes.len()
        )));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        Error::invalid(format!("line {line}: the document is not UTF-8 text; save it as UTF-8"))
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Whether the first line that is not blank or a comment begins YAML or JSON. No image and no pair begins so.
fn is_tree(text: &str) -> bool {
    let lines = text.lines().map(str::trim);
    let Some(line) = lines.into_iter().find(|line| !line.is_empty() && !line.starts_with('#')) else { return false };
    let mut words = line.split_ascii_whitespace();
    let (first, second) = (words.next().unwrap_or_default(), words.next());
    let is_key = first.ends_with(':') && !first.contains("://") || second == Some(":");
    let is_flow_list = first.starts_with('[') && !first[1..].starts_with(|c: char| c == ':' || c.is_ascii_hexdigit());
    is_key || is_flow_list || first == "-" || first == "---" || first.starts_with(['{', '"', '\'', '%', '&', '!'])
}

/// The images that a document lists.
#[derive(Debug)]
pub struct ImageSet {
    /// The format that was recognised.
    pub format: Format,
    /// In the order of the document; at least one, unless the options allow an empty document.
    pub entries: Vec<Entry>,
    /// Options for the hosts that the document names.
    pub hosts: Vec<HostOptions>,
    /// The keys that imgmv does not honour, with their place (`sync[2].interval`), each once.
    pub not_honoured: Vec<String>,
}

/// One repository or image, with its destinations.
#[derive(Debug)]
pub struct Entry {
    /// The place in the document, for messages: `line 3`, `sync[2]`.
    pub place: Box<str>,
    /// The image as SRC of a copy, or its repository if `tags` selects tags. Not checked.
    pub from: Box<str>,
    /// The tags that are copied.
    pub tags: Tags,
    /// The destinations as DST of a copy; empty: the DST of the command line.
    pub to: Vec<Box<str>>,
    /// Empty: those of the command line.
    pub platforms: Vec<Platform>,
    /// Whether referrers are copied; none: as the command line says.
    pub referrers: Option<bool>,
}

impl Entry {
    /// The image `from` at `place`, with the destination and the options of the command line.
    fn named(place: &str, from: &str) -> Entry {
        Entry {
            place: place.into(),
            from: from.into(),
            tags: Tags::Named,
            to: Vec::new(),
            platforms: Vec::new(),
            referrers: None,
        }
    }
}

/// The tags of one entry.
#[derive(Debug)]
pub enum Tags {
    /// The image that `from` names.
    Named,
    /// These tags or digests of the repository `from`. Its tags are not listed.
    Listed(Vec<ListedTag>),
    /// The tags of the repository `from` that pass the filter.
    Filtered(TagFilter),
}

/// One tag or digest of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedTag {
    /// A tag, or `ALGORITHM:HEX`.
    pub from: Box<str>,
    /// The tag at the destination, if it is another one.
    pub to: Option<Box<str>>,
}

/// The format of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One image a line.
    List,
    /// One image and its destination a line.
    Pairs,
    /// imgmv's own YAML.
    Imgmv,
    /// The map of image-syncer, or its old configuration.
    ImageSyncer,
    /// The YAML of `skopeo sync`.
    Skopeo,
    /// The configuration of regsync, version 1.
    Regsync,
    /// The configuration of dregsy: its images.
    Dregsy,
    /// The manifests of hauler: their images.
    Hauler,
    /// The configuration of ocync: its images.
    Ocync,
}

impl fmt::Display for Format {
    /// The format as the first line of the output names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::List => "plain list",
            Format::Pairs => "list of pairs",
            Format::Imgmv => "imgmv file",
            Format::ImageSyncer => "image-syncer file",
            Format::Skopeo => "skopeo sync file",
            Format::Regsync => "regsync file",
            Format::Dregsy => "dregsy file",
            Format::Hauler => "hauler file",
            Format::Ocync => "ocync file",
        })
    }
}

/// Options that a document has for one registry. It applies to this host only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostOptions {
    /// `HOST[:PORT]`.
    pub host: Box<str>,
    /// The path below which the credentials apply; empty: the whole host.
    pub path: Box<str>,
    /// The credentials, if the document has some.
    pub login: Option<Login>,
    /// Whether certificates are not verified and plain HTTP is allowed.
    pub insecure: bool,
}

/// The credentials that a document has for a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user name.
    pub user: String,
    /// The password or an access token.
    pub password: crate::transport::registry::Secret,
}
