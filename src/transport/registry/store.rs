//! One repository of a registry as a [`Store`].

use super::auth::token::Scope;
use super::http::client::RegistryClient;
use super::http::error_body::refuses_head;
use super::http::retry;
use super::http::web_page;
use super::http::{Call, Payload, Response};
use super::pull::manifest;
use super::pull::manifest::At;
use super::pull::ranges;
use super::pull::tags;
use super::referrers;
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, Manifest, Name, Reference, is_tag, media_type};
use crate::source::{Origin, Profile, Root, Selector, Store};
use std::{
    collections::HashMap,
    io::Read,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};
use ureq::http::{Method, header};

/// The roots of one question carry manifests of at most this many bytes together.
const CARRIED_MANIFESTS_BYTES: usize = 8 << 20;

/// A repository that is read from.
pub struct RepositoryStore {
    wire: Arc<RegistryClient>,
    /// What it is called there.
    repository: String,
    /// Where its images are said to be from.
    origin: Origin,
}

impl RepositoryStore {
    pub(super) fn new(wire: Arc<RegistryClient>, repository: &str) -> RepositoryStore {
        let origin = Origin { host: wire.host.clone(), repository: repository.to_owned() };
        RepositoryStore { wire, repository: repository.to_owned(), origin }
    }

    /// The same repository, under the names that it has at `origin`.
    pub(super) fn standing_for(self, origin: &Origin) -> RepositoryStore {
        RepositoryStore { origin: origin.clone(), ..self }
    }

    /// The registry that receives the requests.
    pub(super) fn host(&self) -> &str {
        &self.wire.host
    }

    /// The repository whose names the images have.
    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(super) fn parallel_reads(&self) -> usize {
        self.wire.throttle.parallel_blobs(self.wire.access.lanes)
    }

    fn repository(&self) -> &str {
        &self.repository
    }

    fn scope(&self) -> Scope {
        Scope::Pull(self.repository.clone())
    }

    /// The full name with `tag`.
    fn name(&self, tag: &str) -> Name {
        Name::from(&Reference {
            host: self.origin.host.clone(),
            repository: self.origin.repository.clone(),
            tag: Some(tag.to_owned()),
            digest: None,
        })
    }

    /// One request: the manifest itself, which the root carries while there is `room` for it.
    fn root(&self, at: At<'_>, room: &Room) -> Result<Root> {
        let (descriptor, bytes) = manifest::fetch(&self.wire, self.repository(), at)?;
        let name = match at {
            At::Tag(tag) => Some(self.name(tag)),
            At::Digest(_) => None,
        };
        let manifest = room.take(&descriptor).then(|| Manifest::hashed(bytes, &descriptor));
        // The engine reads a malformed one again, and reports it.
        let manifest = manifest.and_then(Result::ok).map(Arc::new);
        Ok(Root { manifest, ..Root::new(name, descriptor) })
    }

    fn picked(&self, pick: &Selector, room: &Room) -> Result<Root> {
        let text = match pick {
            Selector::Digest(digest) => return self.root(At::Digest(digest), room),
            Selector::Name(text) => text,
        };
        if is_tag(text) {
            return self.root(At::Tag(text), room);
        }
        let reference: Reference = text.parse()?;
        if (&reference.host, &reference.repository) != (&self.origin.host, &self.origin.repository) {
            let place = format!("{}/{}", self.origin.host, self.origin.repository);
            return Err(Error::usage(format!("{text} is not in the repository {place}")));
        }
        match (&reference.digest, reference.tag_or_latest()) {
            (Some(digest), _) => self.root(At::Digest(digest), room),
            (None, tag) => self.root(At::Tag(tag.unwrap_or("latest")), room),
        }
    }

