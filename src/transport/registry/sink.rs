//! One repository of a registry as a [`Sink`].

use super::auth::token::Scope;
use super::http::client::RegistryClient;
use super::http::error_body::refuses_head;
use super::http::{Call, Payload};
use super::pull::manifest;
use super::pull::manifest::At;
use super::push::body_limit;
use super::push::resume_cache;
use super::push::session::Session;
use super::push::streamed::StreamedUpload;
use super::push::upload::{MonolithicUpload, Mount, SMALL, Target};
use super::referrers;
use crate::error::{Error, Kind, Result};
use crate::image::{Coding, Digest, Manifest, Name};
use crate::sink::{Begin, Finish, Missing, Order, Shape, Sink, SinkCapabilities, Upcoming};
use crate::source::{Claim, Origin};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};
use ureq::http::{Method, header};

/// One large blob is sent while another one is ended. One connection to a far registry hardly ever fills the line.
const LARGE_AT_ONCE: usize = 2;

/// A repository that is pushed to.
pub struct RepositorySink {
    target: Target,
    /// Repositories from which this registry did not mount: not asked again.
    unmountable: Mutex<HashSet<String>>,
    /// The manifest put last, not sent yet: if it is published next, the one request under its tag stores it too.
    waiting: Mutex<Option<Manifest>>,
}

impl RepositorySink {
    pub(super) fn new(wire: Arc<RegistryClient>, repository: &str) -> RepositorySink {
        let scope = Scope::Push(repository.to_owned());
        let target = Target { wire, repository: repository.to_owned(), scope };
        RepositorySink { target, unmountable: Mutex::default(), waiting: Mutex::default() }
    }

    fn place(&self) -> String {
        format!("{}/{}", self.target.wire.host, self.target.repository)
    }

    /// What a blob of `digest` needs: nothing, or a writer, perhaps in a session that is open already.
    fn need(&self, digest: &Digest, claim: &Claim, from: Option<&Origin>) -> Result<Need> {
        let mut session = None;
        if let Some(from) = self.mountable(from) {
            match self.target.mount(digest, from)? {
                Mount::Done => return Ok(Need::Nothing),
                Mount::Session(opened) => session = Some(opened),
                Mount::Refused => {}
            }
            self.unmountable.lock().unwrap_or_else(PoisonError::into_inner).insert(from.to_owned());
        }
        match self.target.held(digest)? {
            Some(Some(size)) if claim.size.is_some_and(|claimed| claimed != size) => {
                let claimed = claim.size.unwrap_or_default();
                self.target.wire.watch.say(&format!(
                    "{} has blob {digest} with {size} bytes instead of {claimed}; sending it again",
                    self.place()
                ));
            }
            Some(_) => {
                if let Some(session) = session {
                    self.target.abandon(session);
                }
                // An earlier run may have been killed when it was all sent.
                self.target.forget(digest);
                return Ok(Need::Nothing);
            }
            None => {}
        }
        Ok(Need::Upload(session))
    }

    /// The repository at this registry that blobs may be mounted from.
    fn mountable<'a>(&self, from: Option<&'a Origin>) -> Option<&'a str> {
        let from = from?;
        let other = from.host == self.target.wire.host && from.repository != self.target.repository;
        let refused = || self.unmountable.lock().unwrap_or_else(PoisonError::into_inner).contains(&from.repository);
        (other && !refused()).then_some(&*from.repository)
    }

    /// Puts `manifest` under `reference`, a tag or its digest (distribution-spec, "Pushing Manifests").
    fn put(&self, manifest: &Manifest, reference: &str) -> Result<()> {
        let (media_type, digest) = (&*manifest.descriptor.media_type, manifest.digest());
        let call = Call::new(Method::PUT, self.target.url(&format!("manifests/{reference}"))?)
            .with(header::CONTENT_TYPE, media_type)
            .storing();
        let separator = if reference.contains(':') { '@' } else { ':' };
        let what = format!("image {}{separator}{reference}", self.target.repository);
        let target = &self.target;
        let answer = target.wire.send(&call, Payload::Bytes(&manifest.bytes), &target.scope, &what)?;
        let (status, oci) = (answer.status, media_type.starts_with("application/vnd.oci."));
        let answer = target.wire.expect(answer, &[201, 200, 202, 204], &target.scope, &what).map_err(|error| {
            if oci && error.kind() == Kind::Failed && refuses_type(status, &error.to_string()) {
                let advice = "if this registry knows only docker's types, push with --format docker (digests change)";
                return Error::failed(format!("{error}; {advice}"));
            }
            error
        })?;
        target.same(&answer, &digest, &what)?;
        let lists_it = answer.header("oci-subject").is_some();
        answer.drain();
        match (&manifest.subject, lists_it) {
            (Some(_), false) => self.list(manifest),
            _ => Ok(()),
        }
    }

    /// Lists a referrer where the registry has not said that it does so itself.
    fn list(&self, manifest: &Manifest) -> Result<()> {
        match referrers::with_listed(&self.target.wire, &self.target.repository, manifest)? {
            Some((tag, index)) => self.put(&index, &tag),
            None => Ok(()),
        }
    }
}

/// Whether a registry that answers `status` and says so much refuses a manifest for its type.
fn refuses_type(status: u16, said: &str) -> bool {
    let said = said.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    // Tags that may not be moved are refused with the same status, and by some with the same code.
    let about_tag = has(&["immutab", "already exist", "overwrit"]);
    let about_type = has(&["media type", "mediatype", "manifest invalid", "manifest_invalid", "schema", "unsupported"]);
    status == 415 || status == 400 && about_type && !about_tag
}

