//! A user's wishes for a copy.

use super::convert::Format;
use super::plan::{Foreign, Naming, Platforms, Sparse, Wish};
use crate::image::Coding;
use crate::source::Selector;

/// How layers are to be packed at the destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compress {
    /// As they are, except that raw layers are compressed where the sink asks for it (a registry) and the source is
    /// none itself.
    #[default]
    Default,
    /// As they are.
    Keep,
    /// Every layer like this.
    To(Coding),
}

/// What a user can say about a copy.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which of the source's images; all when empty.
    pub picks: Vec<Selector>,
    pub naming: Naming,
    pub platforms: Platforms,
    pub sparse: Sparse,
    pub foreign: Foreign,
    pub compress: Compress,
    /// Of the codec; its default when none.
    pub level: Option<i32>,
    pub format: Format,
    /// Blobs at once, at most; what suits both ends when none.
    pub jobs: Option<usize>,
    /// Copies that run side by side on one source, this one among them. In company a copy moves its blobs in the order of
    /// the plan, and keeps little in memory.
    pub company: usize,
    /// Plan, but move nothing.
    pub dry_run: bool,
    /// A source without an image is copied too, which moves nothing.
    pub allow_empty: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            picks: Vec::new(),
            naming: Naming::Keep,
            platforms: Platforms::Default,
            sparse: Sparse::Auto,
            foreign: Foreign::Carry,
            compress: Compress::Default,
            level: None,
            format: Format::Keep,
            jobs: None,
            company: 1,
            dry_run: false,
            allow_empty: false,
        }
    }
}

impl Options {
    pub(crate) fn wish(&self) -> Wish {
        Wish {
            naming: self.naming.clone(),
            platforms: self.platforms.clone(),
            sparse: self.sparse,
            foreign: self.foreign,
        }
    }
}
