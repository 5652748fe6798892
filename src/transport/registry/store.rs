//! One repository of a registry as a [`Store`].

use super::auth::token::Scope;
use super::http::client::RegistryClient;
use super::http::error_body::refuses_head;
use super::http::retry;
use super::http::web_page;
use super::http::{Call, Payload, Response};
use super::pull::manifest;
use super::pull::manifest::ManifestRef;
use super::pull::ranges;
use super::pull::tags;
use super::referrers;
use super::referrers_memory::ReferrersMemory;
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, Manifest, Name, Reference, is_tag, media_type};
use crate::parallel;
use crate::source::{Origin, Profile, ReferrerList, Root, Selector, Store, TagListing};
use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use ureq::http::{Method, header};

/// The size limit of the manifests that the roots of one request carry together.
const MAX_CARRIED_MANIFESTS_BYTES: usize = 8 << 20;

/// A repository as a source.
pub struct RepositoryStore {
    client: Arc<RegistryClient>,
    /// The repository's path at the host that is asked.
    repository: String,
    /// The host and repository in the images' names; another one than the host that is asked, for a mirror.
    origin: Origin,
    memory: Arc<ReferrersMemory>,
}

impl RepositoryStore {
    pub(super) fn new(client: Arc<RegistryClient>, repository: &str) -> RepositoryStore {
        let origin = Origin { host: client.host.clone(), repository: repository.to_owned() };
        let memory = client.referrers.repository(repository);
        RepositoryStore { client, repository: repository.to_owned(), origin, memory }
    }

    /// This repository as a mirror of `origin`: its images have the names of `origin`.
    pub(super) fn with_origin(self, origin: &Origin) -> RepositoryStore {
        RepositoryStore { origin: origin.clone(), ..self }
    }

    /// The registry that gets the requests.
    pub(super) fn host(&self) -> &str {
        &self.client.host
    }

    /// The repository whose names the images have.
    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(super) fn parallel_reads(&self) -> usize {
        self.client.parallel_requests()
    }

    fn repository(&self) -> &str {
        &self.repository
    }

    fn scope(&self) -> Scope {
        Scope::Pull(self.repository.clone())
    }

    /// The full name with `tag`.
    pub(super) fn name(&self, tag: &str) -> Name {
        Name::from(&Reference {
            host: self.origin.host.clone(),
            repository: self.origin.repository.clone(),
            tag: Some(tag.to_owned()),
            digest: None,
        })
    }

    /// Fetches the manifest with one request; the root carries it if the `budget` allows it.
    fn root(&self, reference: ManifestRef<'_>, budget: &ManifestBudget) -> Result<Root> {
        let (descriptor, bytes) = manifest::fetch(&self.client, self.repository(), reference)?;
        let name = match reference {
            ManifestRef::Tag(tag) => Some(self.name(tag)),
            ManifestRef::Digest(_) => None,
        };
        let manifest = budget.reserve(&descriptor).then(|| Manifest::hashed(bytes, &descriptor));
        // The copy fetches an invalid manifest again, and reports it.
        let manifest = manifest.and_then(Result::ok).map(Arc::new);
        Ok(Root { manifest, ..Root::new(name, descriptor) })
    }

    fn select_root(&self, selector: &Selector, budget: &ManifestBudget) -> Result<Root> {
        match self.selected(selector)? {
            Selected::Digest(digest) => self.root(ManifestRef::Digest(&digest), budget),
            Selected::Tag(tag) => self.root(ManifestRef::Tag(&tag), budget).inspect(|_| self.memory.saw_tag(&tag)),
        }
    }

    /// The tag or digest in this repository that `selector` names.
    ///
    /// # Errors
    /// - `Usage`: it is not a reference, or one of another repository.
    fn selected(&self, selector: &Selector) -> Result<Selected> {
        let text = match selector {
            Selector::Digest(digest) => return Ok(Selected::Digest(*digest)),
            Selector::Name(text) => text,
        };
        if is_tag(text) {
            return Ok(Selected::Tag(text.clone()));
        }
        let reference: Reference = text.parse()?;
        if (&reference.host, &reference.repository) != (&self.origin.host, &self.origin.repository) {
            let repository = format!("{}/{}", self.origin.host, self.origin.repository);
            return Err(Error::usage(format!("{text} is not in the repository {repository}")));
        }
        Ok(match (reference.digest, reference.tag_or_latest()) {
            (Some(digest), _) => Selected::Digest(digest),
            (None, tag) => Selected::Tag(tag.unwrap_or("latest").to_owned()),
        })
    }

    /// Fetches the roots of all `tags` in parallel; returns them in the order of `tags`.
    fn roots_of(&self, tags: &[String]) -> Result<Vec<Root>> {
        let budget = ManifestBudget::default();
        parallel::try_map(tags, self.client.parallel_requests(), |tag| self.root(ManifestRef::Tag(tag), &budget))
    }

    /// The descriptor that `tag` points to, by `HEAD` if the registry reports the digest. `None` if the tag is missing.
    pub fn resolve_tag(&self, tag: &str) -> Result<Option<Descriptor>> {
        self.descriptor_at(ManifestRef::Tag(tag))
    }

    /// The descriptor of the manifest `digest`; `None` if it is missing.
    pub fn find_manifest(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        self.descriptor_at(ManifestRef::Digest(digest))
    }

