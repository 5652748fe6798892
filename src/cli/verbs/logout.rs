//! `imgmv logout`: credentials that were kept are removed.

use crate::cli::context::Run;
use crate::cli::output::answer::VERSION;
use crate::transport::registry;
use crate::transport::registry::Access;
use crate::{Error, Result};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Remove the credentials that are kept for a registry
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgmv logout ghcr.io
  imgmv logout registry.lan:5000 --authfile ./auth.json")]
pub struct Logout {
    /// The registry
    #[arg(value_name = "HOST[:PORT]", default_value = "docker.io")]
    host: String,
    /// The credentials file, in place of REGISTRY_AUTH_FILE or docker's config.json
    #[arg(long, value_name = "FILE", env = "IMGMV_AUTHFILE")]
    authfile: Option<PathBuf>,
}

impl Logout {
    pub fn run(self, run: &Run) -> Result<()> {
        let access = Access { authfile: self.authfile, ..Access::default() };
        if !registry::logout(&self.host, &access)? {
            return Err(Error::not_found(format!("no credentials are kept for {}", self.host)));
        }
        match run.answer.json() {
            true => run.answer.document(&json!({ "version": VERSION, "host": self.host, "removed": true })),
            false => run.answer.line(&format!("credentials for {} are removed", self.host)),
        }
    }
}
