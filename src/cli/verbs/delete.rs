//! `imgmv delete`: deletes a name of an image, or the image with all its names.

use crate::cli::address;
use crate::cli::address::help::PLACES;
use crate::cli::ask;
use crate::cli::context::CliRun;
use crate::cli::deletion::{Deleted, Deletion, DeletionOptions};
use crate::cli::open::SourceAccess;
use crate::cli::output::answer::VERSION;
use crate::progress::Watch;
use crate::{Error, Kind, Result};
use clap::Args;
use clap::builder::FalseyValueParser;
use serde::Serialize;
use std::ffi::OsString;

/// Delete the tag of an image; with --manifest, the image with all its tags
///
/// REF is an image in a registry or an OCI layout. By default imgmv deletes only the tag: the manifest and its layers
/// stay, and other tags of the image too. If a registry cannot delete tags, imgmv deletes nothing and names the other
/// tags of the image. imgmv first lists what is deleted, and the signatures and other referrers of the image, and asks on
/// a terminal. The registry frees the space of the layers itself.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{PLACES}"))]
pub struct DeleteVerb {
    /// Image to delete, with a tag or a digest
    #[arg(value_name = "REF", required = true)]
    references: Vec<OsString>,
    /// Delete the manifest or index that REF points to, with every tag that points to it. The manifests that an index
    /// lists stay. A manifest that the index of another tag lists is not deleted
    #[arg(long, env = "IMGMV_MANIFEST", value_parser = FalseyValueParser::new())]
    manifest: bool,
    /// Also delete the referrers of the image (signatures, SBOMs, attestations) and the tags that cosign made of its
    /// digest. If they also belong to another tag, nothing is deleted
    #[arg(long, env = "IMGMV_WITH_REFERRERS", value_parser = FalseyValueParser::new())]
    with_referrers: bool,
    /// Do not ask
    #[arg(short, long, env = "IMGMV_YES", value_parser = FalseyValueParser::new())]
    yes: bool,
    /// Print what would be deleted, without deleting it
    #[arg(long, env = "IMGMV_DRY_RUN", value_parser = FalseyValueParser::new())]
    dry_run: bool,
    #[command(flatten)]
    access: SourceAccess,
}

const EXAMPLES: &str = "\
Examples:
  imgmv delete registry.lan:5000/team/app:1
  imgmv delete oci:./mirror:app-1 --yes
  imgmv delete registry.lan:5000/team/app:1 --manifest --dry-run
  imgmv delete registry.lan:5000/team/app@sha256:4f4f… --manifest
  imgmv delete registry.lan:5000/team/app:1 --with-referrers";

#[derive(Serialize)]
struct DeleteDocument<'d> {
    version: u32,
    dry_run: bool,
    /// The names (`REPOSITORY:TAG`) and manifests (`REPOSITORY@DIGEST`) that were deleted.
    deleted: &'d [Deleted],
    /// Manifests that belong to the images and were not deleted.
    kept_referrers: Vec<Deleted>,
    errors: Vec<String>,
}

impl DeleteVerb {
    pub fn run(self, run: &CliRun) -> Result<()> {
        let options = DeletionOptions { manifest: self.manifest, with_referrers: self.with_referrers };
        let mut deletions: Vec<Deletion> = Vec::new();
        for reference in &self.references {
            let address = address::parse(reference)?;
            let deletion = Deletion::plan(self.access.deletable(&*address, run)?, options, run)
                .map_err(|error| error.at(&address))?;
            deletions.push(deletion);
        }
        run.screen.clear();
        let planned: Vec<Deleted> = deletions.iter().flat_map(|deletion| deletion.planned(options)).collect();
        let notes = || deletions.iter().flat_map(|deletion| deletion.notes(options));
        if self.dry_run {
            notes().for_each(|note| run.screen.say(&note));
            return self.answer(&planned, &deletions, &[], run);
        }
        if !self.yes {
            let question = format!("delete {}", self.subject(planned.len()));
            planned.iter().for_each(|one| run.screen.say(&format!("to delete: {one}")));
            notes().for_each(|note| run.screen.say(&note));
            if !ask::confirm(&question)? {
                return Err(Error::failed("nothing was deleted: the answer was not yes"));
            }
        } else {
            notes().for_each(|note| run.screen.say(&note));
        }
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for deletion in &deletions {
            run.cancel.check()?;
            errors.extend(deletion.carry_out(options, &mut deleted).err());
        }
        self.answer(&deleted, &deletions, &errors, run)?;
        failure(errors, !deleted.is_empty())
    }

    fn subject(&self, count: usize) -> String {
        match count {
            1 => "this".to_owned(),
            count => format!("these {count}"),
        }
    }

    fn answer(&self, deleted: &[Deleted], deletions: &[Deletion], errors: &[Error], run: &CliRun) -> Result<()> {
        run.screen.clear();
        if !run.answer.json() {
            let verb = if self.dry_run { "would be deleted" } else { "deleted" };
            return deleted.iter().try_for_each(|one| run.answer.line(&format!("{one} {verb}")));
        }
        let kept = if self.with_referrers { &[] } else { deletions };
        run.answer.document(&DeleteDocument {
            version: VERSION,
            dry_run: self.dry_run,
            deleted,
            kept_referrers: kept.iter().flat_map(Deletion::referrers).collect(),
            errors: errors.iter().map(Error::to_string).collect(),
        })
    }
}

/// The error of a run with these `errors`; `partly`: something was deleted.
fn failure(mut errors: Vec<Error>, partly: bool) -> Result<()> {
    match (errors.len(), partly) {
        (0, _) => Ok(()),
        (1, false) => Err(errors.remove(0)),
        (count, _) => {
            let all: Vec<String> = errors.iter().map(Error::to_string).collect();
            Err(Error::several(Kind::Partial, &format!("{count} deletions failed"), &all))
        }
    }
}
