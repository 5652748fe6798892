//! `imgmv verify`: everything an image consists of, read and hashed.

use crate::cli::address::Place;
use crate::cli::address::help::PLACES;
use crate::cli::context::Run;
use crate::cli::open;
use crate::cli::open::inspect_source;
use crate::cli::open::selection::Choice;
use crate::cli::open::{NetworkOptions, Opened};
use crate::cli::output::answer::VERSION;
use crate::cli::output::report::named;
use crate::cli::verify_blobs;
use crate::cli::verify_blobs::{Found, Hashed, Raw};
use crate::image::Image;
use crate::image::{Config, Descriptor, Digest, Manifest, Name};
use crate::source::Store;
use crate::source::documents;
use crate::tarball::StreamedStore;
use crate::{Error, Kind, Result};
use clap::Args;
use indicatif::HumanBytes;
use serde::Serialize;
use std::collections::HashSet;
use std::ffi::OsString;
use std::sync::Arc;

/// Read and hash everything that SRC's images consist of
///
/// Manifests, configs and layers against their digests and sizes, and layers unpacked against the diff_ids that the
/// config lists. Every broken blob is named on standard error; then the exit status is 5.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{PLACES}"))]
pub struct Verify {
    /// Where the images are
    #[arg(value_name = "SRC")]
    src: OsString,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    from: open::SourceOptions,
    #[command(flatten)]
    reach: NetworkOptions,
}

const EXAMPLES: &str = "\
Examples:
  imgmv verify bundle.tar
  imgmv verify oci:./mirror
  imgmv verify registry.lan:5000/team/app:2 --platform linux/amd64
  ssh node1 docker save app:2 | imgmv verify -";

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    images: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    names: Vec<&'a str>,
    digest: Digest,
    ok: bool,
    blobs: usize,
    bytes: u64,
    /// What is wrong, a sentence for each broken blob.
    broken: &'a [String],
}

/// One image, judged.
struct Judged {
    names: Vec<Name>,
    digest: Digest,
    blobs: usize,
    bytes: u64,
    broken: Vec<String>,
}

impl Verify {
    pub fn run(self, run: &Run) -> Result<()> {
        self.look(run).map_err(|error| open::hinted(&self.src, error))
    }

    fn look(&self, run: &Run) -> Result<()> {
        let Opened { source, picks, .. } = open::source(&Place::parse(&self.src)?, &self.from, &self.reach, run)?;
        let platforms = self.choice.platforms();
        let (store, images, hashed) = match source.into_store() {
            Ok(store) => {
                let images = inspect_source::images(&*store, &picks, &platforms, run)?;
                let hashed = verify_blobs::of_store(&*store, &images, run)?;
                (store, images, hashed)
            }
            Err(stream) => {
                let (tail, hashed) = verify_blobs::of_stream(*stream, run)?;
                let store: Arc<dyn Store> = Arc::new(StreamedStore { summary: tail, blobs: None });
                let images = inspect_source::images(&*store, &picks, &platforms, run)?;
                (store, images, hashed)
            }
        };
        let images = inspect_source::some(images, &*store)?;
        let judged = images.iter().map(|image| judge(image, &*store, &hashed)).collect::<Result<Vec<_>>>()?;
        run.screen.end();
        tell(&judged, run)
    }
}

fn tell(judged: &[Judged], run: &Run) -> Result<()> {
    match run.answer.json() {
        true => {
            run.answer.document(&Document { version: VERSION, images: judged.iter().map(Judged::entry).collect() })?
        }
        false => judged.iter().flat_map(Judged::lines).try_for_each(|line| run.answer.line(&line))?,
    }
    let mut told = HashSet::new();
    let broken = judged.iter().flat_map(|image| &image.broken);
    broken.filter(|sentence| told.insert(sentence.as_str())).for_each(|sentence| run.screen.error(sentence));
    match judged.iter().filter(|image| !image.broken.is_empty()).count() {
        0 => Ok(()),
        n => Err(Error::invalid(format!("{n} of {} images are broken", judged.len()))),
    }
}

