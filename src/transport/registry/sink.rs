//! One repository of a registry as a [`Sink`].

use super::auth::token::Scope;
use super::http::client::RegistryClient;
use super::http::{Call, Payload};
use super::published;
use super::published::PublishedNames;
use super::pull::manifest;
use super::pull::manifest::ManifestRef;
use super::push::body_limit;
use super::push::monolithic::MonolithicUpload;
use super::push::placement::{Decision, Placement};
use super::push::resume_cache;
use super::push::streamed::StreamedUpload;
use super::push::target::{MAX_MONOLITHIC_BYTES, Target};
use super::referrers;
use super::referrers_memory::ReferrersMemory;
use super::referrers_tag::{TagWriter, WrittenTags};
use crate::error::{Error, Kind, Result};
use crate::image::{Coding, Descriptor, Digest, Manifest, Name, is_tag};
use crate::sink::{Begin, Finish, Missing, Order, Shape, Sink, SinkCapabilities, Upcoming};
use crate::source::{Claim, Origin, ReferrerList};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};
use ureq::http::{Method, header};

/// The number of large blobs sent at once to a nearby registry: one is sent while it stores the other. A single
/// connection to a remote registry rarely uses the whole bandwidth.
const PARALLEL_LARGE_BLOBS: usize = 2;

/// A repository as a destination.
pub struct RepositorySink {
    target: Target,
    placement: Placement,
    /// The manifest put last, not sent yet. If it is published next, the one request with its tag stores it too.
    deferred: Mutex<Option<Manifest>>,
    published: PublishedNames,
    memory: Arc<ReferrersMemory>,
    /// The referrers that the registry lists for a subject.
    listed: Mutex<HashMap<Digest, HashSet<Digest>>>,
    /// Stored referrers that the registry does not list, by their subject. They get into the referrers tags before the
    /// next name is published, so that each of these is written once.
    unlisted: Mutex<BTreeMap<Digest, Vec<Descriptor>>>,
    written_tags: WrittenTags,
}

impl RepositorySink {
    pub(super) fn new(client: Arc<RegistryClient>, repository: &str) -> RepositorySink {
        let scope = Scope::Push(repository.to_owned());
        let memory = client.referrers.repository(repository);
        let target = Target { client, repository: repository.to_owned(), scope };
        RepositorySink {
            placement: Placement::new(target.clone()),
            target,
            deferred: Mutex::default(),
            published: PublishedNames::default(),
            memory,
            listed: Mutex::default(),
            unlisted: Mutex::default(),
            written_tags: WrittenTags::default(),
        }
    }

    fn full_repository(&self) -> String {
        format!("{}/{}", self.target.client.host, self.target.repository)
    }

    /// Waits for a blob that another copy of this run is sending to the registry, to mount it then. Not for copies that
    /// share one read of their source, which a waiting copy would hold up.
    pub fn waiting_for_uploads(self) -> RepositorySink {
        RepositorySink { placement: self.placement.waiting_for_uploads(), ..self }
    }

    /// Puts `manifest` under its digest.
    fn put(&self, manifest: &Manifest) -> Result<()> {
        let registry_lists_it = self.send(manifest, &manifest.digest().to_string())?;
        self.note_referrer(manifest, registry_lists_it);
        Ok(())
    }

    /// Sends `manifest` to `reference` (distribution-spec, "Pushing Manifests"). Returns whether the registry lists it for
    /// its subject.
    fn send(&self, manifest: &Manifest, reference: &str) -> Result<bool> {
        let (media_type, digest) = (&*manifest.descriptor.media_type, manifest.digest());
        self.published.forget(reference);
        self.published.forget(&digest.to_string());
        let call = Call::new(Method::PUT, self.target.url(&format!("manifests/{reference}"))?)
            .with(header::CONTENT_TYPE, media_type)
            .storing();
        let separator = if reference.contains(':') { '@' } else { ':' };
        let what = format!("image {}{separator}{reference}", self.target.repository);
        let target = &self.target;
        let response = target.client.send(&call, Payload::Bytes(&manifest.bytes), &target.scope, &what)?;
        let (status, oci) = (response.status, media_type.starts_with("application/vnd.oci."));
        let response =
            target.client.expect(response, &[201, 200, 202, 204], &target.scope, &what).map_err(|error| {
                if oci && error.kind() == Kind::Failed && refuses_type(status, &error.to_string()) {
                    let advice =
                        "if the registry accepts only docker media types, push with --format docker (digests change)";
                    return Error::failed(format!("{error}; {advice}"));
                }
                error
            })?;
        target.check_reported_digest(&response, &digest, &what)?;
        let registry_lists_it = response.header("oci-subject").is_some();
        response.drain();
        if is_tag(reference) {
            self.memory.saw_tag(reference);
        }
        Ok(registry_lists_it)
    }