    /// The roots of all `tags`, several asked for at once, in their order.
    fn roots_of(&self, tags: &[String]) -> Result<Vec<Root>> {
        let (next, room) = (AtomicUsize::new(0), Room::default());
        let found: Mutex<Vec<(usize, Result<Root>)>> = Mutex::default();
        let lanes = self.wire.access.lanes.clamp(1, tags.len().max(1));
        thread::scope(|scope| {
            for _ in 0..lanes {
                scope.spawn(|| {
                    while let Some((at, tag)) = {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        tags.get(at).map(|tag| (at, tag))
                    } {
                        let root = self.root(At::Tag(tag), &room);
                        let failed = root.is_err();
                        found.lock().unwrap_or_else(PoisonError::into_inner).push((at, root));
                        if failed {
                            next.store(tags.len(), Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.sort_by_key(|(at, _)| *at);
        found.into_iter().map(|(_, root)| root).collect()
    }

    /// What `tag` points at, without fetching it where the registry says the digest. `None` where there is no such tag.
    pub fn tagged(&self, tag: &str) -> Result<Option<Descriptor>> {
        self.described(At::Tag(tag))
    }

    /// Type, digest and size of the manifest under `digest`, if there is one.
    pub fn manifest_at(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        self.described(At::Digest(digest))
    }

    /// What the head of a manifest says, where it says everything; else what the manifest is.
    fn described(&self, at: At<'_>) -> Result<Option<Descriptor>> {
        let answer = self.head("manifests", &at.to_string())?;
        let stated = match at {
            At::Digest(digest) => Some(*digest),
            At::Tag(_) => answer.header("docker-content-digest").and_then(|text| text.parse().ok()),
        };
        match (answer.status, stated, answer.length()) {
            (404, ..) => Ok(None),
            (200, Some(digest), Some(size)) if !web_page::is_page(&answer) => {
                Ok(Some(Descriptor::new(type_of(&answer), digest, size)))
            }
            (status, ..) if retry::is_transient(status) => {
                self.wire.expect(answer, &[200], &self.scope(), &at.name(self.repository())).map(|_| None)
            }
            // HEAD is a short cut: what goes wrong with it may go well with GET, and has better words there.
            _ => match manifest::fetch(&self.wire, self.repository(), at) {
                Ok((found, _)) => Ok(Some(found)),
                Err(error) if error.kind() == Kind::NotFound => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    /// Size in bytes of the blob under `digest`, if there is one.
    pub fn blob_at(&self, digest: &Digest) -> Result<Option<u64>> {
        let mut answer = self.head("blobs", &digest.to_string())?;
        if refuses_head(answer.status) {
            // The body is not read: its length is in the answer's head, and its connection ends with it.
            answer = self.ask(Method::GET, "blobs", &digest.to_string())?;
        }
        if answer.status == 404 {
            return Ok(None);
        }
        let answer = self.wire.expect(answer, &[200], &self.scope(), &self.what(&digest.to_string()))?;
        let size = answer.length();
        size.map(Some).ok_or_else(|| Error::failed(format!("{} does not say how large {digest} is", self.wire.host)))
    }

    fn what(&self, reference: &str) -> String {
        format!("{reference} in {}", self.repository())
    }

    fn head(&self, kind: &str, reference: &str) -> Result<Response> {
        self.ask(Method::HEAD, kind, reference)
    }

    /// Whatever the answer's status is.
    fn ask(&self, method: Method, kind: &str, reference: &str) -> Result<Response> {
        let url = self.wire.url(&format!("{}/{kind}/{reference}", self.repository()))?;
        let call = Call::new(method, url).with(header::ACCEPT, &manifest::accepted());
        self.wire.send(&call, Payload::Nothing, &self.scope(), &self.what(reference))
    }
}

/// The manifests that the roots of one question carry.
#[derive(Default)]
struct Room(Mutex<HashMap<Digest, usize>>);

impl Room {
    /// Whether the roots have room for the manifest `at`; the same one takes room once.
    fn take(&self, at: &Descriptor) -> bool {
        let mut carried = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = carried.values().sum::<usize>() + at.size as usize <= CARRIED_MANIFESTS_BYTES;
        if fits {
            carried.insert(at.digest, at.size as usize);
        }
        fits
    }
}

impl Store for RepositoryStore {
    fn roots(&self, picks: &[Selector]) -> Result<Vec<Root>> {
        if !picks.is_empty() {
            let room = Room::default();
            return picks.iter().map(|pick| self.picked(pick, &room)).collect();
        }
        let tags = tags::list(&self.wire, self.repository())?;
        self.roots_of(&tags)
    }

    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        Ok(manifest::fetch(&self.wire, self.repository(), At::Digest(&at.digest))?.1)
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        ranges::open(&self.wire, self.repository(), blob, from)
    }

    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        match self.blob_at(digest)? {
            Some(size) => Ok(Some(Descriptor::new(media_type::OCTETS, *digest, size))),
            None => self.manifest_at(digest),
        }
    }

    fn names(&self) -> Result<Vec<Name>> {
        Ok(tags::list(&self.wire, self.repository())?.iter().map(|tag| self.name(tag)).collect())
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        referrers::list(&self.wire, self.repository(), subject)
    }

    fn profile(&self) -> Profile {
        let (origin, parallel_reads) = (Some(self.origin.clone()), self.parallel_reads());
        Profile { origin, is_remote: true, parallel_reads, ..Profile::default() }
    }
}

/// [`web_page::type_of`], with the type of bytes of which nothing is said.
fn type_of(answer: &Response) -> String {
    let stated = web_page::media_type(answer);
    if stated.is_empty() { media_type::OCTETS.to_owned() } else { stated }
}
