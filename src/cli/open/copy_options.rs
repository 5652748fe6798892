//! What copy, save and load hand to the engine.

use super::selection::{Choice, Parts};
use crate::Result;
use crate::cli::context::Run;
use crate::cli::options::{Form, Packing, Transfer};
use crate::compress::layer_cache::LayerCache;
use crate::copy;
use crate::copy::Source;
use crate::copy::convert::Format;
use crate::copy::{Compress, Options, Report};
use crate::sink::Sink;
use std::path::PathBuf;

/// What the options say to the engine; picks and names are still to be filled in.
pub fn options(choice: &Choice, parts: &Parts, packing: &Packing, transfer: &Transfer) -> Options {
    let defaults = Options::default();
    Options {
        platforms: choice.platforms(),
        sparse: parts.sparse.into(),
        foreign: parts.foreign.into(),
        compress: match packing.compress.map(|how| how.coding()) {
            None => Compress::Default,
            Some(None) => Compress::Keep,
            Some(Some(coding)) => Compress::To(coding),
        },
        level: packing.level,
        format: match packing.format {
            None => Format::Keep,
            Some(Form::Docker) => Format::Docker,
            Some(Form::Oci) => Format::Oci,
        },
        jobs: transfer.jobs.map(usize::from),
        dry_run: transfer.dry_run,
        allow_empty: transfer.allow_empty,
        ..defaults
    }
}

/// Copies every job to `sink`; layers that were packed before on this machine are not packed again.
pub fn copy_all(jobs: Vec<(Source, Options)>, sink: &dyn Sink, run: &Run) -> Result<Report> {
    let pairs = cache().map(|directory| LayerCache::open(&directory));
    copy::copy_all(jobs, sink, pairs.as_ref(), &*run.watch(), &run.cancel)
}

/// Where this user's programs keep what can be made again.
pub fn cache() -> Option<PathBuf> {
    let from = |variable: &str| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = from("XDG_CACHE_HOME").or_else(|| Some(from("HOME")?.join(".cache")))?;
    Some(cache.join("imgmv"))
}