    /// The descriptor of a manifest: from the response to `HEAD` if it is complete, else from the manifest itself.
    fn descriptor_at(&self, reference: ManifestRef<'_>) -> Result<Option<Descriptor>> {
        let response = self.head("manifests", &reference.to_string())?;
        let stated = match reference {
            ManifestRef::Digest(digest) => Some(*digest),
            ManifestRef::Tag(_) => response.header("docker-content-digest").and_then(|text| text.parse().ok()),
        };
        match (response.status, stated, response.length()) {
            (404, ..) => Ok(None),
            (200, Some(digest), Some(size)) if !web_page::is_page(&response) => {
                Ok(Some(Descriptor::new(type_of(&response), digest, size)))
            }
            (status, ..) if retry::is_transient(status) => {
                self.client.expect(response, &[200], &self.scope(), &reference.name(self.repository())).map(|_| None)
            }
            // HEAD only saves time: after a failure GET may succeed, or fails with a better message.
            _ => match manifest::fetch(&self.client, self.repository(), reference) {
                Ok((found, _)) => Ok(Some(found)),
                Err(error) if error.kind() == Kind::NotFound => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    /// The size of the blob `digest`, in bytes; `None` if it is missing.
    pub fn blob_size(&self, digest: &Digest) -> Result<Option<u64>> {
        let mut response = self.head("blobs", &digest.to_string())?;
        if refuses_head(response.status) {
            // The body is not read, so the connection is closed; the length is in the header.
            response = self.ask(Method::GET, "blobs", &digest.to_string())?;
        }
        if response.status == 404 {
            return Ok(None);
        }
        let response = self.client.expect(response, &[200], &self.scope(), &self.what(&digest.to_string()))?;
        let size = response.length();
        size.map(Some)
            .ok_or_else(|| Error::failed(format!("{}: no Content-Length for blob {digest}", self.client.host)))
    }

    fn what(&self, reference: &str) -> String {
        format!("{reference} in {}", self.repository())
    }

    fn head(&self, kind: &str, reference: &str) -> Result<Response> {
        self.ask(Method::HEAD, kind, reference)
    }

    /// Whatever the response's status is.
    fn ask(&self, method: Method, kind: &str, reference: &str) -> Result<Response> {
        let url = self.client.url(&format!("{}/{kind}/{reference}", self.repository()))?;
        let call = Call::new(method, url).with(header::ACCEPT, &manifest::accepted_types());
        self.client.send(&call, Payload::Nothing, &self.scope(), &self.what(reference))
    }
}

/// An image of a repository.
enum Selected {
    Tag(String),
    Digest(Digest),
}

/// The sizes of the manifests that the roots of one request carry, in bytes.
#[derive(Default)]
struct ManifestBudget(Mutex<HashMap<Digest, usize>>);

impl ManifestBudget {
    /// Reserves memory for the manifest `at`; returns whether it fits. The same manifest counts once.
    fn reserve(&self, at: &Descriptor) -> bool {
        let mut carried = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = carried.values().sum::<usize>() + at.size as usize <= MAX_CARRIED_MANIFESTS_BYTES;
        if fits {
            carried.insert(at.digest, at.size as usize);
        }
        fits
    }
}

impl Store for RepositoryStore {
    fn roots(&self, selectors: &[Selector]) -> Result<Vec<Root>> {
        if !selectors.is_empty() {
            let budget = ManifestBudget::default();
            return selectors.iter().map(|selector| self.select_root(selector, &budget)).collect();
        }
        let tags = tags::list(&self.client, self.repository())?;
        self.roots_of(&tags)
    }

    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        Ok(manifest::fetch(&self.client, self.repository(), ManifestRef::Digest(&at.digest))?.1)
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        ranges::open(&self.client, self.repository(), blob, from)
    }

    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        match self.blob_size(digest)? {
            Some(size) => Ok(Some(Descriptor::new(media_type::OCTETS, *digest, size))),
            None => self.find_manifest(digest),
        }
    }

    /// Asks with `HEAD`.
    fn resolve(&self, selector: &Selector) -> Result<Option<Descriptor>> {
        match self.selected(selector)? {
            Selected::Tag(tag) => self.resolve_tag(&tag),
            Selected::Digest(digest) => self.find_manifest(&digest),
        }
    }

    fn names(&self) -> Result<Vec<Name>> {
        Ok(tags::list(&self.client, self.repository())?.iter().map(|tag| self.name(tag)).collect())
    }

    fn visit_tags(&self, visit: &mut dyn FnMut(&str) -> Result<()>) -> Result<TagListing> {
        tags::visit(&self.client, self.repository(), visit)
    }

    fn referrers(&self, subject: &Digest) -> Result<ReferrerList> {
        referrers::list(&self.client, self.repository(), subject, &self.memory)
    }

    fn digest_tagged(&self, subject: &Digest) -> Result<Vec<(String, Descriptor)>> {
        let tags = self.memory.possible_digest_tags(&self.client, self.repository(), subject)?;
        let found = parallel::try_map(&tags, self.parallel_reads(), |tag| self.resolve_tag(tag))?;
        let found: Vec<_> = tags.into_iter().zip(found).filter_map(|(tag, found)| Some((tag, found?))).collect();
        found.iter().for_each(|(tag, _)| self.memory.saw_tag(tag));
        Ok(found)
    }

    fn profile(&self) -> Profile {
        let (origin, parallel_reads) = (Some(self.origin.clone()), self.parallel_reads());
        Profile { origin, is_remote: true, parallel_reads, ..Profile::default() }
    }
}

/// [`web_page::media_type`], with the type of bytes of which nothing is said.
fn type_of(response: &Response) -> String {
    let stated = web_page::media_type(response);
    if stated.is_empty() { media_type::OCTETS.to_owned() } else { stated }
}
