//! A store that several copies read at the same time.

use super::coordinator::{Chunk, Coordinator, Key, Subscription, Taken};
use super::metadata::Documents;
use super::{FanoutLimits, metadata, reader};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, Image, Name};
use crate::source::{BrokenLinks, Profile, ReferrerList, Root, Selector, Store, TagListing};
use std::{
    io::{self, Cursor, Read},
    sync::Arc,
};

/// One store for several copies. Each copy reads from its own [`Subscriber`].
#[derive(Clone)]
pub struct SharedStore(Arc<Common>);

struct Common {
    store: Arc<dyn Store>,
    coordinator: Arc<Coordinator>,
    documents: Documents,
}

impl SharedStore {
    /// Shares `store`. When `cancel` is raised, the copies' reads fail.
    pub fn new(store: Arc<dyn Store>, limits: FanoutLimits, cancel: &Cancel) -> SharedStore {
        let coordinator = Arc::new(Coordinator::new(limits, cancel));
        SharedStore(Arc::new(Common { store, coordinator, documents: Documents::default() }))
    }

    /// Adds a subscriber. The others wait for it, within the limits, until it is dropped. All copies that start together
    /// have to be added before the first one reads.
    pub fn subscribe(&self) -> Subscriber {
        Subscriber { common: self.0.clone(), number: self.0.coordinator.add_subscriber() }
    }
}

/// The shared store for one copy.
pub struct Subscriber {
    common: Arc<Common>,
    number: usize,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.common.coordinator.remove_subscriber(self.number);
    }
}

impl Subscriber {
    /// Announces, before blobs are opened, which ones this copy will open: `wanted`, in the order of `all`.
    pub fn announce(&self, all: &[Digest], wanted: impl Iterator<Item = Digest>) {
        self.common.coordinator.announce(self.number, all, wanted);
    }

    /// Withdraws an announced blob: this copy will not open it (again).
    pub fn skip_blob(&self, blob: &Digest) {
        self.common.coordinator.skip_blob(self.number, blob);
    }

    fn open_shared(&self, blob: &Descriptor, from: u64) -> Result<OpenBlob<'_>> {
        let Common { store, coordinator, .. } = &*self.common;
        Ok(match coordinator.subscribe(self.number, &blob.digest, from) {
            Subscription::Follow(key, id) => OpenBlob::Follow(key, id),
            Subscription::Lead(key, id, begin) => {
                reader::start(coordinator, store, key, blob, begin).inspect_err(|_| coordinator.unfollow(key, id))?;
                OpenBlob::Follow(key, id)
            }
            Subscription::Alone => OpenBlob::Alone(store.open(blob, from)?),
        })
    }
}

impl Store for Subscriber {
    fn roots(&self, selectors: &[Selector]) -> Result<Vec<Root>> {
        self.common.documents.roots(&*self.common.store, selectors)
    }
    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        self.common.documents.manifest(&*self.common.store, at)
    }
    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        let Common { store, coordinator, documents } = &*self.common;
        let planned = coordinator.has_announced(self.number);
        let limit = if planned { metadata::MAX_TINY_BLOB_BYTES } else { metadata::MAX_CONFIG_BYTES };
        let small = documents.small(&**store, blob, limit)?;
        if let Some(bytes) = small {
            coordinator.skip_blob(self.number, &blob.digest);
            let mut bytes = Cursor::new(bytes);
            bytes.set_position(from);
            return Ok(Box::new(bytes));
        }
        let open = self.open_shared(blob, from)?;
        Ok(Box::new(Reader { subscriber: self, blob: blob.clone(), at: from, open, chunk: None }))
    }
    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        self.common.store.find(digest)
    }
    fn resolve(&self, selector: &Selector) -> Result<Option<Descriptor>> {
        self.common.store.resolve(selector)
    }
    fn names(&self) -> Result<Vec<Name>> {
        self.common.store.names()
    }
    fn visit_tags(&self, visit: &mut dyn FnMut(&str) -> Result<()>) -> Result<TagListing> {
        self.common.store.visit_tags(visit)
    }
    fn referrers(&self, subject: &Digest) -> Result<ReferrerList> {
        self.common.store.referrers(subject)
    }
    fn digest_tagged(&self, subject: &Digest) -> Result<Vec<(String, Descriptor)>> {
        self.common.store.digest_tagged(subject)
    }
    fn located(&self, blob: &Descriptor, error: Error) -> Error {
        self.common.store.located(blob, error)
    }
    fn file_of(&self, digest: &Digest) -> Option<String> {
        self.common.store.file_of(digest)
    }
    fn broken_links(&self, image: &Image) -> Result<BrokenLinks> {
        self.common.store.broken_links(image)
    }
    fn profile(&self) -> Profile {
        self.common.store.profile()
    }
}

enum OpenBlob<'a> {
    Follow(Key, u64),
    Alone(Box<dyn Read + Send + 'a>),
}

/// A blob for one copy: from the shared read as long as the copy is fast enough, else from its own read.
struct Reader<'a> {
    subscriber: &'a Subscriber,
    blob: Descriptor,
    /// The offset of the next byte.
    at: u64,
    open: OpenBlob<'a>,
    /// The current chunk, and its offset.
    chunk: Option<(Chunk, u64)>,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let (key, id) = match &mut self.open {
                OpenBlob::Alone(reader) => {
                    let n = reader.read(buffer)?;
                    self.at += n as u64;
                    return Ok(n);
                }
                OpenBlob::Follow(key, id) => (*key, *id),
            };
            if let Some((chunk, from)) = &self.chunk
                && let Some(left) = chunk.get((self.at - from) as usize..).filter(|left| !left.is_empty())
            {
                let n = left.len().min(buffer.len());
                buffer[..n].copy_from_slice(&left[..n]);
                self.at += n as u64;
                return Ok(n);
            }
            self.chunk = None;
            let coordinator = &self.subscriber.common.coordinator;
            match coordinator.take(key, id, self.at)? {
                Taken::Chunk(chunk, from) => self.chunk = Some((chunk, from)),
                Taken::End => return Ok(0),
                Taken::Behind => {
                    coordinator.unfollow(key, id);
                    self.open = self.subscriber.open_shared(&self.blob, self.at)?;
                }
            }
        }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        if let OpenBlob::Follow(key, id) = self.open {
            self.subscriber.common.coordinator.unfollow(key, id);
        }
    }
}
