//! A source looked at without a sink: a store as it is, a stream passed to its end first.

use crate::cli::context::Run;
use crate::copy::plan;
use crate::copy::plan::PlanOptions;
use crate::copy::{Platforms, Source};
use crate::image::Image;
use crate::sink::{Order, Shape, SinkCapabilities};
use crate::source::{Selector, Store};
use crate::tarball::{ArchiveStream, StreamSummary, StreamedStore};
use crate::{Error, Result};
use std::io::Read;
use std::sync::Arc;

/// `source` as a store. Of a stream, only what is not a layer can be opened.
pub fn store(source: Source, run: &Run) -> Result<Arc<dyn Store>> {
    match source.into_store() {
        Ok(store) => Ok(store),
        Err(stream) => Ok(Arc::new(StreamedStore { summary: passed(*stream, run)?, blobs: None })),
    }
}

fn passed(mut stream: ArchiveStream, run: &Run) -> Result<StreamSummary> {
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
        order: Order::Sequential,
        large_uploads: None,
        compress: None,
        unsupported: &[],
        unnamed_blobs: true,
        unnamed_images: true,
        needs_replay: false,
    };
    let wish = PlanOptions { platforms: platforms.clone(), ..PlanOptions::default() };
    plan::images(store, store.roots(picks)?, &wish, &takes, &*run.screen)
}

/// `all`, of which there is at least one.
pub fn some<T>(all: Vec<T>, store: &dyn Store) -> Result<Vec<T>> {
    if all.is_empty() { Err(Error::not_found(store.profile().empty_message)) } else { Ok(all) }
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
