//! `imgmv cache`: lists and removes data that imgmv stores for later runs.

use crate::cli::context::CliRun;
use crate::cli::open::copy_options::cache_dir;
use crate::message::counted;
use crate::progress::Watch;
use crate::transport::containerd::socket::hash_states;
use crate::transport::registry::push::{body_limit, resume_cache};
use crate::transport::{archive, layout};
use crate::{Error, Result};
use clap::{Args, Subcommand};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const HOUR_SECONDS: u64 = 3600;
const DAY_SECONDS: u64 = 24 * HOUR_SECONDS;
/// The file of the layer cache in the cache directory.
const LAYER_CACHE_FILE: &str = "pairs";

/// Show the data stored for later runs: incomplete uploads, size limits of registries, and the layer cache
///
/// The layer cache lists the layers that imgmv has compressed before, so that it does not compress them again.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CacheVerb {
    #[command(subcommand)]
    action: Option<Action>,
}

const EXAMPLES: &str = "\
Examples:
  imgmv cache
  imgmv cache prune --older-than 7
  imgmv cache prune ./mirror";

#[derive(Debug, Subcommand)]
enum Action {
    Prune(Prune),
}

/// Remove this data, and the partial files of interrupted copies in each DIR: a layout, or a directory of archives
#[derive(Debug, Args)]
struct Prune {
    /// Layout, or directory of archives, whose partial files are removed
    #[arg(value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Remove only data older than DAYS
    #[arg(long, value_name = "DAYS", default_value_t = 0, env = "IMGMV_OLDER_THAN")]
    older_than: u64,
}

impl CacheVerb {
    pub fn run(self, run: &CliRun) -> Result<()> {
        match self.action {
            None => list(run),
            Some(Action::Prune(prune)) => prune.run(run),
        }
    }
}

fn list(run: &CliRun) -> Result<()> {
    let Some(cache) = cache_dir() else { return Ok(()) };
    for upload in resume_cache::list(&cache) {
        let hours = upload.age.as_secs() / HOUR_SECONDS;
        run.answer.line(&format!("upload {} {}/{} {hours} h", upload.digest, upload.host, upload.repository))?;
    }
    for (digest, age) in hash_states::list(&cache) {
        run.answer.line(&format!("upload {digest} containerd {} h", age.as_secs() / HOUR_SECONDS))?;
    }
    for limit in body_limit::list(&cache) {
        let hours = limit.age.as_secs() / HOUR_SECONDS;
        if let Some(most) = limit.max_body {
            run.answer.line(&format!("limit {most} bytes {} {hours} h", limit.host))?;
        }
        if limit.refuses_chunks {
            run.answer.line(&format!("no chunks {} {hours} h", limit.host))?;
        }
    }
    let layer_cache = cache.join(LAYER_CACHE_FILE);
    if let Ok(metadata) = fs::metadata(&layer_cache) {
        run.answer.line(&format!("layer cache {} bytes {}", metadata.len(), layer_cache.display()))?;
    }
    Ok(())
}

impl Prune {
    fn run(self, run: &CliRun) -> Result<()> {
        let older = Duration::from_secs(self.older_than.saturating_mul(DAY_SECONDS));
        if let Some(cache) = cache_dir() {
            let uploads = resume_cache::prune(&cache, older) + hash_states::prune(&cache, older);
            let limits = body_limit::prune(&cache, older);
            let layer_cache = cache.join(LAYER_CACHE_FILE);
            let age = fs::metadata(&layer_cache).ok().and_then(|metadata| metadata.modified().ok()?.elapsed().ok());
            if age.is_some_and(|age| age >= older) {
                fs::remove_file(&layer_cache).map_err(|error| Error::writing(layer_cache.display(), error))?;
            }
            let (uploads, limits) = (counted(uploads, "upload"), counted(limits, "limit"));
            run.screen.say(&format!("{}: removed {uploads} and {limits}", cache.display()));
        }
        for dir in &self.dirs {
            let archives = archive::prune(dir, older)?;
            let blobs = layout::prune(dir, older)?;
            let (blobs, archives) = (counted(blobs, "partial blob"), counted(archives, "partial archive"));
            run.screen.say(&format!("{}: removed {blobs} and {archives}", dir.display()));
        }
        Ok(())
    }
}
