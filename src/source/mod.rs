//! Where images come from. The difference is physical: a [`Store`] opens any blob in any order from several threads;
//! a [`Stream`] passes once.

pub mod documents;

use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, Name};
use std::{collections::HashMap, io::Read, sync::Arc};

pub enum Source {
    Store(Arc<dyn Store>),
    Stream(Box<dyn Stream>),
}

/// What a user asks of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// By name, as typed (`app:2`, `v1`).
    Name(String),
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
    /// None where the source keeps the image without a name.
    pub name: Option<Name>,
    /// Its manifest or index.
    pub descriptor: Descriptor,
    /// The source has no such manifest: it was made from config and layers (docker-save's old form), or is an index over
    /// platforms that lie side by side.
    pub synthesised: bool,
}

impl Root {
    pub fn new(name: Option<Name>, descriptor: Descriptor) -> Root {
        Root { name, descriptor, synthesised: false }
    }
}

/// Which registry and repository a store is: lets a sink at the same registry mount instead of copying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// `HOST[:PORT]`, as in references.
    pub host: String,
    pub repository: String,
}

/// A source bound to one place (one repository, one layout, one containerd namespace, one archive file) whose blobs
/// can be opened in any order. Everything it says is a claim until it was hashed.
pub trait Store: Send + Sync {
    /// The images that `picks` select, in their order; all when empty. A pick that selects nothing is `NotFound`,
    /// with what there is in the message.
    fn roots(&self, picks: &[Selector]) -> Result<Vec<Root>>;
    /// The raw bytes of a manifest or an index, at most `MAX_MANIFEST_BYTES`. Believed only after `Manifest::parse`.
    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>>;
    /// The bytes of `blob` from offset `from` on.
    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>>;
    /// Size (0 where only reading it tells) and, where known, type of what is there under `digest`.
    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>>;
    /// Every name the source has, without a look at what it points at.
    fn names(&self) -> Result<Vec<Name>> {
        Ok(self.roots(&[])?.into_iter().filter_map(|root| root.name).collect())
    }
    /// What refers to `subject` (signatures, SBOMs).
    fn referrers(&self, _subject: &Digest) -> Result<Vec<Descriptor>> {
        Ok(Vec::new())
    }
    /// Whether `layer`, of a nondistributable type, can be opened although `find` does not know it.
    fn fetches(&self, _layer: &Descriptor) -> bool {
        false
    }
    fn origin(&self) -> Option<&Origin> {
        None
    }
    /// The sentence for a source that has no image at all: which file it is, and what was found in it.
    fn nothing(&self) -> String {
        "the source holds no image".to_owned()
    }
    /// Whether an index here may come without some of the images it lists, as engines keep them. Then the engine asks
    /// `find` before it plans on a child.
    fn is_sparse(&self) -> bool {
        false
    }
    /// Whether each blob costs a way there and back: then several are read ahead for a sink that takes one after the
    /// other.
    fn is_far(&self) -> bool {
        self.origin().is_some()
    }
    /// How many blobs are best read at once; advice.
    fn lanes(&self) -> usize {
        4
    }
    /// Hears from the engine, before it opens blobs, which of them it is going to open: `wanted`, in the order of `all`.
    fn expect(&self, _all: &[Digest], _wanted: &mut dyn Iterator<Item = Digest>) {}
    /// Hears that a blob that was expected will not be opened (any more).
    fn skip_blob(&self, _blob: &Digest) {}
}

/// What someone says of a blob; believed by nobody.
#[derive(Debug, Clone, Default)]
pub struct Claim {
    pub digest: Option<Digest>,
    /// In bytes.
    pub size: Option<u64>,
}

impl From<&Descriptor> for Claim {
    fn from(blob: &Descriptor) -> Claim {
        Claim { digest: Some(blob.digest), size: Some(blob.size) }
    }
}

/// A blob that is passing.
pub struct Blob<'a> {
    pub claim: Claim,
    pub bytes: Box<dyn Read + Send + 'a>,
}

/// What a stream has shown once it has passed.
pub struct StreamSummary {
    pub roots: Vec<Root>,
    /// Manifests, indexes and configs (small JSON documents), which are not among the blobs of `next_blob`.
    pub documents: HashMap<Digest, Vec<u8>>,
    /// [`Store::nothing`], of what has passed.
    pub nothing: String,
}

