//! `registry-dir:DIR[:REPO[:TAG]]`.

use super::image_name::TreeReference;
use super::tree::root;
use super::{RegistryDirSink, RegistryDirStore, TreeRepositories};
use crate::blob_files::BlobCheck;
use crate::image::Name;
use crate::sink::Sink;
use crate::source::{Selector, Store};
use crate::transport::address::{
    Address, AddressProfile, InPlace, Listed, SelectedSource, ServeSource, Transport, all_of,
};
use crate::transport::names;
use crate::transport::options::{Context, ReadOptions, WriteOptions};
use crate::transport::syntax::{file_and_selector, suffix};
use crate::{Error, Result};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) const REGISTRY_DIR: Transport = Transport {
    scheme: "registry-dir:",
    syntax: "registry-dir:DIR[:REPO[:TAG]|:@DIGEST]",
    help: &[
        "the storage tree of a CNCF distribution registry (its rootdirectory); the",
        "registry may run. As SRC without REPO, every tag in it. As DST, not while",
        "the registry's garbage collection runs: it deletes blobs without a name.",
        "A Harbor's tree is only read",
    ],
    serve_forms: &[("registry-dir:DIR", "a registry's storage tree")],
    parse: |address, rest| {
        let (dir, selector) = file_and_selector(address, rest)?;
        if let Some(Selector::Name(text)) = &selector {
            TreeReference::parse(text).map_err(|e| e.at(address))?;
        }
        Ok(Box::new(RegistryDirAddress { dir, selector }))
    },
};

/// A registry's storage tree, and an image in it.
#[derive(Debug)]
struct RegistryDirAddress {
    dir: PathBuf,
    selector: Option<Selector>,
}

impl RegistryDirAddress {
    /// The image that the address names; `None` for all, and for one by digest.
    fn named(&self) -> Option<TreeReference> {
        match &self.selector {
            Some(Selector::Name(text)) => TreeReference::parse(text).ok(),
            _ => None,
        }
    }
}

impl fmt::Display for RegistryDirAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "registry-dir:{}{}", self.dir.display(), suffix(self.selector()))
    }
}

impl Address for RegistryDirAddress {
    fn source(&self, _options: &ReadOptions<'_>, context: &Context) -> Result<SelectedSource> {
        let store = RegistryDirStore::open(&self.dir)?.tell(context.watch.clone());
        Ok(SelectedSource::store(store, self.selector.clone()))
    }

    fn sink(&self, options: &WriteOptions<'_>, context: &Context) -> Result<Box<dyn Sink>> {
        let verify = if options.verify { BlobCheck::Digest } else { BlobCheck::Size };
        let sink = RegistryDirSink::open(&self.dir, verify, context.watch.clone())?;
        Ok(Box::new(sink.keep_partials(options.partial_lifetime).cancel(&context.cancel)))
    }

    fn identity(&self) -> Option<String> {
        let image = match (self.named(), &self.selector) {
            (Some(named), _) => named.name().map_or_else(|_| String::new(), |name| name.to_string()),
            (None, selector) => names::selector_key(selector.as_ref()),
        };
        Some(format!("registry-dir {} {image}", names::file_key(&root(&self.dir))?))
    }

    fn selector(&self) -> Option<&Selector> {
        self.selector.as_ref()
    }

    fn profile(&self) -> AddressProfile {
        AddressProfile { keeps_images: self.selector.is_none(), ..AddressProfile::default() }
    }

    /// `text` is a tag in the repository of the address, or `REPO:TAG`; without a repository, a full name.
    fn spell(&self, text: &str) -> Result<Name> {
        match self.named() {
            None => names::full(text),
            Some(named) if !text.contains(['/', ':', '@']) => {
                TreeReference::parse(&format!("{}:{text}", named.repository))?.name()
            }
            Some(_) => TreeReference::parse(text)?.name(),
        }
    }

    fn names(&self, given: &[String]) -> Result<Vec<Name>> {
        match (self.named(), &self.selector) {
            (Some(named), _) => Ok(vec![named.name()?]),
            (None, Some(selector)) => Err(Error::usage(format!("{selector} cannot be a name at DST; use a tag"))),
            (None, None) => given.iter().map(|name| self.spell(name)).collect(),
        }
    }

    /// All tags, or those of the repository that the address names without a tag. Their manifests are not read.
    fn list(&self, _options: &ReadOptions<'_>, context: &Context) -> Result<Option<Vec<Listed>>> {
        let store = RegistryDirStore::open(&self.dir)?.tell(context.watch.clone());
        let names = match &self.selector {
            None => Some(store.names()?),
            Some(Selector::Name(text)) => store.tags_of(text)?,
            Some(Selector::Digest(_)) => None,
        };
        Ok(names.map(|names| names.into_iter().map(|name| (name, None)).collect()))
    }

    fn serve_source(&self, _options: &ReadOptions<'_>, context: &Context) -> Result<ServeSource> {
        all_of(self.selector())?;
        Ok(ServeSource::Repositories(Arc::new(TreeRepositories::open(&self.dir)?.tell(context.watch.clone()))))
    }

    fn in_place(&self, _options: &ReadOptions<'_>, context: &Context) -> Result<InPlace> {
        let store = Arc::new(RegistryDirStore::open(&self.dir)?);
        let sink = RegistryDirSink::open(&self.dir, BlobCheck::Size, context.watch.clone())?.cancel(&context.cancel);
        Ok(InPlace::Store { store, selector: self.selector.clone(), sink: Box::new(sink) })
    }
}
