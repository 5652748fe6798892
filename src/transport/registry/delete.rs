//! Deleting tags and manifests of a repository (distribution-spec, "Content Management").
//!
//! A registry may refuse the deletion of a tag: docker-registry 2.8 answers 400, and 405 where deleting is disabled.
//! Nothing here deletes a manifest in place of a tag.

use super::auth::token::Scope;
use super::http::client::RegistryClient;
use super::http::error_body;
use super::http::{Call, Payload, Response};
use super::pull::manifest::ManifestRef;
use super::pull::tags;
use super::referrers;
use super::referrers::error_at;
use super::store::RepositoryStore;
use crate::error::{Error, Kind, Result};
use crate::image::{Digest, Manifest, Name, media_type, referrers_tag, without_referrer};
use crate::parallel;
use crate::transport::address::{Deleter, NameTargets, TagDeletion};
use std::sync::Arc;
use ureq::http::{Method, header};

/// The maximum number of tags of which the digest is asked.
const MAX_ASKED_TAGS: usize = 2000;

/// The number of times that a list is written which other writers replace at the same time.
const MAX_LIST_UPDATES: usize = 5;

/// A repository of which tags and manifests are deleted.
pub(super) struct RepositoryDeleter {
    client: Arc<RegistryClient>,
    repository: String,
    store: Arc<RepositoryStore>,
}

impl RepositoryDeleter {
    pub fn new(client: Arc<RegistryClient>, repository: &str, store: Arc<RepositoryStore>) -> RepositoryDeleter {
        RepositoryDeleter { client, repository: repository.to_owned(), store }
    }

    fn scope(&self) -> Scope {
        Scope::Delete(self.repository.clone())
    }

    fn push_scope(&self) -> Scope {
        Scope::Push(self.repository.clone())
    }

    /// Whatever the response's status is.
    fn ask(&self, at: ManifestRef<'_>) -> Result<Response> {
        let url = self.client.url(&format!("{}/manifests/{at}", self.repository))?;
        self.client.send(&Call::new(Method::DELETE, url), Payload::Nothing, &self.scope(), &at.name(&self.repository))
    }

    fn delete(&self, tag: &str) -> Result<TagDeletion> {
        let at = ManifestRef::Tag(tag);
        let response = self.ask(at)?;
        match response.status {
            400 | 404 | 405 | 406 | 415 | 501 => {}
            _ => {
                self.client.expect(response, &[200, 202, 204], &self.scope(), &at.name(&self.repository))?.drain();
                return Ok(TagDeletion::Deleted);
            }
        }
        let (status, text) = (response.status, error_body::text(response));
        // A repeated request finds that the first one was carried out.
        if status == 404 && self.store.resolve_tag(tag)?.is_none() {
            return Ok(TagDeletion::Deleted);
        }
        let reason = if text.is_empty() { String::new() } else { format!(": {text}") };
        Ok(TagDeletion::Unsupported(format!("status {status}{reason}")))
    }

    /// Stores `index` under `tag`.
    fn put(&self, index: &Manifest, tag: &str) -> Result<()> {
        let (url, scope) = (self.client.url(&format!("{}/manifests/{tag}", self.repository))?, self.push_scope());
        let call = Call::new(Method::PUT, url).with(header::CONTENT_TYPE, &index.descriptor.media_type).storing();
        let what = ManifestRef::Tag(tag).name(&self.repository);
        let response = self.client.send(&call, Payload::Bytes(&index.bytes), &scope, &what)?;
        self.client.expect(response, &[201, 200, 202, 204], &scope, &what)?.drain();
        Ok(())
    }

