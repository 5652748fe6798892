//! `imgmv list`: lists the names of images.

use crate::cli::address;
use crate::cli::address::help::PLACES;
use crate::cli::context::CliRun;
use crate::cli::open;
use crate::cli::open::SourceAccess;
use crate::cli::open::inspect_source;
use crate::cli::options::YesOrNo;
use crate::cli::output::answer::VERSION;
use crate::cli::output::referrer_tree::{ReferrerTree, ReferrersDocument};
use crate::copy::Platforms;
use crate::image::Digest;
use crate::progress::Watch;
use crate::source::Root;
use crate::source::attached::image_roots;
use crate::transport::address::{Address, Listed};
use crate::{Error, Result};
use clap::Args;
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;

/// List the names of the images in SRC, one per line
///
/// For a repository, also one in a registry's storage tree, imgmv lists its tags. An image without a
/// name is listed as @DIGEST, in docker's directory and containers-storage by its image ID; a name of
/// two images is listed as NAME@DIGEST, in docker's directory and containers-storage with the image ID
/// as DIGEST.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{PLACES}"))]
pub struct ListVerb {
    /// Location of the images
    #[arg(value_name = "SRC")]
    src: OsString,
    /// Print what belongs to each image as a tree: signatures, SBOMs, attestations and other referrers, and the manifests
    /// under cosign's tags. A reference to a registry without a tag is latest
    #[arg(long, env = "IMGMV_REFERRERS", value_parser = is_yes)]
    referrers: bool,
    #[command(flatten)]
    access: SourceAccess,
}

const EXAMPLES: &str = "\
Examples:
  imgmv list oci:./mirror
  imgmv list bundle.tar
  imgmv list registry.lan:5000/team/app
  imgmv list registry-dir:/srv/registry:team/app
  imgmv list containerd: --src-namespace k8s.io
  imgmv list docker-dir: --src-root /mnt/disk/var/lib/docker
  imgmv list ssh://root@node1
  imgmv list bundle.tar --json
  imgmv list --referrers registry.lan:5000/team/app:2";

#[derive(Serialize)]
struct ListDocument {
    version: u32,
    images: Vec<ListEntry>,
}

#[derive(Serialize)]
struct ListEntry {
    name: Option<String>,
    /// Null for tags of a registry and for engines that do not report it, because it would take one request per image.
    digest: Option<Digest>,
    media_type: Option<String>,
    #[serde(skip)]
    by_digest: bool,
}

impl ListVerb {
    pub fn run(self, run: &CliRun) -> Result<()> {
        self.execute(run).map_err(|error| open::with_hint(&self.src, error))
    }

    fn execute(&self, run: &CliRun) -> Result<()> {
        let address = address::parse(&self.src)?;
        if self.referrers {
            return self.print_referrers(&*address, run);
        }
        if let Some(listed) = self.access.list(&*address, run)? {
            return answer(listed.into_iter().map(ListEntry::from).collect(), run);
        }
        let opened = self.access.source(&*address, run)?;
        let store = inspect_source::store(opened.source, run)?;
        answer(
            with_digest_if_ambiguous(store.roots(&opened.selectors)?.into_iter().map(ListEntry::from).collect()),
            run,
        )
    }
}

impl ListVerb {
    fn print_referrers(&self, address: &dyn Address, run: &CliRun) -> Result<()> {
        if address.profile().is_engine {
            return Err(Error::usage(format!(
                "{address}: an engine does not store signatures or other referrers; list them in the registry of the image"
            )));
        }
        let opened = self.access.source(address, run)?;
        let store = inspect_source::store(opened.source, run)?;
        let roots = inspect_source::some(image_roots(&*store, &opened.selectors)?, &*store)?;
        let mut trees = Vec::new();
        for image in inspect_source::images_of(&*store, roots, &Platforms::Default, run)? {
            trees.push(ReferrerTree::read(&image, &*store, run)?);
        }
        run.screen.clear();
        trees.iter().filter_map(ReferrerTree::note).for_each(|note| run.screen.say(&note));
        match run.answer.json() {
            true => run.answer.document(&ReferrersDocument::new(&trees)),
            false => trees.iter().flat_map(ReferrerTree::lines).try_for_each(|line| run.answer.line(&line)),
        }
    }
}

/// The variable is a list of types for other verbs; then it asks for nothing here.
fn is_yes(text: &str) -> Result<bool, String> {
    Ok(text.parse::<YesOrNo>().ok().and_then(YesOrNo::value).unwrap_or_default())
}

fn answer(entries: Vec<ListEntry>, run: &CliRun) -> Result<()> {
    run.screen.clear();
    if run.answer.json() {
        return run.answer.document(&ListDocument { version: VERSION, images: entries });
    }
    entries.iter().try_for_each(|entry| run.answer.line(&entry.line()))
}

/// Marks the names that several images have, so that they are shown with their digests.
fn with_digest_if_ambiguous(mut entries: Vec<ListEntry>) -> Vec<ListEntry> {
    let mut digests: HashMap<String, HashSet<Option<Digest>>> = HashMap::new();
    for entry in &entries {
        digests.entry(entry.name.clone().unwrap_or_default()).or_default().insert(entry.digest);
    }
    for entry in &mut entries {
        entry.by_digest = entry.name.as_ref().is_some_and(|name| digests[name].len() > 1);
    }
    entries
}

impl From<Listed> for ListEntry {
    fn from((name, known): Listed) -> ListEntry {
        let (digest, media_type) = known.unzip();
        ListEntry { name: Some(name.to_string()), digest, media_type, by_digest: false }
    }
}

impl From<Root> for ListEntry {
    fn from(root: Root) -> ListEntry {
        ListEntry {
            name: root.name.map(|name| name.to_string()),
            digest: Some(root.descriptor.digest),
            media_type: Some(root.descriptor.media_type),
            by_digest: false,
        }
    }
}

impl ListEntry {
    fn line(&self) -> String {
        match (&self.name, &self.digest) {
            (Some(name), Some(digest)) if self.by_digest => format!("{name}@{digest}"),
            (Some(name), _) => name.clone(),
            (None, Some(digest)) => format!("@{digest}"),
            (None, None) => String::new(),
        }
    }
}
