//! `imgmv cache`: what this user's imgmv keeps for later runs, and how to be rid of it.

use crate::cli::context::Run;
use crate::cli::open::copy_options::cache;
use crate::progress::Watch;
use crate::transport::registry::push::{body_limit, resume_cache};
use crate::transport::{archive, layout};
use crate::{Error, Result};
use clap::{Args, Subcommand};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// In seconds.
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// Show what is kept for later runs: uploads that did not end, limits of registries, and which layers were packed before
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Cache {
    #[command(subcommand)]
    then: Option<Then>,
}

const EXAMPLES: &str = "\
Examples:
  imgmv cache
  imgmv cache prune --older-than 7
  imgmv cache prune ./mirror";

#[derive(Debug, Subcommand)]
enum Then {
    Prune(Prune),
}

/// Remove it, and what cut copies have left in the directories DIR: of a layout that DIR is, and of archives in DIR
#[derive(Debug, Args)]
struct Prune {
    /// Layouts, and directories of archives, in which partial files are removed
    #[arg(value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Only what is older
    #[arg(long, value_name = "DAYS", default_value_t = 0, env = "IMGMV_OLDER_THAN")]
    older_than: u64,
}

impl Cache {
    pub fn run(self, run: &Run) -> Result<()> {
        match self.then {
            None => list(run),
            Some(Then::Prune(prune)) => prune.run(run),
        }
    }
}

fn list(run: &Run) -> Result<()> {
    let Some(cache) = cache() else { return Ok(()) };
    for upload in resume_cache::list(&cache) {
        let hours = upload.age.as_secs() / HOUR;
        run.answer.line(&format!("upload {} {}/{} {hours} h", upload.digest, upload.host, upload.repository))?;
    }
    for limit in body_limit::list(&cache) {
        let hours = limit.age.as_secs() / HOUR;
        if let Some(most) = limit.max_body {
            run.answer.line(&format!("limit {most} bytes {} {hours} h", limit.host))?;
        }
        if limit.refuses_chunks {
            run.answer.line(&format!("no chunks {} {hours} h", limit.host))?;
        }
    }
    if let Ok(pairs) = fs::metadata(cache.join("pairs")) {
        run.answer.line(&format!("pairs {} bytes {}", pairs.len(), cache.join("pairs").display()))?;
    }
    Ok(())
}

impl Prune {
    fn run(self, run: &Run) -> Result<()> {
        let older = Duration::from_secs(self.older_than.saturating_mul(DAY));
        if let Some(cache) = cache() {
            let uploads = resume_cache::prune(&cache, older);
            let limits = body_limit::prune(&cache, older);
            let pairs = cache.join("pairs");
            let age = fs::metadata(&pairs).ok().and_then(|found| found.modified().ok()?.elapsed().ok());
            if age.is_some_and(|age| age >= older) {
                fs::remove_file(&pairs).map_err(|error| Error::writing(pairs.display(), error))?;
            }
            run.screen.say(&format!("{uploads} uploads and {limits} limits forgotten"));
        }
        for dir in &self.dirs {
            let archives = archive::prune(dir, older)?;
            let blobs = layout::prune(dir, older)?;
            run.screen
                .say(&format!("{}: {blobs} partial blobs and {archives} partial archives removed", dir.display()));
        }
        Ok(())
    }
}
