//! The source of a copy.

use crate::fanout::Subscriber;
use crate::source::Store;
use crate::tarball::ArchiveStream;
use std::sync::Arc;

/// The source of a copy.
pub enum Source {
    /// A store that only this copy reads.
    Store(Arc<dyn Store>),
    /// A store that several copies read at the same time.
    Shared(Arc<Subscriber>),
    /// An archive that is read once.
    Stream(Box<ArchiveStream>),
}

impl Source {
    /// The store, or the stream.
    pub fn into_store(self) -> Result<Arc<dyn Store>, Box<ArchiveStream>> {
        match self {
            Source::Store(store) => Ok(store),
            Source::Shared(subscriber) => Ok(subscriber),
            Source::Stream(stream) => Err(stream),
        }
    }

    /// The same source for another copy, unless this is a stream.
    pub fn again(&self) -> Option<Source> {
        match self {
            Source::Store(store) => Some(Source::Store(store.clone())),
            Source::Shared(subscriber) => Some(Source::Shared(subscriber.clone())),
            Source::Stream(_) => None,
        }
    }
}
