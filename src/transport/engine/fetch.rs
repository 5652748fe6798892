//! containerd's images as a source, through its ctr. Blobs are read one by one, so only the needed ones are fetched,
//! several at once, and a broken read resumes at its byte.

use super::fetch_blob::CtrBlobReader;
use super::kind::{DetectedEngine, Loader};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, Hasher, MAX_MANIFEST_BYTES, Name, media_type};
use crate::progress::Watch;
use crate::remote::{Host, capture};
use crate::source::{Profile, Root, Selector, Store, select, with_unlisted};
use std::{
    collections::{HashMap, HashSet},
    io::Read,
    sync::{Arc, Mutex, MutexGuard},
};

/// Names read from the list, at most.
const MAX_IMAGES: usize = 20_000;
const BEGIN: &str = "imgmv-images";
const BLOBS: &str = "imgmv-blobs";
const END: &str = "imgmv-end";

/// Lists images and blobs in one answer. `$@` is ctr with its namespace. Every login shell passes its quoting on
/// unchanged.
const SCRIPT: &str = r#"echo; echo imgmv-images; "$@" images ls || exit 1; echo imgmv-blobs; "$@" content ls -q || exit 1; echo imgmv-end"#;

/// Prints the path of ctr on a host with nerdctl.
const CTR: &str = "PATH=$PATH:/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin:/snap/bin; command -v ctr";

/// One namespace of the containerd on a host.
pub struct FetchStore {
    host: Arc<dyn Host>,
    found: DetectedEngine,
    listed: Vec<(Name, Descriptor)>,
    blobs: HashSet<Digest>,
    manifests: Mutex<HashMap<Digest, Vec<u8>>>,
    watch: Arc<dyn Watch>,
    cancel: Cancel,
}

/// One line of `ctr images ls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRow {
    pub name: Name,
    pub media_type: String,
    pub digest: Digest,
}

impl FetchStore {
    /// Lists the images in the containerd that `found` uses. `None` for another engine, or if ctr was not found; then
    /// the engine's own save command is used.
    pub fn open(
        host: Arc<dyn Host>,
        found: &DetectedEngine,
        watch: Arc<dyn Watch>,
        cancel: &Cancel,
    ) -> Result<Option<FetchStore>> {
        let found = match found.loader {
            Loader::Ctr => found.clone(),
            Loader::Nerdctl => {
                // With sudo if nerdctl needs it.
                let before = &found.argv[..found.argv.len().saturating_sub(1)];
                let argv = find_ctr(&*host)?.map(|ctr| [before, &[ctr]].concat());
                match argv.and_then(|argv| found.with_ctr(&argv)) {
                    Some(ctr) => ctr,
                    None => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        let argv = found.command(&[]);
        let mut command = vec!["sh", "-c", SCRIPT, "imgmv"];
        command.extend(argv.iter().map(String::as_str));
        let answer = capture(&*host, &command)?;
        let Some((rows, blobs)) = parse_listing(&answer.stdout) else {
            return match found.loader {
                Loader::Ctr if answer.exit.success() => {
                    Err(Error::remote_host(format!("{}: ctr printed no complete image list", host.name())))
                }
                _ => Err(Error::remote_host(format!("{}: ctr {}", host.name(), answer.exit.describe()))),
            };
        };
        // The size of a manifest is known only once it is read.
        let listed = rows.into_iter().map(|row| (row.name, Descriptor::new(&row.media_type, row.digest, 0)));
        let (listed, manifests) = (listed.collect(), Mutex::default());
        Ok(Some(FetchStore { host, found, listed, blobs, manifests, watch, cancel: cancel.clone() }))
    }

    /// The names with the media types and digests that they point at, without reading the manifests.
    pub fn rows(&self) -> impl Iterator<Item = ImageRow> + '_ {
        self.listed.iter().map(|(name, at)| ImageRow {
            name: name.clone(),
            media_type: at.media_type.clone(),
            digest: at.digest,
        })
    }

    fn manifests(&self) -> MutexGuard<'_, HashMap<Digest, Vec<u8>>> {
        self.manifests.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Reads a manifest by its digest and checks the hash.
    fn read_manifest(&self, digest: &Digest) -> Result<Vec<u8>> {
        if let Some(known) = self.manifests().get(digest) {
            return Ok(known.clone());
        }
        let blob = Descriptor::new(media_type::OCTETS, *digest, MAX_MANIFEST_BYTES);
        let mut bytes = Vec::new();
        self.blob(&blob, 0, BlobSize::AtMost)
            .take(MAX_MANIFEST_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(Error::from)?;
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(Error::invalid(format!("manifest {digest} exceeds {MAX_MANIFEST_BYTES} bytes")));
        }
        let got = Hasher::new(digest.algorithm()).with(&bytes).finish();
        if got != *digest {
            let host = self.host.name();
            return Err(Error::digest_mismatch(format!("manifest {digest} from {host} does not match: got {got}")));
        }
        self.manifests().insert(*digest, bytes.clone());
        Ok(bytes)
    }

    fn blob(&self, blob: &Descriptor, from: u64, size: BlobSize) -> CtrBlobReader {
        let size = (size == BlobSize::Exact).then_some(blob.size);
        let command = self.found.command(&["content", "get", &blob.digest.to_string()]);
        CtrBlobReader::new(self.host.clone(), command, blob.digest, from, size, self.watch.clone(), &self.cancel)
    }
}

/// Whether a descriptor's size is exact or an upper limit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BlobSize {
    Exact,
    AtMost,
}

impl Store for FetchStore {
    /// Without a selector only named images are roots: containerd garbage-collects content without a name.
    fn roots(&self, selectors: &[Selector]) -> Result<Vec<Root>> {
        let all: Vec<Root> = self.listed.iter().map(|(name, at)| Root::new(Some(name.clone()), at.clone())).collect();
        let read = |digest: &Digest| match self.blobs.contains(digest) {
            true => self.read_manifest(digest).map(Some),
            false => Ok(None),
        };
        let known = with_unlisted(all, selectors, read)?;
        let chosen = select(&known, selectors).map_err(|error| error.at(self.host.name()))?;
        let sized = |root: Root| {
            let size = self.read_manifest(&root.descriptor.digest)?.len() as u64;
            Ok(Root { descriptor: Descriptor { size, ..root.descriptor }, ..root })
        };
        chosen.into_iter().map(sized).collect()
    }
    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        self.read_manifest(&at.digest)
    }
    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        if !self.blobs.contains(&blob.digest) {
            return Err(Error::not_found(format!(
                "{}: containerd has the image but not its blob {} (it can discard layers after unpacking them); load \
                 or pull the image on the host again",
                self.host.name(),
                blob.digest
            )));
        }
        let size = if blob.size > 0 { BlobSize::Exact } else { BlobSize::AtMost };
        Ok(Box::new(self.blob(blob, from, size)))
    }
    /// ctr does not print an exact size: it is 0 here, and known once the blob is read.
    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        Ok(self.blobs.contains(digest).then(|| Descriptor::new(media_type::OCTETS, *digest, 0)))
    }
    fn names(&self) -> Result<Vec<Name>> {
        Ok(self.listed.iter().map(|(name, _)| name.clone()).collect())
    }
    fn profile(&self) -> Profile {
        Profile { is_sparse: true, is_remote: true, ..Profile::default() }
    }
}

