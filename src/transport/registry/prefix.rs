//! `docker://HOST[:PORT]/[PATH/]`: a prefix of repositories.

use super::address::RepositoryAddress;
use crate::image::{Name, Reference};
use crate::sink::Sink;
use crate::transport::address::{Address, AddressProfile, SelectedSource, ServeSource};
use crate::transport::options::{Context, ReadOptions, WriteOptions};
use crate::{Error, Result};
use std::fmt;

/// A registry and a path in it, below which images keep their own paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prefix {
    /// `HOST[:PORT]`.
    host: String,
    /// Empty, or ending in `/`.
    path: String,
}

impl Prefix {
    /// Parses `HOST[:PORT]/[PATH/]`, the part of `address` without the scheme.
    pub(super) fn parse(address: &str, rest: &str) -> Result<Prefix> {
        // The grammar of a reference tells the host from the path, if a repository follows.
        let example: Reference = format!("{rest}a/b").parse().map_err(|_| {
            Error::usage(format!("{address:?} is not a prefix of a registry: expected docker://HOST[:PORT]/[PATH/]"))
        })?;
        let path = example.repository.strip_suffix("a/b").unwrap_or_default().to_owned();
        Ok(Prefix { host: example.host, path })
    }

    /// The image that `name` becomes: its repository below the prefix, with its tag, or its digest if it has no tag.
    pub(crate) fn under(&self, name: &Reference) -> Result<Reference> {
        let below: Reference = format!("{}/{}{}", self.host, self.path, name.repository).parse()?;
        let (tag, digest) = match name.tag_or_latest() {
            Some(tag) => (Some(tag.to_owned()), None),
            None => (None, name.digest),
        };
        Ok(Reference { tag, digest, ..below })
    }

    /// The address of the repository of `image`.
    pub(crate) fn repository(&self, image: &Reference) -> Box<dyn Address> {
        Box::new(RepositoryAddress(image.clone()))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "docker://{}/{}", self.host, self.path)
    }
}

impl Address for Prefix {
    fn source(&self, _options: &ReadOptions<'_>, _context: &Context) -> Result<SelectedSource> {
        Err(Error::usage("a SRC that ends in / names no image; only a DST may end so"))
    }

    fn sink(&self, _options: &WriteOptions<'_>, _context: &Context) -> Result<Box<dyn Sink>> {
        Err(Error::usage("a DST that ends in / has a sink for each image"))
    }

    fn identity(&self) -> Option<String> {
        Some(self.to_string())
    }

    fn names(&self, given: &[String]) -> Result<Vec<Name>> {
        match given.is_empty() {
            true => Ok(Vec::new()),
            false => Err(Error::usage("--as does not fit a DST that ends in /, which keeps names; remove one of them")),
        }
    }

    fn profile(&self) -> AddressProfile {
        AddressProfile { is_remote: true, ..AddressProfile::default() }
    }

    fn serve_source(&self, options: &ReadOptions<'_>, context: &Context) -> Result<ServeSource> {
        let access = (options.access)(&self.host, &self.path)?;
        let registry = context.registries.registry(&self.host, access, &context.watch, &context.cancel)?;
        Ok(ServeSource::Below { registry, path: self.path.clone() })
    }

    fn prefix(&self) -> Option<&Prefix> {
        Some(self)
    }
}
