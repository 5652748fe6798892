//! `oci:DIR[:REF]`.

use super::delete::LayoutDeleter;
use super::{BlobCheck, LayoutSink, LayoutStore};
use crate::Result;
use crate::image::Name;
use crate::progress::Event;
use crate::sink::Sink;
use crate::source::{Selector, Store};
use crate::transport::address::{
    Address, AddressProfile, Deletable, DeletableNames, InPlace, RepositoryName, SelectedSource, ServeSource,
    Transport, all_of, one_of,
};
use crate::transport::names;
use crate::transport::options::{Context, ReadOptions, WriteOptions};
use crate::transport::syntax::{file_and_selector, suffix};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub(crate) const OCI: Transport = Transport {
    scheme: "oci:",
    syntax: "oci:DIR[:REF|:@DIGEST]",
    help: &["an OCI layout in a directory; without REF, every image in it"],
    serve_forms: &[("oci:DIR", "an OCI layout")],
    parse: |address, rest| {
        let (dir, selector) = file_and_selector(address, rest)?;
        Ok(Box::new(LayoutAddress { dir, selector }))
    },
};

/// A layout, and an image in it.
#[derive(Debug)]
pub(crate) struct LayoutAddress {
    pub dir: PathBuf,
    pub selector: Option<Selector>,
}

impl fmt::Display for LayoutAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci:{}{}", self.dir.display(), suffix(self.selector()))
    }
}

impl Address for LayoutAddress {
    fn source(&self, _options: &ReadOptions<'_>, context: &Context) -> Result<SelectedSource> {
        let store = LayoutStore::open(&self.dir)?;
        if !store.has_layout_file() {
            let dir = self.dir.display();
            context.watch.event(Event::Detail(&format!("{dir} has no file oci-layout; it is read as a layout anyway")));
        }
        Ok(SelectedSource::store(store, self.selector.clone()))
    }

    fn sink(&self, options: &WriteOptions<'_>, context: &Context) -> Result<Box<dyn Sink>> {
        let verify = if options.verify { BlobCheck::Digest } else { BlobCheck::Size };
        let sink = LayoutSink::open(&self.dir, verify, context.watch.clone())?;
        Ok(Box::new(sink.keep_partials(options.partial_lifetime).cancel(&context.cancel)))
    }

    fn identity(&self) -> Option<String> {
        Some(format!("{} {}", names::file_key(&self.dir)?, names::selector_key(self.selector())))
    }

    fn selector(&self) -> Option<&Selector> {
        self.selector.as_ref()
    }

    fn profile(&self) -> AddressProfile {
        AddressProfile { keeps_images: self.selector.is_none(), ..AddressProfile::default() }
    }

    fn spell(&self, text: &str) -> Result<Name> {
        names::tag_or_full(text)
    }

    fn serve_source(&self, _options: &ReadOptions<'_>, _context: &Context) -> Result<ServeSource> {
        all_of(self.selector())?;
        let dir = self.dir.clone();
        Ok(ServeSource::Store {
            watched: vec![self.dir.join("index.json")],
            poll_interval: Duration::ZERO,
            repository: RepositoryName::FromPath(self.dir.clone()),
            open: Box::new(move || Ok(Arc::new(LayoutStore::open(&dir)?) as Arc<dyn Store>)),
        })
    }

    fn in_place(&self, _options: &ReadOptions<'_>, context: &Context) -> Result<InPlace> {
        let sink = LayoutSink::open(&self.dir, BlobCheck::Size, context.watch.clone())?.cancel(&context.cancel);
        let store = Arc::new(LayoutStore::open(&self.dir)?);
        Ok(InPlace::Store { store, selector: self.selector.clone(), sink: Box::new(sink) })
    }

    fn deletable(&self, _options: &ReadOptions<'_>, context: &Context) -> Result<Deletable> {
        let selector = one_of(self.selector(), self)?;
        let store = Arc::new(LayoutStore::open(&self.dir)?);
        let deleter = LayoutDeleter::open(&self.dir, store.clone(), context.watch.clone(), &context.cancel)?;
        Ok(Deletable { store, selector, digest: None, deleter: Box::new(deleter) })
    }

    fn deletable_names(&self, _options: &ReadOptions<'_>, context: &Context) -> Result<DeletableNames> {
        let store = Arc::new(LayoutStore::open(&self.dir)?);
        let deleter = LayoutDeleter::open(&self.dir, store.clone(), context.watch.clone(), &context.cancel)?;
        Ok(DeletableNames { store, deleter: Box::new(deleter) })
    }

    fn layout(&self) -> Option<&Path> {
        self.selector.is_none().then_some(&*self.dir)
    }
}
