//! The options of a copy that copy, save and load share.

use super::Written;
use super::selection::{Choice, ForeignName, Parts, ReferrerOptions};
use crate::Result;
use crate::cli::context::CliRun;
use crate::cli::options::{FormatName, LayerOptions, Transfer};
use crate::compress::layer_cache::LayerCache;
use crate::copy;
use crate::copy::Source;
use crate::copy::convert::Format;
use crate::copy::{Compress, Options, Report};
use crate::sink::Sink;
use clap::Args;
use std::path::PathBuf;

/// The part of the images, the form of their layers, and how they are transferred.
#[derive(Debug, Args)]
pub struct CopyOptions {
    #[command(flatten)]
    pub choice: Choice,
    #[command(flatten)]
    pub parts: Parts,
    #[command(flatten)]
    pub referrers: ReferrerOptions,
    #[command(flatten)]
    pub layers: LayerOptions,
    #[command(flatten)]
    pub transfer: Transfer,
}

impl CopyOptions {
    /// Whether `--foreign fetch` is given.
    pub fn fetches_foreign(&self) -> bool {
        self.parts.foreign == ForeignName::Fetch
    }

    /// The options that concern how a DST is written.
    pub fn written(&self) -> Written<'_> {
        Written { transfer: &self.transfer, layers: &self.layers, waits_for_uploads: false }
    }

    /// The options for the copy engine, still without selectors and names.
    pub fn engine_options(&self) -> Options {
        let CopyOptions { choice, parts, referrers, layers, transfer } = self;
        let defaults = Options::default();
        Options {
            platforms: choice.platforms(),
            sparse: parts.sparse.into(),
            foreign: parts.foreign.into(),
            referrers: referrers.referrers(),
            compress: match layers.compress.map(|how| how.coding()) {
                None => Compress::Default,
                Some(None) => Compress::Keep,
                Some(Some(coding)) => Compress::To(coding),
            },
            level: layers.level,
            format: match layers.format {
                None => Format::Keep,
                Some(FormatName::Docker) => Format::Docker,
                Some(FormatName::Oci) => Format::Oci,
            },
            jobs: transfer.jobs.map(usize::from),
            dry_run: transfer.dry_run,
            allow_empty: transfer.allow_empty,
            ..defaults
        }
    }
}

/// Copies every job to `sink`. Layers that this user's imgmv compressed before are not compressed again.
pub fn copy_all(jobs: Vec<(Source, Options)>, sink: &dyn Sink, run: &CliRun) -> Result<Report> {
    let layer_cache = cache_dir().map(|directory| LayerCache::open(&directory));
    copy::copy_all(jobs, sink, layer_cache.as_ref(), &*run.watch(), &run.cancel)
}

/// imgmv's directory in this user's cache directory.
pub fn cache_dir() -> Option<PathBuf> {
    let from = |variable: &str| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = from("XDG_CACHE_HOME").or_else(|| Some(from("HOME")?.join(".cache")))?;
    Some(cache.join("imgmv"))
}
