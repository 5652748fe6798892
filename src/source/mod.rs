//! Where images come from: a [`Store`] opens any blob in any order, from several threads.
//!
//! An archive that is read once is not a store: see [`crate::tarball::ArchiveStream`].

pub(crate) mod attached;
mod broken_links;
pub mod documents;
mod profile;
pub(crate) mod rebuilt;
mod referrers;
mod several;
mod tag_listing;
mod wrapper;

use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, Image, Manifest, Name, digest_tags};
use std::{borrow::Cow, collections::HashMap, io::Read, sync::Arc};

pub use broken_links::BrokenLinks;
pub use profile::{Origin, Profile};
pub use referrers::ReferrerList;
pub use several::Several;
pub use tag_listing::TagListing;
pub use wrapper::Wrapper;

/// One image as a user selects it in a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// By name, as typed (`app:2`, `v1`).
    Name(String),
    /// By digest of the manifest or index.
    Digest(Digest),
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Selector::Name(name) => f.write_str(name),
            Selector::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

/// One image that a source has.
#[derive(Debug, Clone)]
pub struct Root {
    /// The name in the source; `None` for an image without one.
    pub name: Option<Name>,
    /// Its manifest or index.
    pub descriptor: Descriptor,
    /// The source does not have this manifest. It was made from config and layers (docker-save's old form), or it is an
    /// index that was made of single-platform images.
    pub synthesised: bool,
    /// The manifest that the source recorded for the image, but of which it does not have the blobs: `synthesised` is true.
    pub lost_manifest: Option<Digest>,
    /// The manifest itself, where the source had to read it to know its digest (a registry's tag).
    pub manifest: Option<Arc<Manifest>>,
    /// The index that this root is a part of, where the source has its bytes although the root took its place.
    pub original: Option<Descriptor>,
}

impl Root {
    /// Creates a root without its manifest. The store has the manifest (`synthesised` is false).
    pub fn new(name: Option<Name>, descriptor: Descriptor) -> Root {
        Root { name, descriptor, synthesised: false, lost_manifest: None, manifest: None, original: None }
    }

    /// The manifest, which `store` is asked for unless this root carries it.
    ///
    /// # Errors
    /// Those of [`Store::manifest`], and `Invalid` for bytes that the descriptor does not describe.
    pub fn read(&self, store: &dyn Store) -> Result<Manifest> {
        match &self.manifest {
            Some(manifest) => Ok(Manifest::clone(manifest)),
            None => Manifest::parse(store.manifest(&self.descriptor)?, &self.descriptor),
        }
    }
}

/// A source whose blobs can be opened in any order: one repository, one layout, one containerd namespace or one archive
/// file. Its answers are claims until their bytes are hashed.
///
/// Every method may fail with `Failed`, `Network`, `Denied` or `RemoteHost` where the storage, the connection or the
/// remote host does, and with `Interrupted` when the copy is cancelled.
pub trait Store: Send + Sync {
    /// The images that `selectors` select.
    ///
    /// 1. The order is the order of `selectors`; without any, all images of the store are returned.
    /// 2. A selector by digest finds every manifest that the store has, also one without a name.
    /// 3. A root that carries its manifest was hashed.
    ///
    /// # Errors
    /// - `NotFound`: a selector matches no image; the message lists the images of the store, except a registry's.
    /// - `Usage`: a name matches several images.
    fn roots(&self, selectors: &[Selector]) -> Result<Vec<Root>>;

    /// The raw bytes of a manifest or an index; not verified, see [`Manifest::parse`].
    ///
    /// 1. At most `MAX_MANIFEST_BYTES` bytes are read.
    ///
    /// # Errors
    /// - `NotFound` or `Invalid`: the store does not have the manifest.
    /// - `Invalid`: it is larger.
    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>>;

    /// The bytes of `blob` from offset `from` to its end; not verified.
    ///
    /// 1. Several threads may open and read blobs at the same time, the same blob too.
    /// 2. At `from` = size the reader is empty.
    /// 3. Layers of docker-save's old form have digests only after `roots` returned their image.
    ///
    /// # Errors
    /// - `NotFound`: the store does not have the blob.
    /// - `Invalid`: it has another size, or `from` is behind its end, where the store knows that before it reads.
    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>>;

    /// The file that has the blob or manifest `digest`, for messages; `None` where the store does not know one.
    fn file_of(&self, _digest: &Digest) -> Option<String> {
        None
    }

