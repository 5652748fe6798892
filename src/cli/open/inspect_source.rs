//! A source looked at without a sink: a store as it is, a stream passed to its end first.

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

/// `source` as a store. Of a stream, only what is not a layer can be opened.
pub fn store(source: Source, run: &Run) -> Result<Arc<dyn Store>> {
    match source {
        Source::Store(store) => Ok(store),
        Source::Stream(stream) => Ok(Arc::new(Passed(passed(stream, run)?))),
    }
}

fn passed(mut stream: Box<dyn Stream>, run: &Run) -> Result<StreamSummary> {
    while let Some(mut blob) = stream.next_blob()? {
        let mut buffer = vec![0; 64 << 10];
        while blob.bytes.read(&mut buffer)? > 0 {
            run.cancel.check()?;
        }
    }
    stream.finish()
}

/// Every image that `picks` select, with as much below it as the source has.
pub fn images(store: &dyn Store, picks: &[Selector], platforms: &Platforms, run: &Run) -> Result<Vec<Image>> {
    let takes = SinkCapabilities {
        shape: Shape::AsFound,
        order: Order::Single,
        large: None,
        compress: None,
        refuses: &[],
        unnamed_blobs: true,
        nameless: true,
    };
    let wish = Wish { platforms: platforms.clone(), ..Wish::default() };
    plan::images(store, store.roots(picks)?, &wish, &takes, &*run.screen)
}

/// `all`, of which there is at least one.
pub fn some<T>(all: Vec<T>, store: &dyn Store) -> Result<Vec<T>> {
    if all.is_empty() { Err(Error::not_found(store.nothing())) } else { Ok(all) }
}

/// The one that is meant; `Usage` when there are several.
pub fn one<T>(images: Vec<T>) -> Result<T> {
    let several = images.len();
    let mut images = images.into_iter();
    match (images.next(), several) {
        (Some(image), 1) => Ok(image),
        (None, _) => Err(Error::not_found("no image there")),
        (Some(_), several) => {
            Err(Error::usage(format!("{several} images there and one is wanted; name it (imgmv list shows the names)")))
        }
    }
}

/// What a stream has shown, once it has passed.
pub struct Passed(pub StreamSummary);

impl Store for Passed {
    fn roots(&self, picks: &[Selector]) -> Result<Vec<Root>> {
        self.0.select(picks)
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
                "blob {} has passed and cannot be read again; save the archive to a file first",
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
