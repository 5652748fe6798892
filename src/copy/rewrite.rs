//! An archive that is rewritten in its own form: docker-save's older one on its way to a pipe, which needs a digest
//! before the bytes.

use super::Run;
use super::plan;
use super::plan::{Naming, Platforms, Wish};
use crate::error::{Error, Result};
use crate::image::Name;
use crate::progress::Event;
use crate::tarball;
use crate::tarball::{ArchiveStream, Rewrite, StreamedStore};
use std::collections::HashSet;

/// Passes an archive of the old form on as it is, re-tagged.
pub(crate) fn rewrite(run: &Run<'_>, stream: ArchiveStream) -> Result<()> {
    let mut out = run.sink.raw_archive()?.ok_or_else(|| {
        Error::usage("this archive names its layers only at its end, which the destination cannot take from a pipe; save it to a file first")
    })?;
    run.watch.say("the archive passes in its own form (docker-save's older one), re-tagged on the way");
    let id = run.next_id();
    run.watch.event(Event::BlobStart { id, label: "archive", size: None });
    let mut bytes = 0;
    let rename = |names: &[Name]| renamed(run, names);
    let how = Rewrite {
        picks: &run.options.picks,
        rename: &rename,
        moved: &mut |n| {
            bytes += n;
            run.cancel.check()?;
            run.watch.event(Event::BlobMoved { id, bytes: n });
            Ok(())
        },
    };
    let summary = tarball::rewrite(stream, &mut *out, how)?;
    let roots = summary.select(&run.options.picks)?;
    let store = StreamedStore { summary, blobs: Some(HashSet::new()) };
    let wish = Wish { platforms: Platforms::Default, ..run.options.wish() };
    let images = plan::images(&store, roots, &wish, &run.capabilities, run.watch)?;
    run.some(&images, &store.summary.empty_message)?;
    for image in &images {
        for name in &image.names {
            run.sink.publish(Some(name), image.root())?;
        }
        run.settled(image, image.source_digest);
    }
    run.relayed(id, bytes);
    Ok(())
}

fn renamed(run: &Run<'_>, names: &[Name]) -> Result<Vec<Name>> {
    match &run.options.naming {
        Naming::Names(names) => Ok(names.clone()),
        Naming::Keep if names.is_empty() && !run.capabilities.unnamed_images => {
            Err(Error::usage("an image in the archive has no name and needs one there; give it with --as"))
        }
        Naming::Keep => Ok(names.to_vec()),
    }
}