    /// The size and, where known, the media type of the blob or manifest `digest`; `None` where the store does not have it.
    ///
    /// 1. A size of 0 stands for a size that only reading shows.
    /// 2. The bytes are not read.
    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>>;

    /// The manifest or index that `selector` selects, with its bytes unread where the store can tell; `None` where it
    /// does not exist.
    fn resolve(&self, selector: &Selector) -> Result<Option<Descriptor>> {
        match self.roots(std::slice::from_ref(selector)) {
            Ok(roots) => Ok(roots.into_iter().next().map(|root| root.descriptor)),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every name in the store. The manifests behind the names are not read.
    fn names(&self) -> Result<Vec<Name>> {
        Ok(self.roots(&[])?.into_iter().filter_map(|root| root.name).collect())
    }

    /// Calls `visit` for the tag of each name, as the store lists them. A tag may be visited twice.
    ///
    /// 1. The memory does not depend on the number of tags, where the store can list them in parts.
    /// 2. `Ok` means that the list was read to its end, see [`TagListing`]. After an error some tags were visited.
    ///
    /// # Errors
    /// The first error of `visit`.
    fn visit_tags(&self, visit: &mut dyn FnMut(&str) -> Result<()>) -> Result<TagListing> {
        let mut listing = TagListing::default();
        for name in self.names()? {
            match name.tag() {
                Some(tag) => visit(&tag)?,
                None => listing.skipped += 1,
            }
        }
        Ok(listing)
    }

    /// The referrers of `subject` (signatures, SBOMs); empty where there are none.
    ///
    /// 1. What is damaged, missing or too long to be listed is never left out without a reason in the list.
    fn referrers(&self, _subject: &Digest) -> Result<ReferrerList> {
        Ok(ReferrerList::default())
    }

    /// The manifests under cosign's tags for `subject` ([`digest_tags`]), with their tags; empty where there are none.
    fn digest_tagged(&self, subject: &Digest) -> Result<Vec<(String, Descriptor)>> {
        let wanted = digest_tags(subject);
        let mut found: Vec<(String, Descriptor)> = Vec::new();
        for name in self.names()? {
            let Some(tag) = name.tag().filter(|tag| wanted.contains(tag)) else { continue };
            let root = self.roots(&[Selector::Name(name.as_str().to_owned())])?.into_iter().next();
            found.extend(
                root.filter(|_| found.iter().all(|(known, _)| *known != tag)).map(|root| (tag, root.descriptor)),
            );
        }
        Ok(found)
    }

    /// The manifests under cosign's tags that [`Store::names`] does not list, with their tags.
    fn unlisted_digest_tags(&self) -> Vec<(String, Descriptor)> {
        Vec::new()
    }

    /// The missing and broken links without which the store's registry cannot serve `image`. imgmv reads it without them.
    fn broken_links(&self, _image: &Image) -> Result<BrokenLinks> {
        Ok(BrokenLinks::default())
    }

    /// `error`, that the bytes of `blob` have another digest, with what the store knows about their place.
    fn located(&self, blob: &Descriptor, error: Error) -> Error {
        match self.file_of(&blob.digest) {
            Some(file) => error.at_once(&file),
            None => error,
        }
    }

    /// The properties of the store that the copy plans with. `parallel_reads` may change during a copy.
    fn profile(&self) -> Profile {
        Profile::default()
    }
}

/// `error` about the blob or manifest `digest`, with the file that has it.
pub(crate) fn with_file(store: &dyn Store, digest: &Digest, error: Error) -> Error {
    match store.file_of(digest) {
        Some(file) => error.at_once(&file),
        None => error,
    }
}

/// A location with several repositories, each of which is a store.
pub trait Repositories: Send + Sync {
    /// The names of all repositories, in any order.
    ///
    /// # Errors
    /// - `Invalid`: there are more than the location lists.
    fn names(&self) -> Result<Vec<String>>;

    /// Opens the repository `name`, whose selectors by name are tags; `None` if it does not exist.
    fn open(&self, name: &str) -> Result<Option<Arc<dyn Store>>>;
}

/// The unverified description of a blob.
#[derive(Debug, Clone, Default)]
pub struct Claim {
    /// The digest; `None` if it is not known before the end.
    pub digest: Option<Digest>,
    /// In bytes.
    pub size: Option<u64>,
}

impl From<&Descriptor> for Claim {
    fn from(blob: &Descriptor) -> Claim {
        Claim { digest: Some(blob.digest), size: Some(blob.size) }
    }
}

/// The roots among `all` that `selectors` select, in the order of `selectors`; all without any selector. An exact name wins over a
/// tag.
///
/// # Errors
/// - `NotFound`: a selector matches no root; the message lists the names.
/// - `Usage`: a tag matches several images.
pub fn select(all: &[Root], selectors: &[Selector]) -> Result<Vec<Root>> {
    if selectors.is_empty() {
        return Ok(all.to_vec());
    }
    let mut chosen = Vec::new();
    for selector in selectors {
        let fits = |root: &&Root| match selector {
            Selector::Digest(digest) => root.descriptor.digest == *digest,
            Selector::Name(asked) => root.name.as_ref().is_some_and(|name| name.matches(asked)),
        };
        let found: Vec<&Root> = all.iter().filter(fits).collect();
        let is_exact = |root: &&&Root| matches!(selector, Selector::Name(asked) if root.name.as_ref().is_some_and(|n| n.as_str() == asked));
        let exact: Vec<&Root> = found.iter().filter(is_exact).copied().collect();
        let same = |found: &[&Root]| found.iter().all(|root| root.descriptor.digest == found[0].descriptor.digest);
        match (&found[..], &exact[..]) {
            ([], _) => {
                return Err(Error::not_found(format!(
                    "image {selector} was not found; the source has {}",
                    listed(all)
                )));
            }
            (_, exact @ [first, ..]) if same(exact) => chosen.push((*first).clone()),
            (found, []) if same(found) => chosen.push(found[0].clone()),
            (_, exact @ [first, ..]) => {
                let other = exact.iter().find(|root| root.descriptor.digest != first.descriptor.digest);
                return Err(two_images(&selector.to_string(), first, other.unwrap_or(first)));
            }
            (found, []) => {
                let names: Vec<&str> = found.iter().filter_map(|root| root.name.as_ref()).map(Name::as_str).collect();
                return Err(Error::usage(format!(
                    "{selector} matches several images: {}; write the full name of one",
                    names.join(", ")
                )));
            }
        }
    }
    Ok(chosen)
}

/// `all`, and a root for each digest of `selectors` that `all` does not list, if `read` returns its manifest.
///
/// # Errors
/// Those of `read`.
pub(crate) fn with_unlisted<'r>(
    all: impl Into<Cow<'r, [Root]>>,
    selectors: &[Selector],
    read: impl Fn(&Digest) -> Result<Option<Vec<u8>>>,
) -> Result<Cow<'r, [Root]>> {
    let mut known = all.into();
    for selector in selectors {
        let Selector::Digest(digest) = selector else { continue };
        if known.iter().any(|root| root.descriptor.digest == *digest) {
            continue;
        }
        let Some(bytes) = read(digest)? else { continue };
        let claim = Descriptor::new("", *digest, bytes.len() as u64);
        if let Ok(manifest) = Manifest::parse(bytes, &claim) {
            known.to_mut().push(Root::new(None, manifest.descriptor));
        }
    }
    Ok(known)
}

/// The error for the first of `all` that has the name of another image.
pub fn ambiguous(all: &[Root]) -> Option<Error> {
    let mut owners: HashMap<&Name, &Root> = HashMap::new();
    all.iter().find_map(|root| {
        let name = root.name.as_ref()?;
        let owner = *owners.entry(name).or_insert(root);
        (owner.descriptor.digest != root.descriptor.digest).then(|| two_images(name.as_str(), owner, root))
    })
}

fn two_images(name: &str, one: &Root, other: &Root) -> Error {
    let (one, other) = (one.descriptor.digest, other.descriptor.digest);
    Error::usage(format!("{name} is the name of two images, @{one} and @{other}; select one by its digest"))
}

fn listed(all: &[Root]) -> String {
    const SHOWN: usize = 8;
    let names: Vec<&str> = all.iter().filter_map(|root| root.name.as_ref()).map(Name::as_str).collect();
    match names.len() {
        0 if all.is_empty() => "none".to_owned(),
        0 => format!("{} without a name (use @sha256:…)", all.len()),
        n if n > SHOWN => format!("{} and {} more", names[..SHOWN].join(", "), n - SHOWN),
        _ => names.join(", "),
    }
}
