//! `imgmv login`: credentials are tried at a registry and kept.

use crate::Result;
use crate::cli::context::Run;
use crate::cli::open::NetworkOptions;
use crate::cli::open::insecure;
use crate::cli::open::registry_access::{access, ask_user};
use crate::cli::options::Side;
use crate::cli::options::YesOrNo;
use crate::cli::output::answer::VERSION;
use crate::progress::Watch;
use crate::transport::registry;
use crate::transport::registry::Access;
use clap::Args;
use clap::builder::FalseyValueParser;
use serde_json::json;
use std::path::PathBuf;

/// Try a user and password at a registry, and keep them
///
/// They are kept in --authfile, else in REGISTRY_AUTH_FILE, else in docker's config.json, or in the credential helper
/// that it names. docker, podman, skopeo and crane find them there too.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgmv login ghcr.io -u me --password-stdin < token
  IMGMV_PASSWORD=… imgmv login registry.lan:5000 -u me
  imgmv login -u me")]
pub struct Login {
    /// The registry; docker.io is docker's
    #[arg(value_name = "HOST[:PORT]", default_value = "docker.io")]
    host: String,
    /// The user; asked for on a terminal
    #[arg(short, long, value_name = "USER", env = "IMGMV_USERNAME")]
    username: Option<String>,
    /// Read the password from the first line of standard input (else it is IMGMV_PASSWORD, or asked for)
    #[arg(long, env = "IMGMV_PASSWORD_STDIN", value_parser = FalseyValueParser::new())]
    password_stdin: bool,
    /// Read the password from the first line of FILE
    #[arg(long, value_name = "FILE", env = "IMGMV_PASSWORD_FILE")]
    password_file: Option<PathBuf>,
    /// Allow plain HTTP and certificates that do not verify (loopback may use plain HTTP anyway); without this, for the
    /// registries that this host's engines are told are insecure, which are shown no password over plain HTTP
    #[arg(long, env = "IMGMV_INSECURE", value_name = "true|false", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    insecure: Option<YesOrNo>,
    /// Trust the certificate authorities in FILE (PEM) besides the system's
    #[arg(long, value_name = "FILE", env = "IMGMV_CA")]
    ca: Option<PathBuf>,
    /// Show the registry the client certificate in FILE (PEM)
    #[arg(long, value_name = "FILE", env = "IMGMV_CERT", requires = "key")]
    cert: Option<PathBuf>,
    /// The private key of that certificate (PEM)
    #[arg(long, value_name = "FILE", env = "IMGMV_KEY", requires = "cert")]
    key: Option<PathBuf>,
    #[command(flatten)]
    reach: NetworkOptions,
}

impl Login {
    pub fn run(self, run: &Run) -> Result<()> {
        let user = match &self.username {
            Some(user) => user.clone(),
            None => ask_user(&self.host)?,
        };
        let side = self.side(user);
        let insecure = insecure::of(&self.host, "", side.insecure, run);
        let access = Access { insecure, ..access(&side, self.reach.network())? };
        let outcome = registry::login(&self.host, &access, run.watch(), run.cancel.clone())?;
        run.screen.end();
        if !outcome.verified {
            run.screen.say(&format!("{} lets everybody in and did not look at the password", self.host));
        }
        match run.answer.json() {
            true => run.answer.document(&json!({
                "version": VERSION, "host": self.host, "kept": outcome.location, "checked": outcome.verified,
            })),
            false => run.answer.line(&format!("credentials for {} are kept in {}", self.host, outcome.location)),
        }
    }

    fn side(&self, user: String) -> Side {
        Side {
            flag: "--username",
            creds: Some(user),
            password: std::env::var("IMGMV_PASSWORD").ok().filter(|password| !password.is_empty()),
            password_stdin: self.password_stdin,
            password_file: self.password_file.clone(),
            insecure: self.insecure.and_then(YesOrNo::answer),
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
        }
    }
}
