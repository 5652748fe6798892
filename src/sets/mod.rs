//! Documents that list images to copy: plain lists, pairs, imgmv's own YAML, and the files of other tools.
//!
//! [`read`] recognises the format of a document and returns its entries, the same for every format. A document is data:
//! nothing in it is executed, nothing is read from the disk, and nothing is requested. `templates` are expanded only in
//! credentials, and only if the user allows it.

use crate::image::Platform;
use crate::tag_filter::TagFilter;

/// The images that a document lists.
#[derive(Debug)]
pub struct ImageSet {
    pub format: Format,
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
    pub tags: Tags,
    /// The destinations as DST of a copy; empty: the DST of the command line.
    pub to: Vec<Box<str>>,
    /// Empty: those of the command line.
    pub platforms: Vec<Platform>,
    /// Whether referrers are copied; none: as the command line says.
    pub referrers: Option<bool>,
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
    List,
    Pairs,
    Imgmv,
    ImageSyncer,
    Skopeo,
    Regsync,
    Dregsy,
    Hauler,
    Ocync,
}

/// What a document says of one registry. It applies to this host only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostOptions {
    /// `HOST[:PORT]`.
    pub host: Box<str>,
    /// The path below which the credentials apply; empty: the whole host.
    pub path: Box<str>,
    pub login: Option<Login>,
    /// Whether certificates are not verified and plain HTTP is allowed.
    pub insecure: bool,
}

/// The credentials beside a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password: crate::transport::registry::Secret,
}
