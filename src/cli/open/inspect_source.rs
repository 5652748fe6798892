//! A source that is read without a sink. A stream is read to its end first.

use crate::cli::context::Run;
use crate::copy::Platforms;
use crate::copy::plan;
use crate::copy::plan::Wish;
use crate::image::Image;
use crate::image::{Descriptor, Digest};
use crate::sink::{Order, Shape, SinkCapabilities};
use crate::source::{Root, Selector, Source, Store, Stream, StreamSummary};
use crate::{Error, Result};
use std::io::{Cursor, Read};
use std::sync::Arc;

const BUFFER_BYTES: usize = 64 << 10;

/// Returns `source` as a store. Of a stream, only documents (manifests, configs) can be opened, not layers.
pub fn store(source: Source, run: &Run) -> Result<Arc<dyn Store>> {
    match source {
        Source::Store(store) => Ok(store),
        Source::Stream(stream) => Ok(Arc::new(Documents(read_to_end(stream, run)?))),
    }
}

fn read_to_end(mut stream: Box<dyn Stream>, run: &Run) -> Result<StreamSummary> {
    while let Some(mut blob) = stream.next_blob()? {
        let mut buffer = vec![0; BUFFER_BYTES];
        while blob.bytes.read(&mut buffer)? > 0 {
            run.cancel.check()?;
        }
    }
    stream.finish()
}

/// Returns the images that `selectors` select, each with the manifests and blobs that the source has.
pub fn images(store: &dyn Store, selectors: &[Selector], platforms: &Platforms, run: &Run) -> Result<Vec<Image>> {
    let capabilities = SinkCapabilities {
        shape: Shape::AsFound,
        order: Order::Single,
        large: None,
        compress: None,
        refuses: &[],
        unnamed_blobs: true,
        nameless: true,
    };
    let options = Wish { platforms: platforms.clone(), ..Wish::default() };
    plan::images(store, store.roots(selectors)?, &options, &capabilities, &*run.screen)
}

/// Returns `all`, or `NotFound` if it is empty.
pub fn some<T>(all: Vec<T>, store: &dyn Store) -> Result<Vec<T>> {
    if all.is_empty() { Err(Error::not_found(store.nothing())) } else { Ok(all) }
}

/// Returns the only one. Fails with `Usage` if there are several, with `NotFound` if there is none.
pub fn one<T>(images: Vec<T>) -> Result<T> {
    let several = images.len();
    let mut images = images.into_iter();
    match (images.next(), several) {
        (Some(image), 1) => Ok(image),
        (None, _) => Err(Error::not_found("SRC has no image")),
        (Some(_), several) => {
            Err(Error::usage(format!("SRC has {several} images; select one by name (imgmv list shows the names)")))
        }
    }
}

/// The documents of a stream that was read to its end.
pub struct Documents(pub StreamSummary);

impl Store for Documents {
    fn roots(&self, selectors: &[Selector]) -> Result<Vec<Root>> {
        self.0.select(selectors)
    }

    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        match self.0.documents.get(&at.digest) {
            Some(bytes) => Ok(bytes.clone()),
            None => Err(Error::invalid(format!("the archive has no manifest {}", at.digest))),
        }
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        let Some(bytes) = self.0.documents.get(&blob.digest) else {
            return Err(Error::usage(format!(
                "blob {} was in a stream and cannot be read again; save the archive to a file first",
                blob.digest
            )));
        };
        let mut bytes = Cursor::new(bytes);
        bytes.set_position(from);
        Ok(Box::new(bytes))
    }

    fn nothing(&self) -> String {
        self.0.nothing.clone()
    }

    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        Ok(self.0.documents.get(digest).map(|bytes| Descriptor::new("", *digest, bytes.len() as u64)))
    }
}
