//! `imgmv diff`: compares two images.

use crate::cli::address;
use crate::cli::address::help::PLACES;
use crate::cli::compare::{Comparison, Side};
use crate::cli::context::CliRun;
use crate::cli::open;
use crate::cli::open::SourceAccess;
use crate::cli::open::inspect_source;
use crate::cli::open::selection::Choice;
use crate::cli::output::answer::VERSION;
use crate::cli::output::diff_report;
use crate::image::{Digest, Image, Name};
use crate::source::Store;
use crate::{Error, Result};
use clap::Args;
use clap::builder::FalseyValueParser;
use serde::Serialize;
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

/// Compare two images: layers, bytes to move, config, platforms, and with --files the files
///
/// A and B may be in any two places. The exit status is 0 also if the images differ; with --exit-code it is then 1. The
/// bytes to move are the size of the layers and configs, as stored, that B has and A does not have.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{PLACES}"))]
pub struct DiffVerb {
    /// Location of the first image
    #[arg(value_name = "A")]
    a: OsString,
    /// Location of the second image
    #[arg(value_name = "B")]
    b: OsString,
    /// Read the layers, and list the files that differ in type, size, content, mode, owner or link target. Times are not
    /// compared. imgmv reads each layer once and stores nothing; a compressed
    /// archive is decompressed from its start for each layer, and layers in a pipe cannot be compared
    #[arg(long, env = "IMGMV_FILES", value_parser = FalseyValueParser::new())]
    files: bool,
    /// Exit with status 1 if the images differ
    #[arg(long, env = "IMGMV_EXIT_CODE", value_parser = FalseyValueParser::new())]
    exit_code: bool,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    access: SourceAccess,
}

const EXAMPLES: &str = "\
Examples:
  imgmv diff app:1 app:2
  imgmv diff registry.lan:5000/team/app:2 oci:./mirror:app-2
  imgmv diff docker-daemon:app:2 app.tar --platform linux/arm64
  imgmv diff app:1 app:2 --files
  imgmv diff app:1 app:2 --json | jq .bytes_to_move";

#[derive(Serialize)]
struct DiffDocument<'d> {
    version: u32,
    a: ImageEntry<'d>,
    b: ImageEntry<'d>,
    differs: bool,
    #[serde(flatten)]
    comparison: &'d Comparison,
}

#[derive(Serialize)]
struct ImageEntry<'d> {
    name: Option<&'d str>,
    digest: Digest,
}

impl<'d> ImageEntry<'d> {
    fn new(image: &'d Image) -> ImageEntry<'d> {
        ImageEntry { name: image.names.first().map(Name::as_str), digest: image.root().digest() }
    }

    fn line(&self, side: &str) -> String {
        match self.name {
            Some(name) => format!("{side} {name}@{}", self.digest),
            None => format!("{side} @{}", self.digest),
        }
    }
}

impl DiffVerb {
    pub fn run(self, run: &CliRun) -> Result<()> {
        let (store_a, image_a) = self.open(&self.a, run)?;
        let (store_b, image_b) = self.open(&self.b, run)?;
        let (a, b) = (Side { image: &image_a, store: &*store_a }, Side { image: &image_b, store: &*store_b });
        let comparison = Comparison::new(&a, &b, self.files, run)?;
        let differs = comparison.differs();
        run.screen.clear();
        let (a, b) = (ImageEntry::new(&image_a), ImageEntry::new(&image_b));
        match run.answer.json() {
            true => {
                run.answer.document(&DiffDocument { version: VERSION, a, b, differs, comparison: &comparison })?;
            }
            false => {
                run.answer.line(&a.line("A"))?;
                run.answer.line(&b.line("B"))?;
                diff_report::lines(&comparison).try_for_each(|line| run.answer.line(&line))?;
            }
        }
        match differs && self.exit_code {
            true => Err(Error::failed("the images differ")),
            false => Ok(()),
        }
    }

    /// The only image at `address`, and its store.
    fn open(&self, address: &OsStr, run: &CliRun) -> Result<(Arc<dyn Store>, Image)> {
        let open = || {
            let opened = self.access.source(&*address::parse(address)?, run)?;
            let store = inspect_source::store(opened.source, run)?;
            let images = inspect_source::images(&*store, &opened.selectors, &self.choice.platforms(), run)?;
            let image = inspect_source::one(inspect_source::some(images, &*store)?)
                .map_err(|error| error.at(address.to_string_lossy()))?;
            Ok((store, image))
        };
        open().map_err(|error| open::with_hint(address, error))
    }
}