impl StreamSummary {
    /// The roots that `picks` select, as [`Store::roots`] does.
    pub fn select(&self, picks: &[Selector]) -> Result<Vec<Root>> {
        select(&self.roots, picks)
    }
}

/// A source that passes once, manifest last (standard input, a compressed archive).
pub trait Stream: Send {
    /// Whether blobs come under names that are their digests (an OCI layout in a tar). Where not (docker-save's old
    /// form) every claim is without a digest. Reads ahead as little as it takes to know.
    fn digests_known(&mut self) -> Result<bool>;
    /// Of the images that are coming, each one's layers unpacked (their diff IDs), lowest first, where the source could
    /// say so beforehand; among the blobs are then perhaps these.
    fn expected_diff_ids(&self) -> Vec<Vec<Digest>> {
        Vec::new()
    }
    /// The next blob that is not a small JSON document; what is left unread of the one before is skipped.
    fn next_blob(&mut self) -> Result<Option<Blob<'_>>>;
    /// To be called when `next_blob` has said `None`: the images, checked for internal agreement.
    fn finish(self: Box<Self>) -> Result<StreamSummary>;
    /// Passes the archive on to `out` in its own form and in one pass: only for a stream whose digests are not known
    /// beforehand. Layers are hashed on the way and checked against the configs' `diff_ids`; names become what
    /// `rename` makes of them; a picked image's others are left out of the written `manifest.json`.
    fn relay(self: Box<Self>, relay: Relay<'_>) -> Result<StreamSummary>;
}

/// How [`Stream::relay`] passes an archive on.
pub struct Relay<'a> {
    pub out: &'a mut (dyn std::io::Write + Send),
    pub picks: &'a [Selector],
    /// From the names a stream keeps for an image to those it is to have.
    pub rename: &'a dyn Fn(&[Name]) -> Result<Vec<Name>>,
    /// Called with the number of bytes passed since the last call; an error ends the relay.
    pub moved: &'a mut dyn FnMut(u64) -> Result<()>,
}

/// The roots among `all` that `picks` select, in the order of `picks`; all when there are none.
///
/// An exact name wins over a tag; a bare name that several images answer to is `Usage`.
pub fn select(all: &[Root], picks: &[Selector]) -> Result<Vec<Root>> {
    if picks.is_empty() {
        return Ok(all.to_vec());
    }
    let mut chosen = Vec::new();
    for pick in picks {
        let fits = |root: &&Root| match pick {
            Selector::Digest(digest) => root.descriptor.digest == *digest,
            Selector::Name(asked) => root.name.as_ref().is_some_and(|name| name.matches(asked)),
        };
        let found: Vec<&Root> = all.iter().filter(fits).collect();
        let is_exact = |root: &&&Root| matches!(pick, Selector::Name(asked) if root.name.as_ref().is_some_and(|n| n.as_str() == asked));
        let exact: Vec<&Root> = found.iter().filter(is_exact).copied().collect();
        let same = |found: &[&Root]| found.iter().all(|root| root.descriptor.digest == found[0].descriptor.digest);
        match (&found[..], &exact[..]) {
            ([], _) => {
                return Err(Error::not_found(format!("no image {pick} here; there is {}", listed(all))));
            }
            (_, exact @ [first, ..]) if same(exact) => chosen.push((*first).clone()),
            (found, []) if same(found) => chosen.push(found[0].clone()),
            (_, exact @ [first, ..]) => {
                let other = exact.iter().find(|root| root.descriptor.digest != first.descriptor.digest);
                return Err(two_images(&pick.to_string(), first, other.unwrap_or(first)));
            }
            (found, []) => {
                let names: Vec<&str> = found.iter().filter_map(|root| root.name.as_ref()).map(Name::as_str).collect();
                return Err(Error::usage(format!(
                    "{pick} means several images here: {}; write one in full",
                    names.join(", ")
                )));
            }
        }
    }
    Ok(chosen)
}

/// The first of `all` that has the name of another image.
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
    Error::usage(format!("{name} stands for two images there, @{one} and @{other}; choose one by its digest"))
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
