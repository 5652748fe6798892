//! containerd's images, through the ctr that is beside it: single blobs, so that only those are fetched that are
//! wanted, several at once, and each from the byte where it broke off.

use super::fetch_blob::Fetched;
use super::kind::{Found, Loader};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, Hasher, MAX_MANIFEST_BYTES, Name, media_type};
use crate::progress::Watch;
use crate::remote::{Host, ask};
use crate::source::{Root, Selector, Store, select};
use std::{
    collections::{HashMap, HashSet},
    io::Read,
    sync::{Arc, Mutex, MutexGuard},
};

/// Names that are looked at, at most.
const MOST: usize = 20_000;
const BEGIN: &str = "imgmv-images";
const BLOBS: &str = "imgmv-blobs";
const END: &str = "imgmv-end";

/// What there is, in one answer: `$@` is ctr with its namespace. Nothing in it may be quoted by another shell's rules.
const SCRIPT: &str = r#"echo; echo imgmv-images; "$@" images ls || exit 1; echo imgmv-blobs; "$@" content ls -q || exit 1; echo imgmv-end"#;

/// Where ctr lies beside nerdctl.
const CTR: &str = "PATH=$PATH:/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin:/snap/bin; command -v ctr";

/// One namespace of the containerd on a host.
pub struct FetchStore {
    host: Arc<dyn Host>,
    found: Found,
    listed: Vec<(Name, Descriptor)>,
    here: HashSet<Digest>,
    manifests: Mutex<HashMap<Digest, Vec<u8>>>,
    watch: Arc<dyn Watch>,
    cancel: Cancel,
}

/// One line of `ctr images ls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub name: Name,
    pub media_type: String,
    pub digest: Digest,
}

impl FetchStore {
    /// The images in the containerd that `found` speaks to. `None` where it is another engine, or there is no ctr that
    /// may look into it: then the engine's own save is what there is.
    pub fn open(
        host: Arc<dyn Host>,
        found: &Found,
        watch: Arc<dyn Watch>,
        cancel: &Cancel,
    ) -> Result<Option<FetchStore>> {
        let found = match found.loader {
            Loader::Ctr => found.clone(),
            Loader::Nerdctl => {
                // By sudo where nerdctl is.
                let before = &found.words[..found.words.len().saturating_sub(1)];
                let words = beside(&*host)?.map(|ctr| [before, &[ctr]].concat());
                match words.and_then(|words| found.by_ctr(&words)) {
                    Some(ctr) => ctr,
                    None => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        let words = found.command(&[]);
        let mut command = vec!["sh", "-c", SCRIPT, "imgmv"];
        command.extend(words.iter().map(String::as_str));
        let answer = ask(&*host, &command)?;
        let Some((rows, here)) = read(&answer.stdout) else {
            return match found.loader {
                Loader::Ctr if answer.exit.success() => {
                    Err(Error::remote_host(format!("{}: ctr gave no list of its images", host.name())))
                }
                _ => Err(Error::remote_host(format!("{}: ctr {}", host.name(), answer.exit.describe()))),
            };
        };
        // How large a manifest is shows when it is fetched.
        let listed = rows.into_iter().map(|row| (row.name, Descriptor::new(&row.media_type, row.digest, 0)));
        let (listed, manifests) = (listed.collect(), Mutex::default());
        Ok(Some(FetchStore { host, found, listed, here, manifests, watch, cancel: cancel.clone() }))
    }

    /// The names, what they point at, and of which type that is, without a look at it.
    pub fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        self.listed.iter().map(|(name, at)| Row {
            name: name.clone(),
            media_type: at.media_type.clone(),
            digest: at.digest,
        })
    }

    fn manifests(&self) -> MutexGuard<'_, HashMap<Digest, Vec<u8>>> {
        self.manifests.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// A manifest by its digest alone; hashed.
    fn fetched(&self, digest: &Digest) -> Result<Vec<u8>> {
        if let Some(known) = self.manifests().get(digest) {
            return Ok(known.clone());
        }
        let blob = Descriptor::new(media_type::OCTETS, *digest, MAX_MANIFEST_BYTES);
        let mut bytes = Vec::new();
        self.blob(&blob, 0, Extent::AtMost)
            .take(MAX_MANIFEST_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(Error::from)?;
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(Error::invalid(format!("manifest {digest} has more than {MAX_MANIFEST_BYTES} bytes")));
        }
        let got = Hasher::new(digest.algorithm()).with(&bytes).finish();
        if got != *digest {
            let host = self.host.name();
            return Err(Error::digest_mismatch(format!("manifest {digest} from {host} does not match: got {got}")));
        }
        self.manifests().insert(*digest, bytes.clone());
        Ok(bytes)
    }

    fn blob(&self, blob: &Descriptor, from: u64, extent: Extent) -> Fetched {
        let size = (extent == Extent::Exactly).then_some(blob.size);
        let command = self.found.command(&["content", "get", &blob.digest.to_string()]);
        Fetched::new(self.host.clone(), command, blob.digest, from, size, self.watch.clone(), &self.cancel)
    }
}

/// What is known of a blob's size.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Exactly,
    AtMost,
}

impl Store for FetchStore {
    /// An image that no name is given for is not there: content without a name is on its way out.
    fn roots(&self, picks: &[Selector]) -> Result<Vec<Root>> {
        let all: Vec<Root> = self.listed.iter().map(|(name, at)| Root::new(Some(name.clone()), at.clone())).collect();
        let chosen = select(&all, picks).map_err(|error| error.at(self.host.name()))?;
        let sized = |root: Root| {
            let size = self.fetched(&root.descriptor.digest)?.len() as u64;
            Ok(Root { descriptor: Descriptor { size, ..root.descriptor }, ..root })
        };
        chosen.into_iter().map(sized).collect()
    }
    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        self.fetched(&at.digest)
    }
    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        if !self.here.contains(&blob.digest) {
            return Err(Error::not_found(format!(
                "{}: containerd has the image but not its blob {} (it may discard layers that it has unpacked); load or \
                 pull it there again",
                self.host.name(),
                blob.digest
            )));
        }
        let extent = if blob.size > 0 { Extent::Exactly } else { Extent::AtMost };
        Ok(Box::new(self.blob(blob, from, extent)))
    }
    /// ctr tells no exact size: it is 0 here, and shows when the blob is read.
    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        Ok(self.here.contains(digest).then(|| Descriptor::new(media_type::OCTETS, *digest, 0)))
    }
    fn names(&self) -> Result<Vec<Name>> {
        Ok(self.listed.iter().map(|(name, _)| name.clone()).collect())
    }
    fn is_sparse(&self) -> bool {
        true
    }
    fn is_far(&self) -> bool {
        true
    }
}

