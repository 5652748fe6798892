//! The options of a copy.

use super::convert::Format;
use super::plan::{Foreign, Naming, PlanOptions, Platforms, Sparse};
use crate::image::{Coding, ReferrerType};
use crate::source::Selector;
use crate::transfer::{Budget, TransferSlots};

/// The compression of layers at the destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compress {
    /// As at the source. Only uncompressed layers are compressed where the sink asks for it (a registry), the source is
    /// not a registry, and nothing is attached to the image.
    /// In a pipe of imgmv's own archives they are not, since its artifacts are known only at its end.
    #[default]
    Default,
    /// As at the source.
    Keep,
    /// Every layer with this one.
    To(Coding),
}

/// The manifests that belong to an image and are copied with it: its referrers, and those under cosign's tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referrers {
    /// The types that are copied; every type when empty.
    pub types: Vec<ReferrerType>,
    /// Types of which each image must have one at the source.
    pub required: Vec<ReferrerType>,
    /// Whether the source is asked at all.
    pub wanted: bool,
}

impl Default for Referrers {
    fn default() -> Self {
        Referrers { types: Vec::new(), required: Vec::new(), wanted: true }
    }
}

/// The options of a copy.
#[derive(Debug, Clone)]
pub struct Options {
    /// The images of the source to copy; all when empty.
    pub selectors: Vec<Selector>,
    /// The names at the destination.
    pub naming: Naming,
    /// The platforms to copy of an index.
    pub platforms: Platforms,
    /// The treatment of an index that is not copied completely.
    pub sparse: Sparse,
    /// The treatment of nondistributable layers.
    pub foreign: Foreign,
    /// The referrers that are copied with an image.
    pub referrers: Referrers,
    /// The compression of layers at the destination.
    pub compress: Compress,
    /// The compression level; the codec's default when none.
    pub level: Option<i32>,
    /// The family of media types at the destination.
    pub format: Format,
    /// Maximum number of blobs to transfer at the same time; chosen by source and sink when none.
    pub jobs: Option<usize>,
    /// The part of memory and threads. A copy that shares them transfers its blobs in the order of the plan.
    pub budget: Budget,
    /// The transfers that this copy shares with those that run at the same time. None: the budget alone limits them.
    /// Not for a copy that shares one read of its source.
    pub slots: Option<TransferSlots>,
    /// Plan only; nothing is transferred.
    pub dry_run: bool,
    /// A source without any image is not an error.
    pub allow_empty: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            selectors: Vec::new(),
            naming: Naming::Keep,
            platforms: Platforms::Default,
            sparse: Sparse::Auto,
            foreign: Foreign::Carry,
            referrers: Referrers::default(),
            compress: Compress::Default,
            level: None,
            format: Format::Keep,
            jobs: None,
            budget: Budget::default(),
            slots: None,
            dry_run: false,
            allow_empty: false,
        }
    }
}

impl Options {
    pub(crate) fn plan_options(&self) -> PlanOptions {
        PlanOptions {
            naming: self.naming.clone(),
            platforms: self.platforms.clone(),
            sparse: self.sparse,
            foreign: self.foreign,
            is_selection: !self.selectors.is_empty(),
        }
    }
}
