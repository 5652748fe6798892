//! `imgmv inspect`: shows an image from its name to its blobs, or the exact bytes of one document.

use crate::cli::address;
use crate::cli::address::help::PLACES;
use crate::cli::context::CliRun;
use crate::cli::open;
use crate::cli::open::SourceAccess;
use crate::cli::open::inspect_source;
use crate::cli::open::selection::Choice;
use crate::cli::output::image_report::{ImageDocument, InspectedImage};
use crate::cli::output::referrer_tree::ReferrerTree;
use crate::copy::Platforms;
use crate::image::media_type::is_manifest;
use crate::image::{Descriptor, Image, Manifest, Platform};
use crate::progress::{Event, Watch};
use crate::source::attached::image_roots;
use crate::source::documents;
use crate::source::{Selector, Store};
use crate::{Error, Kind, Result};
use clap::builder::FalseyValueParser;
use clap::{ArgGroup, Args};
use std::ffi::OsString;

/// Show the indexes, manifests, configs and layers of an image, with digests and sizes
///
/// Use --json in scripts. --raw and --config write the exact bytes of one document.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{PLACES}"))]
#[command(group = ArgGroup::new("exact").args(["raw", "config"]))]
pub struct InspectVerb {
    /// Location of the images
    #[arg(value_name = "SRC")]
    src: OsString,
    /// Write the exact bytes of the index or manifest; with --platform, of that platform's manifest
    #[arg(long, env = "IMGMV_RAW", value_parser = FalseyValueParser::new())]
    raw: bool,
    /// Write the exact bytes of the config; of an index, the config for --platform, by default for this host
    #[arg(long, env = "IMGMV_CONFIG", value_parser = FalseyValueParser::new())]
    config: bool,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    access: SourceAccess,
}

const EXAMPLES: &str = "\
Examples:
  imgmv inspect alpine:3.20
  imgmv inspect alpine:3.20 --raw | sha256sum
  imgmv inspect alpine:3.20 --config --platform linux/arm64
  imgmv inspect app.tar --json | jq -r '.images[].manifests[].layers[].digest'";

impl InspectVerb {
    pub fn run(self, run: &CliRun) -> Result<()> {
        self.execute(run).map_err(|error| open::with_hint(&self.src, error))
    }

    fn execute(&self, run: &CliRun) -> Result<()> {
        let address = address::parse(&self.src)?;
        let opened = self.access.source(&*address, run)?;
        let (selectors, store) = (opened.selectors, inspect_source::store(opened.source, run)?);
        let platforms = self.choice.platforms();
        match (self.raw, self.config) {
            (true, _) => write_exact(&document(&*store, &selectors, &platforms, run)?.bytes, run),
            (_, true) => write_exact(&config(&*store, &selectors, &platforms, run)?, run),
            (false, false) => {
                let shown = Shown { store: &*store, is_engine: address.profile().is_engine };
                shown.show(&selectors, &platforms, run)
            }
        }
    }
}

fn write_exact(bytes: &[u8], run: &CliRun) -> Result<()> {
    run.screen.clear();
    run.answer.bytes(bytes)
}

/// A location whose images are shown.
struct Shown<'s> {
    store: &'s dyn Store,
    /// An engine does not store referrers.
    is_engine: bool,
}

impl Shown<'_> {
    fn show(&self, selectors: &[Selector], platforms: &Platforms, run: &CliRun) -> Result<()> {
        let store = self.store;
        let roots = store.roots(selectors)?;
        let images = inspect_source::some(inspect_source::images(store, selectors, &Platforms::Default, run)?, store)?;
        let mut all = Vec::with_capacity(images.len());
        for image in &images {
            let synthesised =
                roots.iter().any(|root| root.synthesised && root.descriptor.digest == image.source_digest);
            let mut inspected = InspectedImage::new(image, synthesised, store)?;
            self.add_referrers(&mut inspected, image, run)?;
            if let Platforms::Only(wanted) = platforms {
                inspected.retain_platforms(wanted)?;
            }
            all.push(inspected);
        }
        run.screen.clear();
        match run.answer.json() {
            true => run.answer.document(&ImageDocument::new(all)),
            false => all.iter().flat_map(InspectedImage::lines).try_for_each(|line| run.answer.line(&line)),
        }
    }

    /// Adds what belongs to `image`, as `imgmv list --referrers` does. Where the location cannot list it, the image is
    /// shown without it.
    fn add_referrers(&self, inspected: &mut InspectedImage, image: &Image, run: &CliRun) -> Result<()> {
        if self.is_engine {
            inspected.add_referrers(&[]);
            return Ok(());
        }
        match ReferrerTree::read(image, self.store, run) {
            Ok(tree) => {
                tree.note().iter().for_each(|note| run.screen.say(note));
                inspected.add_referrers(&tree.flat());
                Ok(())
            }
            Err(error) if error.kind() == Kind::Interrupted => Err(error),
            Err(error) => {
                let digest = image.source_digest;
                run.screen.event(Event::Detail(&format!("the referrers of {digest} cannot be listed: {error}")));
                Ok(())
            }
        }
    }
}

/// Reads the selected manifest or index, without its children.
fn document(store: &dyn Store, selectors: &[Selector], platforms: &Platforms, run: &CliRun) -> Result<Manifest> {
    match platforms {
        Platforms::Only(wanted) if wanted.len() > 1 => {
            Err(Error::usage("--raw and --config write one document; give only one --platform"))
        }
        Platforms::Only(_) => {
            Ok(inspect_source::one(inspect_source::images(store, selectors, platforms, run)?)?.root().clone())
        }
        Platforms::Default | Platforms::All => {
            let mut roots = image_roots(store, selectors)?;
            roots.dedup_by_key(|root| root.descriptor.digest);
            inspect_source::one(roots)?.read(store)
        }
    }
}

fn config(store: &dyn Store, selectors: &[Selector], platforms: &Platforms, run: &CliRun) -> Result<Vec<u8>> {
    let mut manifest = document(store, selectors, platforms, run)?;
    if !manifest.children().is_empty() {
        manifest = child_for_host(store, selectors, &manifest, run)?;
    }
    match manifest.config() {
        Some(config) => documents::document(store, config),
        None => Err(Error::not_found(format!("manifest {} has no config", manifest.digest()))),
    }
}

/// The only image of `index`, else its image for this host.
fn child_for_host(store: &dyn Store, selectors: &[Selector], index: &Manifest, run: &CliRun) -> Result<Manifest> {
    let is_image = |child: &&Descriptor| child.platform.as_ref().is_none_or(|platform| platform.os != "unknown");
    let images: Vec<&Descriptor> = index.children().iter().filter(is_image).collect();
    match images[..] {
        [only] if is_manifest(&only.media_type) => Manifest::parse(store.manifest(only)?, only),
        _ => document(store, selectors, &Platforms::Only(vec![Platform::host()]), run),
    }
}