enum Need {
    Nothing,
    Upload(Option<Session>),
}

impl Sink for RepositorySink {
    fn capabilities(&self) -> SinkCapabilities {
        let RegistryClient { throttle, access, .. } = &*self.target.wire;
        SinkCapabilities {
            shape: Shape::Whole,
            order: Order::Parallel(throttle.parallel_blobs(access.lanes)),
            large_uploads: (!throttle.is_far()).then_some(LARGE_AT_ONCE),
            compress: Some(Coding::Gzip),
            unsupported: &[],
            unnamed_blobs: true,
            unnamed_images: true,
            needs_replay: true,
        }
    }

    /// One `HEAD` where it is answered: a registry takes a manifest only when all beneath it is there.
    fn published(&self, name: &Name) -> Result<Option<Digest>> {
        let reference = self.reference(name)?;
        let call = Call::new(Method::HEAD, self.target.url(&format!("manifests/{reference}"))?)
            .with(header::ACCEPT, &manifest::accepted());
        let what = format!("image {}:{reference}", self.target.repository);
        let answer = self.target.wire.send(&call, Payload::Nothing, &self.target.scope, &what)?;
        if answer.status == 404 {
            return Ok(None);
        }
        if refuses_head(answer.status) {
            return self.published_by_get(&reference);
        }
        let answer = self.target.wire.expect(answer, &[200], &self.target.scope, &what)?;
        Ok(answer.header("docker-content-digest").and_then(|text| text.parse().ok()))
    }

    /// Only a dry run asks for each blob here; a copy asks in `begin`.
    fn missing(&self, upcoming: Upcoming<'_>) -> Result<Missing> {
        let dry_run = matches!(upcoming, Upcoming::Blobs { dry_run: true, .. });
        let mut blobs = upcoming.into_blobs();
        blobs.retain(|blob| !(dry_run && matches!(self.target.held(&blob.digest), Ok(Some(_)))));
        Ok(Missing::new(blobs))
    }

    fn begin<'a>(&'a self, claim: &Claim, from: Option<&Origin>) -> Result<Begin<'a>> {
        let Some(digest) = &claim.digest else {
            return Ok(Begin::Write(Box::new(StreamedUpload::new(self.target.clone(), None, None))));
        };
        let session = match self.need(digest, claim, from)? {
            Need::Nothing => return Ok(Begin::Held),
            Need::Upload(session) => session,
        };
        let target = self.target.clone();
        Ok(Begin::Write(match claim.size {
            Some(size) if size <= SMALL => Box::new(MonolithicUpload::new(target, session, size)),
            Some(size) => {
                let writer = StreamedUpload::new(target, session, Some((*digest, size)));
                Box::new(if from.is_some() { writer.marked() } else { writer })
            }
            None => Box::new(StreamedUpload::new(target, session, None)),
        }))
    }

    fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        self.put_waiting(self.wait_with(Some(manifest.clone())))
    }

    fn publish(&self, name: Option<&Name>, root: &Manifest) -> Result<()> {
        let before = self.wait_with(None).filter(|waiting| waiting.digest() != root.digest());
        self.put_waiting(before)?;
        match name {
            Some(name) => self.put(root, &self.reference(name)?).or_else(|refused| match refused.kind() {
                // A tag that may not be moved (immutable) has not to be where it points there already.
                Kind::Failed | Kind::Denied if self.published(name).ok().flatten() == Some(root.digest()) => Ok(()),
                _ => Err(refused),
            }),
            None => self.put(root, &root.digest().to_string()),
        }
    }

    fn finish(&self) -> Result<Finish> {
        self.put_waiting(self.wait_with(None))?;
        if let Some(cache) = &self.target.wire.access.cache {
            resume_cache::prune(cache, resume_cache::LIFE);
            body_limit::prune(cache, body_limit::LIFE);
        }
        Ok(Finish::Done)
    }
}

impl RepositorySink {
    /// The same by `GET`. A user who may not read, or a registry that does not answer, is told by the push itself.
    fn published_by_get(&self, reference: &str) -> Result<Option<Digest>> {
        let digest = reference.parse::<Digest>().ok();
        let at = digest.as_ref().map_or(At::Tag(reference), At::Digest);
        match manifest::fetch(&self.target.wire, &self.target.repository, at) {
            Ok((found, _)) => Ok(Some(found.digest)),
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Denied | Kind::Failed) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lets `manifest` wait; the one that waited before.
    fn wait_with(&self, manifest: Option<Manifest>) -> Option<Manifest> {
        std::mem::replace(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner), manifest)
    }

    fn put_waiting(&self, manifest: Option<Manifest>) -> Result<()> {
        manifest.map_or(Ok(()), |manifest| self.put(&manifest, &manifest.digest().to_string()))
    }
}

impl RepositorySink {
    /// The tag (or digest) that `name` means here.
    fn reference(&self, name: &Name) -> Result<String> {
        let by_digest = || name.reference().and_then(|reference| reference.digest).map(|digest| digest.to_string());
        name.tag().or_else(by_digest).ok_or_else(|| {
            Error::usage(format!("{name} cannot be pushed to {}: it has no tag that a registry takes", self.place()))
        })
    }
}