    /// The targets of `tags`, asked in parallel, in the order of `tags`; without those that do not exist any more.
    fn resolve(&self, tags: &[String]) -> Result<NameTargets> {
        let mut found = NameTargets::default();
        let resolved =
            parallel::try_map(tags, self.client.parallel_requests(), |tag| match self.store.resolve_tag(tag) {
                Err(error) if matches!(error.kind(), Kind::Network | Kind::Interrupted | Kind::Denied) => Err(error),
                answer => Ok(answer),
            })?;
        for (tag, resolved) in tags.iter().zip(resolved) {
            match resolved {
                Ok(target) => found.targets.extend(target.map(|target| (Some(self.store.name(tag)), target))),
                Err(_) => found.unchecked += 1,
            }
        }
        Ok(found)
    }
}

impl Deleter for RepositoryDeleter {
    fn delete_name(&self, name: &Name) -> Result<TagDeletion> {
        match name.tag() {
            Some(tag) => self.delete(&tag),
            None => Err(Error::usage(format!("{name} has no tag"))),
        }
    }

    fn visit_names(&self, visit: &mut dyn FnMut(Name) -> Result<()>) -> Result<()> {
        tags::visit(&self.client, &self.repository, &mut |tag| visit(self.store.name(tag))).map(drop)
    }

    fn digest_of(&self, name: &Name) -> Result<Option<Digest>> {
        match name.tag() {
            Some(tag) => Ok(self.store.resolve_tag(&tag)?.map(|target| target.digest)),
            None => Ok(None),
        }
    }

    fn has_manifest(&self, digest: &Digest) -> Result<bool> {
        Ok(self.store.find_manifest(digest)?.is_some())
    }

    fn targets(&self) -> Result<NameTargets> {
        let mut tags = tags::list(&self.client, &self.repository)?;
        let unasked = tags.len().saturating_sub(MAX_ASKED_TAGS);
        tags.truncate(MAX_ASKED_TAGS);
        let NameTargets { targets, unchecked } = self.resolve(&tags)?;
        Ok(NameTargets { targets, unchecked: unchecked + unasked })
    }

    fn delete_manifest(&self, digest: &Digest) -> Result<bool> {
        let at = ManifestRef::Digest(digest);
        let response = self.ask(at)?;
        match response.status {
            404 => Ok(false),
            status @ (405 | 501) => {
                let text = error_body::text(response);
                Err(Error::failed(format!(
                    "{}: the registry does not allow to delete {} (status {status}: {text}); allow it in the \
                     registry's configuration (docker-registry: storage.delete.enabled)",
                    self.client.host,
                    at.name(&self.repository)
                )))
            }
            _ => {
                self.client.expect(response, &[200, 202, 204], &self.scope(), &at.name(&self.repository))?.drain();
                Ok(true)
            }
        }
    }

    /// Writes the index under the referrers tag again, and reads it, since other writers may replace it at the same time.
    fn forget_referrer(&self, subject: &Digest, referrer: &Digest) -> Result<()> {
        let what = format!("referrers of {}@{subject}", self.repository);
        for _ in 0..MAX_LIST_UPDATES {
            let Some(list) = referrers::fetch_tagged(&self.client, &self.repository, subject)? else { return Ok(()) };
            match without_referrer(&list, referrer).map_err(|why| error_at(&self.client, &what, &why))? {
                None => return Ok(()),
                Some((_, 0)) => return self.forget_referrers(subject),
                Some((shorter, _)) => self.put(&shorter, &referrers_tag(subject))?,
            }
        }
        Err(Error::failed(format!(
            "{}: {referrer} was deleted, but other writers keep it in the list of the {what}; delete it again later",
            self.client.host
        )))
    }

    /// Deletes the referrers tag of `subject`, which a registry without the referrers API has.
    fn forget_referrers(&self, subject: &Digest) -> Result<()> {
        let tag = referrers_tag(subject);
        let Some(list) = self.store.resolve_tag(&tag)? else { return Ok(()) };
        if list.digest == *subject || !media_type::is_index(&list.media_type) {
            return Ok(());
        }
        match self.delete(&tag)? {
            TagDeletion::Deleted => Ok(()),
            // The index under this tag is only the list of the referrers.
            TagDeletion::Unsupported(_) => self.delete_manifest(&list.digest).map(drop),
        }
    }
}