    /// Records a referrer that the registry does not list.
    fn note_referrer(&self, manifest: &Manifest, registry_lists_it: bool) {
        if let (Some(subject), false) = (&manifest.subject, registry_lists_it) {
            let mut unlisted = self.unlisted.lock().unwrap_or_else(PoisonError::into_inner);
            unlisted.entry(subject.digest).or_default().push(manifest.referrer_entry());
        }
    }

    /// Adds the recorded referrers to the referrers tags of their subjects.
    fn list_referrers(&self) -> Result<()> {
        let unlisted = std::mem::take(&mut *self.unlisted.lock().unwrap_or_else(PoisonError::into_inner));
        self.with_tag_writer(|writer| unlisted.iter().try_for_each(|(subject, entries)| writer.add(subject, entries)))
    }

    fn with_tag_writer(&self, work: impl FnOnce(TagWriter<'_>) -> Result<()>) -> Result<()> {
        let put = |index: &Manifest, tag: &str| self.send(index, tag).map(drop);
        let Target { client, repository, .. } = &self.target;
        work(TagWriter { client, repository, written: &self.written_tags, put: &put })
    }
}

/// Whether the response (`status`, `message`) refuses a manifest because of its media type.
fn refuses_type(status: u16, message: &str) -> bool {
    let message = message.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    // Registries refuse to move an immutable tag with the same status, some with the same code.
    let about_tag = has(&["immutab", "already exist", "overwrit"]);
    let about_type = has(&["media type", "mediatype", "manifest invalid", "manifest_invalid", "schema", "unsupported"]);
    status == 415 || status == 400 && about_type && !about_tag
}

impl Sink for RepositorySink {
    fn capabilities(&self) -> SinkCapabilities {
        let client = &self.target.client;
        SinkCapabilities {
            shape: Shape::AsFound,
            order: Order::Parallel(client.parallel_requests()),
            large_uploads: (!client.throttle.is_far()).then_some(PARALLEL_LARGE_BLOBS),
            compress: Some(Coding::Gzip),
            unsupported: &[],
            unnamed_blobs: true,
            unnamed_images: true,
            needs_replay: true,
            referrers: true,
        }
    }

    /// Sends one `HEAD`, if the registry supports it; the answer is that of the copy until it writes the name. A registry
    /// accepts a manifest only after all its blobs and children, so an existing manifest is complete.
    fn published(&self, name: &Name) -> Result<Option<Digest>> {
        let reference = self.reference(name)?;
        let fetch = || Ok(self.fetch(&reference)?.map(|(found, _)| found.digest));
        self.published.get_or(&reference, || published::ask(&self.target, &reference, fetch))
    }

    fn has_referrer(&self, referrer: &Manifest) -> Result<bool> {
        let Some(subject) = &referrer.subject else { return Ok(false) };
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = listed.get(&subject.digest) {
            return Ok(known.contains(&referrer.digest()));
        }
        let found = referrers::list(&self.target.client, &self.target.repository, &subject.digest, &self.memory);
        // A list that cannot be read is not an error yet: the push reports it.
        let found = found
            .or_else(|error| if error.kind() == Kind::Network { Err(error) } else { Ok(ReferrerList::default()) })?;
        let found: HashSet<Digest> = found.entries.into_iter().map(|entry| entry.digest).collect();
        let is_listed = found.contains(&referrer.digest());
        listed.insert(subject.digest, found);
        Ok(is_listed)
    }

    fn tagged(&self, name: &Name) -> Result<Option<Manifest>> {
        let Some((found, bytes)) = self.fetch(&self.reference(name)?)? else { return Ok(None) };
        Manifest::hashed(bytes, &found).map(Some)
    }

