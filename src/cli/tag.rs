//! `imgmv tag`: another name for an image where it is.

use super::Run;
use super::open::{self, From, Reach};
use super::place::Place;
use clap::Args;
use imgmv::{Error, Result};
use std::ffi::OsString;

/// Give an image another name where it is
///
/// In a registry (a tag in the same repository), an OCI layout, or an archive, which is replaced as a whole by one
/// with the new name. No layer moves.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgmv tag registry.lan/team/app:2 stable
  imgmv tag oci:./mirror:app-2 app-stable
  imgmv tag app.tar app:stable")]
pub struct Tag {
    /// The image: in a registry, a layout or an archive
    #[arg(value_name = "SRC")]
    src: OsString,
    /// The new name
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    from: From,
    #[command(flatten)]
    reach: Reach,
}

impl Tag {
    pub fn run(self, run: &Run) -> Result<()> {
        let place = Place::parse(&self.src)?;
        let _ = (&self.names, &self.from, &self.reach, place, run);
        Err(Error::failed("not built yet"))
    }
}
