//! `imgmv verify`: reads and hashes all blobs of images.

use crate::cli::address;
use crate::cli::address::help::PLACES;
use crate::cli::context::CliRun;
use crate::cli::open;
use crate::cli::open::inspect_source;
use crate::cli::open::selection::Choice;
use crate::cli::open::{Opened, SourceAccess};
use crate::cli::output::answer::VERSION;
use crate::cli::output::report::name_lines;
use crate::cli::verify_blobs;
use crate::cli::verify_blobs::{HashedBlob, HashedBlobs, Uncompressed};
use crate::image::{Config, Descriptor, Digest, Image, Manifest, Name};
use crate::message::counted;
use crate::source::attached::{Found, attached_to};
use crate::source::documents;
use crate::source::{Store, with_file};
use crate::tarball::StreamedStore;
use crate::{Error, Kind, Result};
use clap::Args;
use indicatif::HumanBytes;
use serde::Serialize;
use std::collections::HashSet;
use std::ffi::OsString;
use std::sync::Arc;

/// Read and hash all blobs of the images in SRC
///
/// imgmv compares manifests, configs and layers with their digests and sizes, and uncompressed layers with the diff_ids
/// in the config. In a layout or an archive it also checks the signatures and other referrers of the images, in a
/// registry's storage tree also the links that the registry follows. It names each broken blob and link on standard
/// error; the exit status is then 5.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{PLACES}"))]
pub struct VerifyVerb {
    /// Location of the images
    #[arg(value_name = "SRC")]
    src: OsString,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    access: SourceAccess,
}

const EXAMPLES: &str = "\
Examples:
  imgmv verify bundle.tar
  imgmv verify oci:./mirror
  imgmv verify registry.lan:5000/team/app:2 --platform linux/amd64
  ssh node1 docker save app:2 | imgmv verify -";

#[derive(Serialize)]
struct VerifyDocument<'a> {
    version: u32,
    images: Vec<VerifiedImage<'a>>,
}

#[derive(Serialize)]
struct VerifiedImage<'a> {
    names: Vec<&'a str>,
    digest: Digest,
    ok: bool,
    blobs: usize,
    bytes: u64,
    /// The manifests that belong to the image: referrers, and those under cosign's tags.
    referrers: usize,
    /// One message for each broken blob, for each link that is missing or broken, and for each referrer that is missing or
    /// damaged.
    broken: Vec<&'a str>,
}

/// The result for one image.
struct Verdict {
    names: Vec<Name>,
    digest: Digest,
    blobs: usize,
    bytes: u64,
    referrers: usize,
    broken: Vec<String>,
    /// The referrers that are missing or damaged.
    broken_referrers: Vec<String>,
    /// The number of links that are missing or broken.
    broken_links: usize,
    /// A sentence for each of them.
    links: Vec<String>,
}

impl VerifyVerb {
    pub fn run(self, run: &CliRun) -> Result<()> {
        self.execute(run).map_err(|error| open::with_hint(&self.src, error))
    }

    fn execute(&self, run: &CliRun) -> Result<()> {
        let Opened { source, selectors, .. } = self.access.source(&*address::parse(&self.src)?, run)?;
        let platforms = self.choice.platforms();
        let unreadable;
        let (store, images, hashed) = match source.into_store() {
            Ok(store) => {
                let mut images = inspect_source::images(&*store, &selectors, &platforms, run)?;
                unreadable = attach(&mut images, &*store, run)?;
                let hashed = verify_blobs::hash_store(&*store, &images, run)?;
                (store, images, hashed)
            }
            Err(stream) => {
                let (tail, hashed) = verify_blobs::hash_stream(*stream, run)?;
                let store: Arc<dyn Store> = Arc::new(StreamedStore::of_all(tail));
                let mut images = inspect_source::images(&*store, &selectors, &platforms, run)?;
                unreadable = attach(&mut images, &*store, run)?;
                (store, images, hashed)
            }
        };
        let images = inspect_source::some(images, &*store)?;
        let mut verdicts =
            images.iter().map(|image| check_image(image, &*store, &hashed)).collect::<Result<Vec<_>>>()?;
        verdicts.iter_mut().zip(unreadable).for_each(|(verdict, why)| verdict.broken_referrers = why);
        run.screen.clear();
        print(&verdicts, run)
    }
}