impl Judged {
    fn entry(&self) -> Entry<'_> {
        Entry {
            names: self.names.iter().map(Name::as_str).collect(),
            digest: self.digest,
            ok: self.broken.is_empty(),
            blobs: self.blobs,
            bytes: self.bytes,
            broken: &self.broken,
        }
    }

    fn lines(&self) -> Vec<String> {
        let verdict = match self.broken.len() {
            0 => format!("ok, {} blobs, {}", self.blobs, HumanBytes(self.bytes)),
            n => format!("broken, {n} of {} blobs", self.blobs),
        };
        named(&self.names, &self.digest).map(|name| format!("{name} {verdict}")).collect()
    }
}

/// What `hashed` says of `image`.
fn judge(image: &Image, store: &dyn Store, hashed: &Hashed) -> Result<Judged> {
    let mut judged =
        Judged { names: image.names.clone(), digest: image.root().digest(), blobs: 0, bytes: 0, broken: Vec::new() };
    let mut seen = HashSet::new();
    for blob in image.blobs().filter(|blob| seen.insert(blob.digest)) {
        judged.blobs += 1;
        judged.bytes += blob.size;
        if let Some(wrong) = check(blob, store, hashed)? {
            judged.broken.push(wrong);
        }
    }
    for manifest in &image.tree {
        judged.broken.extend(unlike_config(manifest, store, hashed));
    }
    Ok(judged)
}

/// What is wrong with one blob: not there, of another size, or of another digest.
fn check(blob: &Descriptor, store: &dyn Store, hashed: &Hashed) -> Result<Option<String>> {
    let found = match hashed.get(&blob.digest) {
        Some(found) => found.clone(),
        // Of a stream: configs do not pass as blobs.
        None => documents::document(store, blob).map(|bytes| Found { size: bytes.len() as u64, raw: Raw::Unknown }),
    };
    match found {
        Ok(found) if found.size == blob.size => Ok(None),
        Ok(found) => {
            Ok(Some(format!("blob {} has {} bytes, its descriptor says {}", blob.digest, found.size, blob.size)))
        }
        Err(error) if matches!(error.kind(), Kind::Invalid | Kind::NotFound | Kind::Usage) => {
            Ok(Some(error.to_string()))
        }
        Err(error) => Err(error),
    }
}

/// Layers that, unpacked, are not what the image's config lists.
fn unlike_config(manifest: &Manifest, store: &dyn Store, hashed: &Hashed) -> Vec<String> {
    let Some(at) = manifest.config().filter(|_| manifest.is_container_image()) else { return Vec::new() };
    // A config that cannot be read has been named already.
    let Ok(config) = documents::document(store, at).and_then(|bytes| Config::parse(&bytes)) else { return Vec::new() };
    let (layers, listed) = (manifest.layers(), config.diff_ids());
    if layers.len() != listed.len() {
        let (layers, listed) = (layers.len(), listed.len());
        return vec![format!(
            "config {} lists {listed} layers, its manifest {} has {layers}",
            at.digest,
            manifest.digest()
        )];
    }
    let pairs = layers.iter().zip(listed).filter(|(layer, _)| layer.coding().is_some());
    let wrong = pairs.filter_map(|(layer, listed)| unlike(layer, listed, hashed.get(&layer.digest)?.as_ref().ok()?));
    wrong.collect()
}

/// Why `layer` is not shown to unpack to `listed`.
fn unlike(layer: &Descriptor, listed: &Digest, found: &Found) -> Option<String> {
    let unpacked = match &found.raw {
        Raw::Is(unpacked) => unpacked,
        Raw::Broken(why) => return Some(why.to_string()),
        Raw::Unknown => return None,
    };
    match unpacked.iter().find(|raw| raw.algorithm() == listed.algorithm()) {
        Some(raw) if raw == listed => None,
        Some(raw) => Some(format!("layer {} unpacks to {raw}, its config lists {listed}", layer.digest)),
        None => Some(format!(
            "layer {} was not compared with {listed}: a stream's layers pass before its configs; save the archive to a file",
            layer.digest
        )),
    }
}
