//! A store that several copies read side by side.

use super::coordinator::{Chunk, Coordinator, Key, Subscription, Taken};
use super::metadata::Documents;
use super::{Limits, metadata, reader};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::image::{Descriptor, Digest, Name};
use crate::source::{Profile, Root, Selector, Store};
use std::{
    io::{self, Cursor, Read},
    sync::Arc,
};

/// One store for several members. Each takes its own [`Subscriber`] from it.
#[derive(Clone)]
pub struct SharedStore(Arc<Common>);

struct Common {
    store: Arc<dyn Store>,
    desk: Arc<Coordinator>,
    documents: Documents,
}

impl SharedStore {
    pub fn new(store: Arc<dyn Store>, limits: Limits, cancel: &Cancel) -> SharedStore {
        let desk = Arc::new(Coordinator::new(limits, cancel));
        SharedStore(Arc::new(Common { store, desk, documents: Documents::default() }))
    }

    /// The store as a new member sees it. From now on the others wait for it within the limits, until it is dropped: to
    /// be called for all who begin together before the first of them reads.
    pub fn subscribe(&self) -> Subscriber {
        Subscriber { common: self.0.clone(), member: self.0.desk.enter() }
    }
}

/// A shared store as one member sees it.
pub struct Subscriber {
    common: Arc<Common>,
    member: usize,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.common.desk.leave(self.member);
    }
}

impl Subscriber {
    /// Announces, before blobs are opened, which ones this copy will open: `wanted`, in the order of `all`.
    pub fn announce(&self, all: &[Digest], wanted: impl Iterator<Item = Digest>) {
        self.common.desk.expect(self.member, all, wanted);
    }

    /// Withdraws an announced blob: this copy will not open it (again).
    pub fn skip_blob(&self, blob: &Digest) {
        self.common.desk.skip_blob(self.member, blob);
    }

    fn sit(&self, blob: &Descriptor, from: u64) -> Result<Seated<'_>> {
        let Common { store, desk, .. } = &*self.common;
        Ok(match desk.join(self.member, &blob.digest, from) {
            Subscription::Follows(key, id) => Seated::Follows(key, id),
            Subscription::Leads(key, id, begin) => {
                reader::start(desk, store, key, blob, begin).inspect_err(|_| desk.rise(key, id))?;
                Seated::Follows(key, id)
            }
            Subscription::Alone => Seated::Alone(store.open(blob, from)?),
        })
    }
}

impl Store for Subscriber {
    fn roots(&self, picks: &[Selector]) -> Result<Vec<Root>> {
        self.common.documents.roots(&*self.common.store, picks)
    }
    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        self.common.documents.manifest(&*self.common.store, at)
    }
    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        let Common { store, desk, documents: kept, .. } = &*self.common;
        let largest = if desk.has_said(self.member) { metadata::TINY } else { metadata::CONFIG };
        let small = kept.small(&**store, blob, largest)?;
        if let Some(bytes) = small {
            desk.skip_blob(self.member, &blob.digest);
            let mut bytes = Cursor::new(bytes);
            bytes.set_position(from);
            return Ok(Box::new(bytes));
        }
        let seated = self.sit(blob, from)?;
        Ok(Box::new(Reader { subscriber: self, blob: blob.clone(), at: from, seated, chunk: None }))
    }
    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        self.common.store.find(digest)
    }
    fn names(&self) -> Result<Vec<Name>> {
        self.common.store.names()
    }
    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.common.store.referrers(subject)
    }
    fn profile(&self) -> Profile {
        self.common.store.profile()
    }
}

enum Seated<'a> {
    Follows(Key, u64),
    Alone(Box<dyn Read + Send + 'a>),
}

/// A blob as one member reads it: from a shared reading while it keeps pace, else from one of its own.
struct Reader<'a> {
    subscriber: &'a Subscriber,
    blob: Descriptor,
    /// The offset of the next byte.
    at: u64,
    seated: Seated<'a>,
    /// What is being handed out, and where it begins.
    chunk: Option<(Chunk, u64)>,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let (key, id) = match &mut self.seated {
                Seated::Alone(reader) => {
                    let n = reader.read(buffer)?;
                    self.at += n as u64;
                    return Ok(n);
                }
                Seated::Follows(key, id) => (*key, *id),
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
            let desk = &self.subscriber.common.desk;
            match desk.take(key, id, self.at)? {
                Taken::Chunk(chunk, from) => self.chunk = Some((chunk, from)),
                Taken::End => return Ok(0),
                Taken::Behind => {
                    desk.rise(key, id);
                    self.seated = self.subscriber.sit(&self.blob, self.at)?;
                }
            }
        }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        if let Seated::Follows(key, id) = self.seated {
            self.subscriber.common.desk.rise(key, id);
        }
    }
}
