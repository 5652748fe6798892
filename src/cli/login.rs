//! `imgmv login`.

use super::Run;
use clap::Args;
use imgmv::{Error, Result};

/// Login
#[derive(Debug, Args)]
pub struct Login {
    host: String,
}

impl Login {
    pub fn run(self, _: &Run) -> Result<()> {
        Err(Error::failed(format!("{}: not built yet", self.host)))
    }
}
