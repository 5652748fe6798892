//! The trait of addresses (SRC and DST), which each transport implements once.

use super::names;
use super::options::{Context, ReadOptions, WriteOptions};
use super::registry::{Prefix, Registry};
use crate::image::{Descriptor, Digest, Name, Reference};
use crate::sink::Sink;
use crate::source::{Repositories, Selector, Store};
use crate::tarball::UnopenedArchive;
use crate::{Error, Result};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// An address, or why a word is not one.
pub(crate) type Parsed = Result<Box<dyn Address>>;

/// A transport: one row of [`super::table::TABLE`].
pub(crate) struct Transport {
    /// The beginning of its addresses, as `oci:` or `docker://`.
    pub scheme: &'static str,
    /// The form of its addresses, for the help.
    pub syntax: &'static str,
    /// The lines below `syntax` in the help.
    pub help: &'static [&'static str],
    /// Forms and descriptions for the help of `imgmv serve`; empty: cannot be served.
    pub serve_forms: &'static [(&'static str, &'static str)],
    /// Parses an address, given as a whole and without the scheme.
    pub parse: fn(&str, &str) -> Parsed,
}

/// A form of addresses without a scheme: one row of [`super::table::SHORT_FORMS`].
pub(crate) struct ShortForm {
    pub syntax: &'static str,
    pub help: &'static [&'static str],
    pub serve_forms: &'static [(&'static str, &'static str)],
    /// Parses an address; `None` if it does not have this form.
    pub parse: fn(&str) -> Option<Parsed>,
}

/// One SRC or DST. Displayed in its canonical form.
pub(crate) trait Address: fmt::Debug + fmt::Display + Send + Sync {
    /// Opens the address as a SRC.
    fn source(&self, options: &ReadOptions<'_>, context: &Context) -> Result<SelectedSource>;

    /// Opens the address as a DST.
    fn sink(&self, options: &WriteOptions<'_>, context: &Context) -> Result<Box<dyn Sink>>;

    /// The key that all spellings of one destination share. `None` for a device, which may be written to repeatedly.
    fn identity(&self) -> Option<String>;

    /// The image that the address selects; none: all.
    fn selector(&self) -> Option<&Selector> {
        None
    }

    fn profile(&self) -> AddressProfile {
        AddressProfile::default()
    }

    /// Parses `text` as the name of an image at this address.
    fn spell(&self, text: &str) -> Result<Name> {
        names::full(text)
    }

    /// Whether the address has the name that an image gets here, so that `--as` is not used.
    fn names_itself(&self) -> bool {
        self.selector().is_some()
    }

    /// The names that an image gets here: the address's own, else `given` (`--as`). Empty: the source's.
    fn names(&self, given: &[String]) -> Result<Vec<Name>> {
        match self.selector() {
            None => given.iter().map(|name| self.spell(name)).collect(),
            Some(Selector::Name(name)) => Ok(vec![self.spell(name)?]),
            Some(Selector::Digest(digest)) => {
                Err(Error::usage(format!("@{digest} cannot be a name at DST: an image's digest is fixed; use a tag")))
            }
        }
    }

    /// Lists names without reading images. `None` if the transport cannot: then the source is opened.
    fn list(&self, _options: &ReadOptions<'_>, _context: &Context) -> Result<Option<Vec<Listed>>> {
        Ok(None)
    }

    /// Describes the store or registry that `imgmv serve` reads.
    fn serve_source(&self, _options: &ReadOptions<'_>, _context: &Context) -> Result<ServeSource> {
        Err(Error::usage(
            "an engine or a pipe is not a store that can be served; serve containerd:, or copy it to a layout first",
        ))
    }

    /// Opens the address to name an image that it has.
    fn in_place(&self, _options: &ReadOptions<'_>, _context: &Context) -> Result<InPlace> {
        Err(Error::usage(
            "tag works on a registry, its storage tree, a layout or an archive in a file; use imgmv copy --as",
        ))
    }

    /// Opens the address to delete the image that it selects, or only its name.
    fn deletable(&self, _options: &ReadOptions<'_>, _context: &Context) -> Result<Deletable> {
        Err(Error::usage(format!(
            "{self}: delete works on a registry or a layout; copy the images of an archive that you keep to another \
             one, and use an engine's own command"
        )))
    }

    /// Opens the repository or the whole layout, to delete names that a sync does not want there.
    fn deletable_names(&self, _options: &ReadOptions<'_>, _context: &Context) -> Result<DeletableNames> {
        Err(Error::usage(format!(
            "{self}: --delete works on a registry or a layout; sync this destination without --delete"
        )))
    }

    /// The prefix of a registry below which each image keeps its path.
    fn prefix(&self) -> Option<&Prefix> {
        None
    }

    /// The repository of a registry, with the tag or digest of the address.
    fn repository(&self) -> Option<&Reference> {
        None
    }

    /// The directory of an OCI layout, if the address can be one and selects no image.
    fn layout(&self) -> Option<&Path> {
        None
    }
}

/// The properties of an address that are known before it is opened.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AddressProfile {
    /// Its bytes go over the network, where `--limit-rate` counts them.
    pub is_remote: bool,
    /// Standard input or output.
    pub is_stdio: bool,
    /// A repository, whose registry may need a password.
    pub is_repository: bool,
    /// A directory with many images, to which each copy adds its own.
    pub keeps_images: bool,
    /// An engine, which does not store referrers.
    pub is_engine: bool,
    /// Another host: braces in the address stand for several, even where it is valid with them.
    pub is_host: bool,
}

/// A source, and the image in it that the address selects.
pub(crate) struct SelectedSource {
    pub source: OpenSource,
    pub selector: Option<Selector>,
    /// The address's own name for an image that it selects by digest (`app@sha256:…`, `app:2@sha256:…`).
    pub name: Option<Name>,
}

impl SelectedSource {
    pub(crate) fn store(store: impl Store + 'static, selector: Option<Selector>) -> SelectedSource {
        SelectedSource { source: OpenSource::Store(Arc::new(store)), selector, name: None }
    }
}

/// An open source.
pub(crate) enum OpenSource {
    Store(Arc<dyn Store>),
    /// An archive that is read once, of which nothing has been read.
    UnopenedArchive(UnopenedArchive),
}

/// An image's name, with its digest and media type where the listing has them.
pub(crate) type Listed = (Name, Option<(Digest, String)>);

/// Opens a store again.
pub(crate) type Reopen = Box<dyn Fn() -> Result<Arc<dyn Store>> + Send + Sync>;

/// A source of `imgmv serve`.
pub(crate) enum ServeSource {
    /// A store on this host, reopened when one of the files `watched` changes.
    Store {
        watched: Vec<PathBuf>,
        /// The least time between two looks at `watched`.
        poll_interval: Duration,
        /// The repository of images that have no full name.
        repository: RepositoryName,
        open: Reopen,
    },
    /// Repositories on this host, each opened by its name for each request.
    Repositories(Arc<dyn Repositories>),
    /// The repositories of a registry below a path (empty, or ending in `/`).
    Below { registry: Arc<Registry>, path: String },
    /// One repository of a registry.
    Repository { registry: Arc<Registry>, repository: String },
}

/// How a repository is called that has no name in its store.
pub(crate) enum RepositoryName {
    Fixed(&'static str),
    /// As the file or directory.
    FromPath(PathBuf),
}

/// An address whose images get other names.
pub(crate) enum InPlace {
    /// A store, and the sink of the same images.
    Store { store: Arc<dyn Store>, selector: Option<Selector>, sink: Box<dyn Sink> },
    /// An archive, which is replaced.
    Archive { file: PathBuf, selector: Option<Selector> },
}

/// An image that is deleted, or only its name.
pub(crate) struct Deletable {
    pub store: Arc<dyn Store>,
    /// The image; its name is deleted if it is selected by name.
    pub selector: Selector,
    /// The digest that the image must have.
    pub digest: Option<Digest>,
    pub deleter: Box<dyn Deleter>,
}

/// A repository or layout of which names are deleted.
pub(crate) struct DeletableNames {
    pub store: Arc<dyn Store>,
    pub deleter: Box<dyn Deleter>,
}

/// A repository or layout of which names and manifests are deleted.
pub(crate) trait Deleter: Send + Sync {
    /// Deletes `name`, and never its manifest.
    fn delete_name(&self, name: &Name) -> Result<TagDeletion>;