/// The path of ctr on `host`.
fn beside(host: &dyn Host) -> Result<Option<String>> {
    let answer = ask(host, &["sh", "-c", CTR])?;
    let path = answer.stdout.lines().map(str::trim).rfind(|line| line.starts_with('/'));
    Ok(path.filter(|_| answer.exit.success()).map(str::to_owned))
}

/// The names and the digests between the marks; a row or a line that is none is passed over.
fn read(text: &str) -> Option<(Vec<Row>, HashSet<Digest>)> {
    let (_, after) = text.split_once(&format!("{BEGIN}\n"))?;
    let (images, after) = after.split_once(&format!("{BLOBS}\n"))?;
    let (blobs, _) = after.split_once(&format!("{END}\n"))?;
    let rows = images.lines().filter_map(row).take(MOST).collect();
    Some((rows, blobs.lines().filter_map(|line| line.trim().parse().ok()).collect()))
}

/// `REF TYPE DIGEST SIZE …`. CRI's second name of every image, its config's digest, is no name.
fn row(line: &str) -> Option<Row> {
    let mut words = line.split_whitespace();
    let (name, media_type, digest) = (words.next()?, words.next()?, words.next()?);
    let known = media_type::is_index(media_type) || media_type::is_manifest(media_type);
    let name = Name::new(name).ok().filter(|_| known && name.parse::<Digest>().is_err())?;
    Some(Row { name, media_type: media_type.to_owned(), digest: digest.parse().ok()? })
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
        let (rows, here) = read(&text).unwrap();
        assert_eq!(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["docker.io/t/app:1"]);
        assert_eq!(here, HashSet::from([digest]));
        assert!(read(&text.replace(END, "")).is_none());
    }
}
