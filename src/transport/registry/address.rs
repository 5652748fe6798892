//! `docker://HOST/REPO[:TAG|@DIGEST]`, and references without a scheme.

use super::mirrors;
use super::mirrors::Mirror;
use super::prefix::Prefix;
use super::{Access, Credentials, Insecure, MirroredStore, Registry, RepositoryStore};
use crate::image::{Name, Reference};
use crate::sink::Sink;
use crate::source::{Selector, Store};
use crate::transport::address::{
    Address, AddressProfile, Deletable, DeletableNames, InPlace, Listed, OpenSource, Parsed, SelectedSource,
    ServeSource, ShortForm, Transport, one_of,
};
use crate::transport::names;
use crate::transport::options::{Context, ReadOptions, WriteOptions};
use crate::{Error, Result};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Retries at a mirror; the registry itself is asked afterwards.
const MIRROR_RETRIES: u32 = 1;
/// The longest time for a connection to a registry that has mirrors, for what a copy can do without.
const BRIEF_CONNECT: Duration = Duration::from_secs(5);

pub(crate) const DOCKER: Transport = Transport {
    scheme: "docker://",
    syntax: "docker://[HOST[:PORT]/]REPO[:TAG|@DIGEST]",
    help: &["a registry; a DST that ends in / is a prefix: each image keeps its own", "path below it"],
    serve_forms: &[
        ("docker://HOST/[PATH/]", "a registry, or repositories below a path"),
        ("docker://HOST/REPO", "one repository of a registry"),
    ],
    parse: |address, rest| match rest.ends_with('/') {
        true => Ok(Box::new(Prefix::parse(address, rest)?)),
        false => Ok(Box::new(RepositoryAddress(rest.parse().map_err(|error: Error| error.at(address))?))),
    },
};

pub(crate) const PREFIX: ShortForm = ShortForm {
    syntax: "HOST[:PORT]/[PATH/]",
    help: &["a prefix of a registry, if HOST has a dot or a port, or is localhost"],
    serve_forms: &[],
    parse: |text| {
        let (first, _) = text.split_once('/').filter(|_| text.ends_with('/'))?;
        let is_host = first.contains(['.', ':']) || first == "localhost";
        is_host.then(|| Ok(Box::new(Prefix::parse(text, text)?) as Box<dyn Address>))
    },
};

pub(crate) const REFERENCE: ShortForm = ShortForm {
    syntax: "any other reference",
    help: &["a registry"],
    serve_forms: &[],
    parse: |text| Some(reference(text)),
};

fn reference(text: &str) -> Parsed {
    if text.ends_with('/') {
        return Err(Error::usage(format!(
            "{text:?} ends in /: write docker://{text} for a prefix of a registry, ./{text} or oci:{text} for a \
             directory"
        )));
    }
    let reference = text.parse().map_err(|wrong: Error| {
        Error::usage(format!("{wrong} (a path begins with /, ./, ../ or ~/; a host is written HOST: or ssh://HOST)"))
    })?;
    Ok(Box::new(RepositoryAddress(reference)))
}

/// A repository of a registry, and the image in it.
#[derive(Debug)]
pub(crate) struct RepositoryAddress(pub Reference);

impl fmt::Display for RepositoryAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "docker://{}", self.0)
    }
}

impl Address for RepositoryAddress {
    /// The repository, read through its mirrors if it has some.
    fn source(&self, options: &ReadOptions<'_>, context: &Context) -> Result<SelectedSource> {
        let access = (options.access)(&self.0.host, &self.0.repository)?;
        let home = self.registry(access.clone(), context)?.repository(&self.0.repository);
        let mirrors = self.mirrors(&access, options, context)?;
        let store: Arc<dyn Store> = match mirrors.is_empty() {
            true => Arc::new(home),
            false => {
                let connect_timeout = Some(access.connect_timeout.unwrap_or(access.timeout).min(BRIEF_CONNECT));
                let brief = self.registry(Access { retries: 0, connect_timeout, ..access }, context)?;
                let store = MirroredStore::new(home, mirrors, context.watch.clone(), context.cancel.clone());
                Arc::new(store.with_brief_questions(brief.repository(&self.0.repository)))
            }
        };
        let name = self.0.digest.map(|_| Name::from(&self.0));
        Ok(SelectedSource { source: OpenSource::Store(store), selector: self.image(), name })
    }

    fn sink(&self, options: &WriteOptions<'_>, context: &Context) -> Result<Box<dyn Sink>> {
        let access = (options.access)(&self.0.host, &self.0.repository)?;
        let sink = self.registry(access, context)?.sink(&self.0.repository);
        Ok(Box::new(if options.waits_for_uploads { sink.waiting_for_uploads() } else { sink }))
    }

    fn identity(&self) -> Option<String> {
        Some(format!("registry {}", Name::from(&self.0.clone().tagged())))
    }

    fn profile(&self) -> AddressProfile {
        AddressProfile { is_remote: true, is_repository: true, ..AddressProfile::default() }
    }

    /// `text` is a tag, or a full reference in this repository.
    fn spell(&self, text: &str) -> Result<Name> {
        let repository = self.0.full_repository();
        if !text.contains(['/', ':', '@']) {
            return names::full(&format!("{repository}:{text}"));
        }
        let asked: Reference = text.parse()?;
        match asked.full_repository() == repository {
            true => names::full(text),
            false => Err(Error::usage(format!("{text} is not in {repository}; copy to it with imgmv copy"))),
        }
    }

