//! A copy that rewrites an archive in its own form: docker-save's older form on its way to a pipe, which needs each
//! layer's digest before its bytes.

use super::CopyRun;
use super::plan;
use super::plan::{Naming, PlanOptions, Platforms};
use crate::error::{Error, Result};
use crate::image::Name;
use crate::progress::Event;
use crate::tarball;
use crate::tarball::{ArchiveStream, Rewrite, StreamedStore};
use std::collections::HashSet;

/// Writes `stream` to the run's sink as it is, with new names.
pub(crate) fn rewrite(run: &CopyRun<'_>, stream: ArchiveStream) -> Result<()> {
    let mut out = run.sink.raw_archive()?.ok_or_else(|| {
        Error::usage(
            "this archive names its layers only at its end, and the destination needs the names first; save it to a \
             file first",
        )
    })?;
    run.watch.say("the archive is copied in its own form (docker-save's older one) with the new names");
    let id = run.next_id();
    run.watch.event(Event::BlobStart { id, label: "archive", size: None });
    let mut bytes = 0;
    let rename = |names: &[Name]| renamed(run, names);
    let how = Rewrite {
        selectors: &run.options.selectors,
        rename: &rename,
        moved: &mut |n| {
            bytes += n;
            run.cancel.check()?;
            run.watch.event(Event::BlobProgress { id, bytes: n });
            Ok(())
        },
    };
    let summary = tarball::rewrite(stream, &mut *out, how)?;
    let roots = summary.select(&run.options.selectors)?;
    let store = StreamedStore { summary, blobs: HashSet::new() };
    let options = PlanOptions { platforms: Platforms::Default, ..run.options.plan_options() };
    let images = plan::images(&store, roots, &options, &run.capabilities, run.watch)?;
    run.fail_if_empty(&images, &store)?;
    for image in &images {
        for name in &image.names {
            run.sink.publish(Some(name), image.root())?;
        }
        run.report_image(image, image.source_digest);
    }
    run.count_rewritten(id, bytes);
    Ok(())
}

fn renamed(run: &CopyRun<'_>, names: &[Name]) -> Result<Vec<Name>> {
    match &run.options.naming {
        Naming::Names(names) => Ok(names.clone()),
        Naming::Keep if names.is_empty() && !run.capabilities.unnamed_images => {
            Err(Error::usage("an image in the archive has no name, and the destination needs one; give it with --as"))
        }
        Naming::Keep => Ok(names.to_vec()),
    }
}