/// Adds to each of `images` what belongs to it in a layout or archive, so that it is checked too. Returns for each image
/// the errors of manifests that belong to it and cannot be read.
fn attach(images: &mut [Image], store: &dyn Store, run: &CliRun) -> Result<Vec<Vec<String>>> {
    if store.profile().is_remote {
        return Ok(Vec::new());
    }
    let mut unreadable = Vec::with_capacity(images.len());
    for image in images {
        let Found { attached, left_out, unreadable: mut why } = attached_to(image, store, &[], &run.cancel)?;
        image.attached = attached;
        // What was not searched was not verified.
        why.extend(left_out.filter(|left_out| !why.contains(left_out)));
        unreadable.push(why);
    }
    Ok(unreadable)
}

fn print(verdicts: &[Verdict], run: &CliRun) -> Result<()> {
    match run.answer.json() {
        true => run
            .answer
            .document(&VerifyDocument { version: VERSION, images: verdicts.iter().map(Verdict::entry).collect() })?,
        false => verdicts.iter().flat_map(Verdict::lines).try_for_each(|line| run.answer.line(&line))?,
    }
    // Images may share a broken blob; its message is printed once.
    let mut printed = HashSet::new();
    let broken = verdicts.iter().flat_map(Verdict::broken);
    broken.filter(|message| printed.insert(*message)).for_each(|message| run.screen.error(message));
    match (verdicts.iter().filter(|image| !image.is_ok()).count(), verdicts.len()) {
        (0, _) => Ok(()),
        (_, 1) => Err(Error::invalid("the image is broken")),
        (1, all) => Err(Error::invalid(format!("1 of {all} images is broken"))),
        (n, all) => Err(Error::invalid(format!("{n} of {all} images are broken"))),
    }
}

impl Verdict {
    fn broken(&self) -> impl Iterator<Item = &str> {
        self.broken.iter().chain(&self.links).chain(&self.broken_referrers).map(String::as_str)
    }

    fn is_ok(&self) -> bool {
        self.broken().next().is_none()
    }

    fn entry(&self) -> VerifiedImage<'_> {
        VerifiedImage {
            names: self.names.iter().map(Name::as_str).collect(),
            digest: self.digest,
            ok: self.is_ok(),
            blobs: self.blobs,
            bytes: self.bytes,
            referrers: self.referrers,
            broken: self.broken().collect(),
        }
    }

    fn lines(&self) -> Vec<String> {
        let blobs = counted(self.blobs, "blob");
        let broken = [
            (self.broken.len(), format!("{} of {blobs}", self.broken.len())),
            (self.broken_links, counted(self.broken_links, "link")),
            (self.broken_referrers.len(), counted(self.broken_referrers.len(), "referrer")),
        ];
        let broken: Vec<String> = broken.into_iter().filter(|(count, _)| *count > 0).map(|(_, text)| text).collect();
        let verdict = match broken.is_empty() {
            true => format!("ok, {blobs}, {}", HumanBytes(self.bytes)),
            false => format!("broken, {}", broken.join(", ")),
        };
        name_lines(&self.names, &self.digest).map(|name| format!("{name} {verdict}")).collect()
    }
}

