//! A source that is read without a sink. A stream is read to its end first.

use crate::cli::context::CliRun;
use crate::copy::plan;
use crate::copy::plan::PlanOptions;
use crate::copy::{Platforms, Source, Sparse};
use crate::image::Image;
use crate::sink::{Order, Shape, SinkCapabilities};
use crate::source::attached::{image_roots, no_image_message};
use crate::source::{Root, Selector, Store};
use crate::tarball::{ArchiveStream, StreamSummary, StreamedStore};
use crate::{Error, Result};
use std::io::Read;
use std::sync::Arc;

const BUFFER_BYTES: usize = 64 << 10;

/// Returns `source` as a store. Of a stream, only documents (manifests, configs) can be opened, not layers.
pub fn store(source: Source, run: &CliRun) -> Result<Arc<dyn Store>> {
    match source.into_store() {
        Ok(store) => Ok(store),
        Err(stream) => Ok(Arc::new(StreamedStore::of_all(read_to_end(*stream, run)?))),
    }
}

fn read_to_end(mut stream: ArchiveStream, run: &CliRun) -> Result<StreamSummary> {
    while let Some(mut blob) = stream.next_blob()? {
        let mut buffer = vec![0; BUFFER_BYTES];
        while blob.bytes.read(&mut buffer)? > 0 {
            run.cancel.check()?;
        }
    }
    stream.finish()
}

/// Returns the images that `selectors` select, each with the manifests and blobs that the source has.
pub fn images(store: &dyn Store, selectors: &[Selector], platforms: &Platforms, run: &CliRun) -> Result<Vec<Image>> {
    images_of(store, image_roots(store, selectors)?, platforms, run)
}

/// Returns the images of `roots`, as [`images`] does.
pub fn images_of(store: &dyn Store, roots: Vec<Root>, platforms: &Platforms, run: &CliRun) -> Result<Vec<Image>> {
    let capabilities = SinkCapabilities {
        shape: Shape::AsFound,
        order: Order::Sequential,
        large_uploads: None,
        compress: None,
        unsupported: &[],
        unnamed_blobs: true,
        unnamed_images: true,
        needs_replay: false,
        referrers: false,
    };
    // A chosen platform is shown itself, without the index.
    let sparse = if matches!(platforms, Platforms::Only(_)) { Sparse::Narrow } else { Sparse::Auto };
    let options = PlanOptions { platforms: platforms.clone(), sparse, ..PlanOptions::default() };
    plan::images(store, roots, &options, &capabilities, &*run.screen)
}

/// Returns `all`, or `NotFound` if it is empty.
pub fn some<T>(all: Vec<T>, store: &dyn Store) -> Result<Vec<T>> {
    if all.is_empty() { Err(Error::not_found(no_image_message(store))) } else { Ok(all) }
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