/// Finds the path of ctr on `host`.
fn find_ctr(host: &dyn Host) -> Result<Option<String>> {
    let answer = capture(host, &["sh", "-c", CTR])?;
    let path = answer.stdout.lines().map(str::trim).rfind(|line| line.starts_with('/'));
    Ok(path.filter(|_| answer.exit.success()).map(str::to_owned))
}

/// Parses the names and the digests between the markers. Malformed lines are ignored.
fn parse_listing(text: &str) -> Option<(Vec<ImageRow>, HashSet<Digest>)> {
    let (_, after) = text.split_once(&format!("{BEGIN}\n"))?;
    let (images, after) = after.split_once(&format!("{BLOBS}\n"))?;
    let (blobs, _) = after.split_once(&format!("{END}\n"))?;
    let rows = images.lines().filter_map(parse_row).take(MAX_IMAGES).collect();
    Some((rows, blobs.lines().filter_map(|line| line.trim().parse().ok()).collect()))
}

/// Parses `REF TYPE DIGEST SIZE …`. CRI adds to every image a second name, its config's digest; that row is ignored.
fn parse_row(line: &str) -> Option<ImageRow> {
    let mut columns = line.split_whitespace();
    let (name, media_type, digest) = (columns.next()?, columns.next()?, columns.next()?);
    let known = media_type::is_index(media_type) || media_type::is_manifest(media_type);
    let name = Name::new(name).ok().filter(|_| known && name.parse::<Digest>().is_err())?;
    Some(ImageRow { name, media_type: media_type.to_owned(), digest: digest.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_and_what_is_no_row_is_not() {
        let digest = Digest::of(b"x");
        let text = format!(
            "Welcome\n{BEGIN}\nREF TYPE DIGEST SIZE PLATFORMS LABELS\n\
             docker.io/t/app:1 application/vnd.oci.image.manifest.v1+json {digest} 8.3 MiB linux/amd64 -\n\
             {digest} application/vnd.oci.image.manifest.v1+json {digest} 8.3 MiB linux/amd64 -\n\
             docker.io/t/bad:1 text/plain {digest} 1 B - -\ndocker.io/t/worse:1 nonsense\n{BLOBS}\n{digest}\nnone\n{END}\n"
        );
        let (rows, blobs) = parse_listing(&text).unwrap();
        assert_eq!(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["docker.io/t/app:1"]);
        assert_eq!(blobs, HashSet::from([digest]));
        assert!(parse_listing(&text.replace(END, "")).is_none());
    }
}