    /// Calls `visit` for each name, in any order. A name may be visited twice.
    fn visit_names(&self, visit: &mut dyn FnMut(Name) -> Result<()>) -> Result<()>;

    /// The present digest of `name`; `None` if it does not exist. A layout is read again.
    ///
    /// # Errors
    /// - `Invalid`: the name has several digests.
    fn digest_of(&self, name: &Name) -> Result<Option<Digest>>;

    /// Whether the manifest `digest` exists, with a name or without.
    fn has_manifest(&self, digest: &Digest) -> Result<bool>;

    /// The names, each with its manifest or index. Names that do not exist any more are left out.
    fn targets(&self) -> Result<NameTargets>;

    /// Deletes the manifest `digest` and every name of it; returns whether it existed.
    fn delete_manifest(&self, digest: &Digest) -> Result<bool>;

    /// Removes `referrer`, which was deleted, from the list of the referrers of `subject`, where such a list is stored.
    fn forget_referrer(&self, _subject: &Digest, _referrer: &Digest) -> Result<()> {
        Ok(())
    }

    /// Deletes the list of the referrers of `subject`, which were all deleted, where such a list is stored.
    fn forget_referrers(&self, _subject: &Digest) -> Result<()> {
        Ok(())
    }
}

/// The end of a deletion of a name.
#[derive(Debug)]
pub(crate) enum TagDeletion {
    Deleted,
    /// The registry cannot delete tags, and its answer.
    Unsupported(String),
}

/// The names in a repository or layout.
#[derive(Debug, Default)]
pub(crate) struct NameTargets {
    /// Each name with its manifest or index; `None` for an image without a name, where a layout lists one.
    pub targets: Vec<(Option<Name>, Descriptor)>,
    /// The number of names whose target is not known, because there are too many names or the target cannot be read.
    pub unchecked: usize,
}

/// The selector of the image that `delete` deletes; `Usage` if the address selects none.
pub(crate) fn one_of(selector: Option<&Selector>, address: &dyn Address) -> Result<Selector> {
    selector.cloned().ok_or_else(|| {
        Error::usage(format!("{address} names no image; write the tag or the digest of the image to delete"))
    })
}

/// Fails if the address selects one image: `serve` takes all.
pub(crate) fn all_of(selector: Option<&Selector>) -> Result<()> {
    match selector {
        None => Ok(()),
        Some(selector) => Err(Error::usage(format!("serve takes a whole SRC, not one image; remove {selector}"))),
    }
}
