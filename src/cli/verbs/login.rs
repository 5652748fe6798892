//! `imgmv login`: checks credentials at a registry and stores them.

use crate::Result;
use crate::cli::context::CliRun;
use crate::cli::open::NetworkOptions;
use crate::cli::open::insecure;
use crate::cli::open::registry_access::{access, ask_user};
use crate::cli::options::RegistryOptions;
use crate::cli::options::YesOrNo;
use crate::cli::output::answer::VERSION;
use crate::progress::Watch;
use crate::transport::registry;
use crate::transport::registry::Access;
use clap::Args;
use clap::builder::FalseyValueParser;
use serde_json::json;
use std::path::PathBuf;

/// Check a user name and password at a registry, and store them
///
/// imgmv stores the credentials in --authfile, else in REGISTRY_AUTH_FILE, else in docker's config.json or in the
/// credential helper that config.json names. docker, podman, skopeo and crane use the same files.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgmv login ghcr.io -u me --password-stdin < token
  IMGMV_PASSWORD=… imgmv login registry.lan:5000 -u me
  imgmv login -u me")]
pub struct LoginVerb {
    /// Registry; docker.io is Docker Hub
    #[arg(value_name = "HOST[:PORT]", default_value = "docker.io")]
    host: String,
    /// User name; without it imgmv asks on a terminal
    #[arg(short, long, value_name = "USER", env = "IMGMV_USERNAME")]
    username: Option<String>,
    /// Read the password from the first line of standard input (else imgmv uses IMGMV_PASSWORD, or asks on a terminal)
    #[arg(long, env = "IMGMV_PASSWORD_STDIN", value_parser = FalseyValueParser::new())]
    password_stdin: bool,
    /// Read the password from the first line of FILE
    #[arg(long, value_name = "FILE", env = "IMGMV_PASSWORD_FILE")]
    password_file: Option<PathBuf>,
    /// Allow plain HTTP and invalid certificates (loopback addresses may always use plain HTTP). By default this
    /// applies to registries that this host's engines list as insecure; they get no password over plain HTTP
    #[arg(long, env = "IMGMV_INSECURE", value_name = "true|false", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    insecure: Option<YesOrNo>,
    /// Also trust the certificate authorities in FILE (PEM)
    #[arg(long, value_name = "FILE", env = "IMGMV_CA")]
    ca: Option<PathBuf>,
    /// Client certificate for the registry (PEM)
    #[arg(long, value_name = "FILE", env = "IMGMV_CERT", requires = "key")]
    cert: Option<PathBuf>,
    /// Private key of the client certificate (PEM)
    #[arg(long, value_name = "FILE", env = "IMGMV_KEY", requires = "cert")]
    key: Option<PathBuf>,
    #[command(flatten)]
    network: NetworkOptions,
}

impl LoginVerb {
    pub fn run(self, run: &CliRun) -> Result<()> {
        let user = match &self.username {
            Some(user) => user.clone(),
            None => ask_user(&self.host)?,
        };
        let side = self.registry_options(user);
        let insecure = insecure::decide(&self.host, "", side.insecure, run);
        let access = Access { insecure, ..access(&side, self.network.common())? };
        let outcome = registry::login(&self.host, &access, run.watch(), run.cancel.clone())?;
        run.screen.clear();
        if !outcome.verified {
            run.screen.say(&format!(
                "{}: the registry does not require authentication, so the password was not checked",
                self.host
            ));
        }
        match run.answer.json() {
            true => run.answer.document(&json!({
                "version": VERSION,
                "host": self.host,
                "stored_in": outcome.location,
                "password_checked": outcome.verified,
            })),
            false => run.answer.line(&format!("{}: credentials stored in {}", self.host, outcome.location)),
        }
    }

    fn registry_options(&self, user: String) -> RegistryOptions {
        RegistryOptions {
            flag: "--username",
            creds: Some(user),
            password: std::env::var("IMGMV_PASSWORD").ok().filter(|password| !password.is_empty()),
            password_stdin: self.password_stdin,
            password_file: self.password_file.clone(),
            insecure: self.insecure.and_then(YesOrNo::value),
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
        }
    }
}