    fn names_itself(&self) -> bool {
        self.0.tag.is_some()
    }

    fn repository(&self) -> Option<&Reference> {
        Some(&self.0)
    }

    fn names(&self, given: &[String]) -> Result<Vec<Name>> {
        if self.0.digest.is_some() {
            return Err(Error::usage(format!("{}: a destination has a tag, not a digest", self.0)));
        }
        match given.is_empty() || self.0.tag.is_some() {
            true => Ok(vec![Name::from(&self.0.clone().tagged())]),
            false => given.iter().map(|text| self.spell(text)).collect(),
        }
    }

    /// The tags, whose manifests are not requested.
    fn list(&self, options: &ReadOptions<'_>, context: &Context) -> Result<Option<Vec<Listed>>> {
        if !self.is_whole() {
            return Ok(None);
        }
        let OpenSource::Store(store) = self.source(options, context)?.source else { return Ok(None) };
        Ok(Some(store.names()?.into_iter().map(|name| (name, None)).collect()))
    }

    fn serve_source(&self, options: &ReadOptions<'_>, context: &Context) -> Result<ServeSource> {
        if !self.is_whole() {
            return Err(Error::usage("serve takes a repository with all its tags; remove the tag or digest"));
        }
        let access = (options.access)(&self.0.host, &self.0.repository)?;
        Ok(ServeSource::Repository { registry: self.registry(access, context)?, repository: self.0.repository.clone() })
    }

    fn in_place(&self, options: &ReadOptions<'_>, context: &Context) -> Result<InPlace> {
        let registry = self.registry((options.access)(&self.0.host, &self.0.repository)?, context)?;
        let sink = Box::new(registry.sink(&self.0.repository));
        Ok(InPlace::Store { store: Arc::new(registry.repository(&self.0.repository)), selector: self.image(), sink })
    }

    /// Mirrors are not asked.
    fn deletable(&self, options: &ReadOptions<'_>, context: &Context) -> Result<Deletable> {
        let digest = self.0.digest;
        let by_digest = || digest.map(Selector::Digest);
        let selector = self.0.tag.clone().map(Selector::Name).or_else(by_digest);
        let selector = one_of(selector.as_ref(), self)?;
        let DeletableNames { store, deleter } = self.deletable_names(options, context)?;
        Ok(Deletable { store, selector, digest, deleter })
    }

    fn deletable_names(&self, options: &ReadOptions<'_>, context: &Context) -> Result<DeletableNames> {
        let registry = self.registry((options.access)(&self.0.host, &self.0.repository)?, context)?;
        let store = Arc::new(registry.repository(&self.0.repository));
        let deleter = Box::new(registry.deleter(&self.0.repository, store.clone()));
        Ok(DeletableNames { store, deleter })
    }
}

impl RepositoryAddress {
    /// Whether the address has neither tag nor digest.
    fn is_whole(&self) -> bool {
        self.0.tag.is_none() && self.0.digest.is_none()
    }

    /// The image that is read: by digest if there is one, else by tag.
    fn image(&self) -> Option<Selector> {
        match self.0.digest {
            Some(digest) => Some(Selector::Digest(digest)),
            None => self.0.tag_or_latest().map(|tag| Selector::Name(tag.to_owned())),
        }
    }

    fn registry(&self, access: Access, context: &Context) -> Result<Arc<Registry>> {
        context.registries.registry(&self.0.host, access, &context.watch, &context.cancel)
    }

    /// The repository at its mirrors, with whether each may resolve tags: the given mirrors, then those that this
    /// host's engines are configured with. The credentials for the registry are not sent to them.
    fn mirrors(
        &self,
        access: &Access,
        options: &ReadOptions<'_>,
        context: &Context,
    ) -> Result<Vec<(RepositoryStore, bool)>> {
        let Reference { host, repository, .. } = &self.0;
        let insecure = access.insecure == Insecure::ByUser;
        let given = options.mirrors.iter().map(|text| match Mirror::parse(text, repository, insecure) {
            Some(mirror) => Ok((mirror, Insecure::ByUser)),
            None => Err(Error::usage(format!("--mirror {text:?} is not a registry: expected HOST[:PORT][/PATH]"))),
        });
        let mut all = given.collect::<Result<Vec<(Mirror, Insecure)>>>()?;
        let configured = mirrors::configured_mirrors(host, repository, Path::new("/"));
        all.extend(configured.into_iter().map(|mirror| (mirror, Insecure::ByFiles)));
        let mut stores = Vec::new();
        for (mirror, allowed) in all {
            let Mirror { host, repository, root, namespace, insecure, resolves } = mirror;
            let access = Access {
                credentials: Credentials::Stored,
                client_cert: None,
                hub_reserve: None,
                insecure: if insecure { allowed } else { Insecure::No },
                retries: access.retries.min(MIRROR_RETRIES),
                api_root: root,
                namespace,
                ..access.clone()
            };
            let registry = context.registries.registry(&host, access, &context.watch, &context.cancel)?;
            stores.push((registry.repository(&repository), resolves));
        }
        Ok(stores)
    }
}