    /// Only a dry run asks for each blob here; a copy asks in `begin`.
    fn missing(&self, upcoming: Upcoming<'_>) -> Result<Missing> {
        let dry_run = matches!(upcoming, Upcoming::Blobs { dry_run: true, .. });
        let mut blobs = upcoming.into_blobs();
        blobs.retain(|blob| !dry_run || self.placement.would_send(&blob.digest, blob.size));
        Ok(Missing::new(blobs))
    }

    fn begin<'a>(&'a self, claim: &Claim, from: Option<&Origin>) -> Result<Begin<'a>> {
        let target = self.target.clone();
        let Some(digest) = &claim.digest else {
            return Ok(self.placement.booked(StreamedUpload::new(target, None, None), None));
        };
        let (session, reservation) = match self.placement.decide(digest, claim, from)? {
            Decision::Skip => return Ok(Begin::Held),
            Decision::Upload(session, reservation) => (session, Some(reservation)),
        };
        Ok(match claim.size {
            Some(size) if size <= MAX_MONOLITHIC_BYTES => {
                self.placement.booked(MonolithicUpload::new(target, session, (*digest, size)), reservation)
            }
            Some(size) => {
                let writer = StreamedUpload::new(target, session, Some((*digest, size)));
                let writer = if from.is_some() { writer.with_checkpoints() } else { writer };
                self.placement.booked(writer, reservation)
            }
            None => self.placement.booked(StreamedUpload::new(target, session, None), reservation),
        })
    }

    fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        // Where the registry refuses the one before, this one is not sent either.
        self.put_deferred(self.defer(None))?;
        self.put_deferred(self.defer(Some(manifest.clone())))
    }

    fn publish(&self, name: Option<&Name>, root: &Manifest) -> Result<()> {
        let before = self.defer(None).filter(|deferred| deferred.digest() != root.digest());
        self.put_deferred(before)?;
        match name {
            Some(name) => {
                // A policy that admits only signed images must not see the name without them.
                self.list_referrers()?;
                let listed = self.send(root, &self.reference(name)?).or_else(|refused| match refused.kind() {
                    // The registry refuses to put an immutable tag, but the tag points to this manifest already.
                    Kind::Failed | Kind::Denied if self.published(name).ok().flatten() == Some(root.digest()) => {
                        Ok(false)
                    }
                    _ => Err(refused),
                })?;
                self.note_referrer(root, listed);
                self.list_referrers()
            }
            None => self.put(root),
        }
    }

    fn finish(&self) -> Result<Finish> {
        self.put_deferred(self.defer(None))?;
        self.list_referrers()?;
        self.with_tag_writer(|writer| writer.settle())?;
        if let Some(cache) = &self.target.client.access.cache_dir {
            resume_cache::prune(cache, resume_cache::MAX_AGE);
            body_limit::prune(cache, body_limit::MAX_AGE);
        }
        Ok(Finish::Done)
    }
}

impl RepositorySink {
    /// The manifest at `reference`. A missing permission to read, or a registry that refuses the request, is not an error
    /// yet: the push reports it.
    fn fetch(&self, reference: &str) -> Result<Option<(Descriptor, Vec<u8>)>> {
        let digest = reference.parse::<Digest>().ok();
        let at = digest.as_ref().map_or(ManifestRef::Tag(reference), ManifestRef::Digest);
        match manifest::fetch(&self.target.client, &self.target.repository, at) {
            Ok(found) => Ok(Some(found)),
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Denied | Kind::Failed) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the deferred manifest; returns the one before.
    fn defer(&self, manifest: Option<Manifest>) -> Option<Manifest> {
        std::mem::replace(&mut *self.deferred.lock().unwrap_or_else(PoisonError::into_inner), manifest)
    }

    fn put_deferred(&self, manifest: Option<Manifest>) -> Result<()> {
        manifest.map_or(Ok(()), |manifest| self.put(&manifest))
    }
}

impl RepositorySink {
    /// The tag (or digest) of `name`.
    fn reference(&self, name: &Name) -> Result<String> {
        let by_digest = || name.digest().map(|digest| digest.to_string());
        name.tag().or_else(by_digest).ok_or_else(|| {
            Error::usage(format!(
                "{name} cannot be pushed to {}: it has no valid tag; name one",
                self.full_repository()
            ))
        })
    }
}