/// Compares the blobs of `image` with the results in `hashed`.
fn check_image(image: &Image, store: &dyn Store, hashed: &HashedBlobs) -> Result<Verdict> {
    let mut verdict = Verdict {
        names: image.names.clone(),
        digest: image.root().digest(),
        blobs: 0,
        bytes: 0,
        referrers: image.attached.iter().filter(|attached| !attached.is_part()).count(),
        broken: Vec::new(),
        broken_referrers: Vec::new(),
        broken_links: 0,
        links: Vec::new(),
    };
    let links = store.broken_links(image)?;
    (verdict.broken_links, verdict.links) = (links.count(), links.sentences());
    let mut seen = HashSet::new();
    for blob in image.blobs().filter(|blob| seen.insert(blob.digest)) {
        verdict.blobs += 1;
        verdict.bytes += blob.size;
        if let Some(error) = check_blob(blob, store, hashed)? {
            verdict.broken.push(error);
        }
    }
    for manifest in &image.tree {
        verdict.broken.extend(check_diff_ids(manifest, store, hashed));
    }
    Ok(verdict)
}

/// Returns the error of a blob that is missing, or has another size or digest.
fn check_blob(blob: &Descriptor, store: &dyn Store, hashed: &HashedBlobs) -> Result<Option<String>> {
    let found = match hashed.get(&blob.digest) {
        Some(found) => found.clone(),
        // A stream has its configs in the summary and not among the blobs.
        None => documents::document(store, blob)
            .map(|bytes| HashedBlob { size: bytes.len() as u64, uncompressed: Uncompressed::Unknown }),
    };
    match found {
        Ok(found) if found.size == blob.size => Ok(None),
        Ok(found) => {
            let error = Error::invalid(format!(
                "blob {}: size is {} bytes, expected {} (from its descriptor)",
                blob.digest, found.size, blob.size
            ));
            Ok(Some(with_file(store, &blob.digest, error).to_string()))
        }
        Err(error) if matches!(error.kind(), Kind::Invalid | Kind::NotFound | Kind::Usage) => {
            Ok(Some(error.to_string()))
        }
        Err(error) => Err(error),
    }
}

/// Compares the uncompressed layers with the diff IDs of the config. Returns the errors.
fn check_diff_ids(manifest: &Manifest, store: &dyn Store, hashed: &HashedBlobs) -> Vec<String> {
    let Some(at) = manifest.config().filter(|_| manifest.is_container_image()) else { return Vec::new() };
    // `check_blob` has reported an unreadable config.
    let Ok(config) = documents::document(store, at).and_then(|bytes| Config::parse(&bytes)) else { return Vec::new() };
    let (layers, listed) = (manifest.layers(), config.diff_ids());
    if layers.len() != listed.len() {
        let (layers, listed) = (layers.len(), listed.len());
        return vec![format!(
            "config {}: has {listed} diff_ids, but manifest {} has {layers} layers",
            at.digest,
            manifest.digest()
        )];
    }
    let pairs = layers.iter().zip(listed).filter(|(layer, _)| layer.coding().is_some());
    let errors =
        pairs.filter_map(|(layer, listed)| check_layer(layer, listed, hashed.get(&layer.digest)?.as_ref().ok()?));
    errors.collect()
}

/// Returns an error unless the diff ID of `layer` is `listed`.
fn check_layer(layer: &Descriptor, listed: &Digest, found: &HashedBlob) -> Option<String> {
    let diff_ids = match &found.uncompressed {
        Uncompressed::Digests(diff_ids) => diff_ids,
        Uncompressed::Broken(error) => return Some(error.to_string()),
        Uncompressed::Unknown => return None,
    };
    match diff_ids.iter().find(|diff_id| diff_id.algorithm() == listed.algorithm()) {
        Some(diff_id) if diff_id == listed => None,
        Some(diff_id) => {
            Some(format!("layer {}: its diff_id is {diff_id}, expected {listed} (from the config)", layer.digest))
        }
        None => Some(format!(
            "layer {}: not compared with diff_id {listed}, because a stream has its configs after its layers; save the \
             archive to a file and verify that",
            layer.digest
        )),
    }
}
