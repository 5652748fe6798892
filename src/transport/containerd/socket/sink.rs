//! A containerd as a destination, by its socket.

use super::call::Scope;
use super::connection::Connection;
use super::hash_states::HashStates;
use super::host::HostInfo;
use super::images::Images;
use super::ingest::{Ingest, IngestTarget, Opened, PART_BYTES};
use super::messages::ContentRequest;
use super::read::{Attempts, BlobReader, hash, size};
use super::status::{Failure, code};
use super::writer::SocketWriter;
use super::{call, hash_states, labels, lease, proof};
use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, Manifest, Name, Reference};
use crate::progress::Watch;
use crate::sink::{Begin, Finish, Missing, Order, Shape, Sink, SinkCapabilities, Upcoming};
use crate::source::{Claim, Origin};
use std::collections::HashMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Blobs that are written at the same time.
const LANES: usize = 4;

/// One namespace of a containerd.
pub struct SocketSink {
    connection: Arc<Connection>,
    host: HostInfo,
    /// The lease of this copy, which its first write creates.
    lease: Mutex<Option<String>>,
    images: Images,
    /// Why an image was not named: it is not complete.
    incomplete: Mutex<Option<String>>,
    /// The number of blobs that were started before their digests were known.
    unnamed: AtomicU64,
    /// Whether blobs that exist are hashed.
    verify: bool,
    /// imgmv's directory in the user's cache, for the hashes of unfinished blobs.
    cache: Option<PathBuf>,
    watch: Arc<dyn Watch>,
}

impl SocketSink {
    /// Queries containerd. Without `namespace`, images go to kubelet's if it exists, else to containerd's default.
    ///
    /// # Errors
    /// - `NotFound`, `Denied`, `RemoteHost`: the socket cannot be opened, or nothing answers on it.
    /// - `Invalid`: what answers does not follow containerd's protocol.
    pub fn open(
        connection: Arc<Connection>,
        namespace: Option<&str>,
        verify: bool,
        watch: Arc<dyn Watch>,
    ) -> Result<SocketSink> {
        let host = HostInfo::query(&connection, namespace)?;
        let (images, unnamed) = (Images::default(), AtomicU64::new(0));
        let (lease, incomplete, cache) = (Mutex::default(), Mutex::default(), None);
        Ok(SocketSink { connection, host, lease, images, incomplete, unnamed, verify, cache, watch })
    }

    /// Saves the hashes of unfinished blobs from registries in `cache`.
    pub fn with_cache(mut self, cache: Option<PathBuf>) -> SocketSink {
        self.cache = cache;
        self
    }

    fn error(&self, failure: Failure, action: &str) -> Error {
        failure.into_error(self.connection.name(), action)
    }

    /// The namespace without a lease, for reading.
    fn plain(&self) -> Scope {
        Scope::namespace(&self.host.namespace)
    }

    /// The namespace and the lease of this copy.
    fn leased(&self) -> Result<Scope> {
        let mut lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        if lease.is_none() {
            self.watch.say(&format!("{}: writing to its namespace {}", self.connection.name(), self.host.namespace));
            let id = lease::create(&self.connection, &self.plain());
            *lease = Some(id.map_err(|failure| self.error(failure, "creating a lease"))?);
        }
        Ok(Scope { lease: lease.clone(), ..self.plain() })
    }

