//! `imgmv digest`: prints the digest of an image.

use crate::Result;
use crate::cli::address;
use crate::cli::address::help::PLACES;
use crate::cli::context::CliRun;
use crate::cli::open;
use crate::cli::open::SourceAccess;
use crate::cli::open::inspect_source;
use crate::cli::open::selection::Choice;
use crate::cli::output::answer::VERSION;
use crate::copy::Platforms;
use crate::image::{Digest as Value, Name};
use clap::Args;
use serde::Serialize;
use std::ffi::OsString;

/// Print the digest of an image: of its index or manifest, or with --platform of that platform's manifest
///
/// If SRC has several images, each digest is followed by the image's name.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{PLACES}"))]
pub struct DigestVerb {
    /// Location of the image
    #[arg(value_name = "SRC")]
    src: OsString,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    access: SourceAccess,
}

const EXAMPLES: &str = "\
Examples:
  imgmv digest alpine:3.20
  imgmv digest alpine:3.20 --platform linux/arm64
  imgmv digest oci:./mirror:app-2";

#[derive(Serialize)]
struct DigestDocument {
    version: u32,
    images: Vec<ImageDigest>,
}

#[derive(Serialize)]
struct ImageDigest {
    name: Option<String>,
    digest: Value,
}

impl DigestVerb {
    pub fn run(self, run: &CliRun) -> Result<()> {
        self.execute(run).map_err(|error| open::with_hint(&self.src, error))
    }

    fn execute(&self, run: &CliRun) -> Result<()> {
        let opened = self.access.source(&*address::parse(&self.src)?, run)?;
        let store = inspect_source::store(opened.source, run)?;
        let entries = match self.choice.platforms() {
            // Reads only the roots, not their children.
            Platforms::Default | Platforms::All => {
                let roots = store.roots(&opened.selectors)?;
                let entry = |root: crate::source::Root| ImageDigest::new(root.name.as_ref(), root.descriptor.digest);
                inspect_source::some(roots, &*store)?.into_iter().map(entry).collect()
            }
            platforms => inspect_source::images(&*store, &opened.selectors, &platforms, run)?
                .iter()
                .map(|image| ImageDigest::new(image.names.first(), image.root().digest()))
                .collect::<Vec<_>>(),
        };
        run.screen.clear();
        if run.answer.json() {
            return run.answer.document(&DigestDocument { version: VERSION, images: entries });
        }
        let several = entries.len() > 1;
        entries.iter().try_for_each(|entry| {
            run.answer.line(&match &entry.name {
                Some(name) if several => format!("{} {name}", entry.digest),
                _ => entry.digest.to_string(),
            })
        })
    }
}

impl ImageDigest {
    fn new(name: Option<&Name>, digest: Value) -> ImageDigest {
        ImageDigest { name: name.map(Name::to_string), digest }
    }
}
