//! `imgmv logout`.

use super::Run;
use clap::Args;
use imgmv::{Error, Result};

/// Logout
#[derive(Debug, Args)]
pub struct Logout {
    host: String,
}

impl Logout {
    pub fn run(self, _: &Run) -> Result<()> {
        Err(Error::failed(format!("{}: not built yet", self.host)))
    }
}