    /// Opens an ingest. While another process writes it, this waits, and then writes a separate one.
    fn open_ingest(&self, scope: &Scope, target: &mut IngestTarget) -> Result<Opened, Failure> {
        let mut attempts = Attempts::default();
        loop {
            let failure = match Ingest::open(&self.connection, scope, target) {
                Ok(opened) => return Ok(opened),
                Err(failure) => failure,
            };
            let is_locked = matches!(&failure, Failure::Status(status) if status.message.contains("locked"));
            match attempts.again(&self.connection, &*self.watch, &target.reference, failure) {
                Ok(()) => {}
                Err(_) if is_locked && !target.reference.contains(OWN) => {
                    target.reference = format!("{}{OWN}{}", target.reference, scope.lease.as_deref().unwrap_or(""));
                    attempts.reset();
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Whether the blob, which containerd lists, has `expected` bytes (`None`: any), and its last byte is readable; with
    /// `--verify`, whether its bytes are right.
    fn is_intact(&self, digest: &Digest, expected: Option<u64>) -> Result<bool> {
        let action = format!("looking for {digest}");
        let scope = self.plain();
        let size = match expected {
            None => size(&self.connection, &scope, digest).map_err(|failure| self.error(failure, &action))?,
            expected => expected,
        };
        let Some(size) = size else { return Ok(false) };
        let from = if self.verify { 0 } else { size.saturating_sub(1) };
        let watch = self.watch.clone();
        let mut reader = BlobReader::new(self.connection.clone(), scope, *digest, from, Some(size), watch);
        match reader.open() {
            Ok(()) => {}
            // Its file is missing, or it is shorter or longer.
            Err(failure) if failure.is(code::NOT_FOUND) || failure.is(code::OUT_OF_RANGE) => return Ok(false),
            Err(Failure::Protocol(_)) => return Ok(false),
            Err(failure) => return Err(self.error(failure, &action)),
        }
        match self.verify {
            true => Ok(hash(&mut reader, digest)? == *digest),
            false => Ok(size == 0 || reader.read(&mut [0])? == 1),
        }
    }

    /// Removes a damaged blob and its bytes, which containerd offers again until it collects garbage.
    fn delete_blob(&self, scope: &Scope, digest: &Digest) -> Result<()> {
        self.watch.say(&format!("{}: blob {digest} is damaged there; it is sent again", self.connection.name()));
        let request = ContentRequest { digest: digest.to_string() };
        match call::unary(&self.connection, "containerd.services.content.v1.Content/Delete", scope, &request, 4096) {
            Err(failure) if !failure.is(code::NOT_FOUND) => Err(failure),
            _ => lease::collect_garbage(&self.connection, &self.plain()),
        }
        .map_err(|failure| self.error(failure, "deleting a damaged blob"))
    }

    /// Opens the ingest of a blob; `None` if it is stored. An ingest that is complete is committed: it was cut off before
    /// its commit, or another namespace has the blob, of which containerd then stores no second copy.
    fn open_blob(&self, scope: &Scope, target: &mut IngestTarget) -> Result<Option<Box<Ingest>>> {
        let (mut is_deleted, mut is_tried) = (false, false);
        loop {
            let opened = self.open_ingest(scope, target);
            let opened = opened.map_err(|failure| self.error(failure, &format!("opening {}", target.reference)))?;
            match (opened, target.digest) {
                (Opened::Ingest(ingest), Some(digest))
                    if is_deleted && ingest.offset() > 0 && Some(ingest.offset()) == target.size =>
                {
                    return Err(Error::remote_host(format!(
                        "{}: blob {digest} is damaged, and another namespace shares it; remove its images there",
                        self.connection.name()
                    )));
                }
                (Opened::Ingest(ingest), Some(digest))
                    if !is_tried && ingest.offset() > 0 && Some(ingest.offset()) == target.size =>
                {
                    // After a failure the bytes are hashed again.
                    is_tried = ingest.commit(&digest, HashMap::new()).is_err();
                }
                (Opened::Ingest(ingest), _) => return Ok(Some(ingest)),
                (Opened::Held, Some(digest)) if !is_deleted && !self.is_intact(&digest, target.size)? => {
                    self.delete_blob(scope, &digest)?;
                    is_deleted = true;
                }
                (Opened::Held, _) => return Ok(None),
            }
        }
    }

    /// Whether containerd has all blobs of `root`. If not, `finish` reports it.
    fn is_proved(&self, scope: &Scope, root: &Manifest) -> Result<bool> {
        let digest = root.digest();
        let missing = proof::first_missing(&self.connection, scope, &self.images.blobs(&digest));
        let missing = missing.map_err(|failure| self.error(failure, &format!("checking image {digest}")))?;
        let Some(missing) = missing else { return Ok(true) };
        let why = format!("{}: blob {missing} of image {digest} disappeared", self.connection.name());
        *self.incomplete.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        Ok(false)
    }

    /// Returns `name` as containerd stores it.
    fn canonical(&self, name: Option<&Name>) -> Result<Name> {
        let place = self.connection.name();
        let Some(name) = name else {
            return Err(Error::usage(format!("{place}: containerd needs a name for the image; give one with --as")));
        };
        let fits = |reference: &Reference| reference.tag.is_some() != reference.digest.is_some();
        let reference = name.reference().filter(fits);
        reference.as_ref().map(Name::from).ok_or_else(|| {
            Error::usage(format!("{place}: containerd cannot store the name {name}; give REPO:TAG with --as"))
        })
    }
}

/// Separates the reference of an ingest from the lease of the copy that writes it alone.
const OWN: &str = " by ";

impl Sink for SocketSink {
    fn capabilities(&self) -> SinkCapabilities {
        SinkCapabilities {
            shape: Shape::Sparse(self.host.platform.clone()),
            order: Order::Parallel(LANES),
            large_uploads: None,
            compress: None,
            unsupported: &[],
            unnamed_blobs: true,
            unnamed_images: false,
            needs_replay: true,
            referrers: false,
        }
    }

    /// Names are checked, and blobs only for a dry run: `begin` asks containerd under the lease, so that what exists
    /// is not collected before the image refers to it.
    fn missing(&self, upcoming: Upcoming<'_>) -> Result<Missing> {
        let Upcoming::Blobs { images, blobs, dry_run, .. } = upcoming else { return Ok(Missing::default()) };
        for image in images {
            image.names.iter().try_for_each(|name| self.canonical(Some(name)).map(|_| ()))?;
        }
        if !dry_run {
            return Ok(Missing::new(blobs));
        }
        let mut missing: Vec<Descriptor> = Vec::new();
        for blob in blobs {
            let found = size(&self.connection, &self.plain(), &blob.digest);
            let found = found.map_err(|failure| self.error(failure, &format!("looking for {}", blob.digest)))?;
            if found != Some(blob.size) {
                missing.push(blob);
            }
        }
        Ok(Missing::new(missing))
    }

    fn begin<'a>(&'a self, claim: &Claim, from: Option<&Origin>) -> Result<Begin<'a>> {
        let scope = self.leased()?;
        let reference = match &claim.digest {
            Some(digest) => format!("imgmv-{digest}"),
            None => {
                let number = self.unnamed.fetch_add(1, Ordering::Relaxed);
                format!("imgmv-{}-{number}", scope.lease.as_deref().unwrap_or(""))
            }
        };
        let mut target = IngestTarget { reference, digest: claim.digest, size: claim.size };
        Ok(match self.open_blob(&scope, &mut target)? {
            None => Begin::Held,
            Some(ingest) => {
                let states = from.and_then(|_| HashStates::for_blob(self.cache.as_deref(), claim));
                let writer = SocketWriter::new(self.connection.clone(), scope, target, ingest, self.watch.clone());
                Begin::Write(Box::new(writer.with_states(states)))
            }
        })
    }

    fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        let scope = self.leased()?;
        let digest = manifest.digest();
        let action = format!("writing manifest {digest}");
        let size = manifest.bytes.len() as u64;
        let mut target = IngestTarget { reference: format!("imgmv-{digest}"), digest: Some(digest), size: Some(size) };
        let labels = labels::of_manifest(manifest);
        match self.open_blob(&scope, &mut target)? {
            None => labels::add(&self.connection, &scope, &digest, labels),
            Some(mut ingest) => {
                ingest.restart();
                let mut parts = manifest.bytes.chunks(PART_BYTES);
                let sent = parts.try_for_each(|part| ingest.write(part.to_vec().into()));
                sent.and_then(|()| ingest.commit(&digest, labels))
            }
        }
        .map_err(|failure| self.error(failure, &action))?;
        self.images.add(manifest);
        Ok(())
    }

    fn publish(&self, name: Option<&Name>, root: &Manifest) -> Result<()> {
        let name = self.canonical(name)?;
        let scope = self.leased()?;
        if !self.is_proved(&scope, root)? {
            return Ok(());
        }
        self.images.unpack(&self.connection, &scope, &self.host, root, &self.watch)?;
        let put = labels::put_image(&self.connection, &scope, &name, &root.descriptor);
        put.map_err(|failure| self.error(failure, &format!("naming the image {name}")))
    }

    fn finish(&self) -> Result<Finish> {
        if let Some(why) = self.incomplete.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Ok(Finish::SendAll(why));
        }
        let lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(id) = lease {
            let deleted = lease::delete(&self.connection, &self.plain(), &id);
            deleted.map_err(|failure| self.error(failure, "deleting the lease of the copy"))?;
        }
        if let Some(cache) = &self.cache {
            hash_states::prune(cache, hash_states::MAX_AGE);
        }
        Ok(Finish::Done)
    }
}
