//! `imgmv logout`: removes stored credentials.

use crate::cli::context::CliRun;
use crate::cli::output::answer::VERSION;
use crate::transport::registry;
use crate::transport::registry::Access;
use crate::{Error, Result};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Remove the stored credentials for a registry
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgmv logout ghcr.io
  imgmv logout registry.lan:5000 --authfile ./auth.json")]
pub struct LogoutVerb {
    /// Registry
    #[arg(value_name = "HOST[:PORT]", default_value = "docker.io")]
    host: String,
    /// Credentials file, instead of REGISTRY_AUTH_FILE or docker's config.json
    #[arg(long, value_name = "FILE", env = "IMGMV_AUTHFILE")]
    authfile: Option<PathBuf>,
}

impl LogoutVerb {
    pub fn run(self, run: &CliRun) -> Result<()> {
        let access = Access { authfile: self.authfile, ..Access::default() };
        if !registry::logout(&self.host, &access)? {
            return Err(Error::not_found(format!("{}: no credentials are stored", self.host)));
        }
        match run.answer.json() {
            true => run.answer.document(&json!({ "version": VERSION, "host": self.host, "removed": true })),
            false => run.answer.line(&format!("{}: credentials removed", self.host)),
        }
    }
}
