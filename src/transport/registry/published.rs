//! The names of a repository that a copy asked for: each is asked once until the copy writes it.

use super::http::error_body::refuses_head;
use super::http::{Call, Payload};
use super::pull::manifest;
use super::push::target::Target;
use crate::error::Result;
use crate::image::Digest;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use ureq::http::{Method, header};

/// The maximum number of names in memory.
const MAX_NAMES: usize = 256;

/// Digests by tag or digest. `None`: the repository does not have the name.
#[derive(Default)]
pub struct PublishedNames(Mutex<HashMap<String, Option<Digest>>>);

impl PublishedNames {
    /// The digest at `reference`, or the result of `ask`.
    ///
    /// # Errors
    /// Those of `ask`; it is called again then.
    pub fn get_or(&self, reference: &str, ask: impl FnOnce() -> Result<Option<Digest>>) -> Result<Option<Digest>> {
        if let Some(known) = self.names().get(reference) {
            return Ok(*known);
        }
        let found = ask()?;
        let mut names = self.names();
        if names.len() < MAX_NAMES {
            names.insert(reference.to_owned(), found);
        }
        Ok(found)
    }

    /// Forgets `reference`, which a request writes.
    pub fn forget(&self, reference: &str) {
        self.names().remove(reference);
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, Option<Digest>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks `target` for the digest at `reference`, by `HEAD` if the registry supports it. `fetch` asks with `GET`.
pub fn ask(target: &Target, reference: &str, fetch: impl FnOnce() -> Result<Option<Digest>>) -> Result<Option<Digest>> {
    let call = Call::new(Method::HEAD, target.url(&format!("manifests/{reference}"))?)
        .with(header::ACCEPT, &manifest::accepted_types());
    let what = format!("image {}:{reference}", target.repository);
    let response = target.client.send(&call, Payload::Nothing, &target.scope, &what)?;
    if response.status == 404 {
        return Ok(None);
    }
    if refuses_head(response.status) {
        return fetch();
    }
    let response = target.client.expect(response, &[200], &target.scope, &what)?;
    Ok(response.header("docker-content-digest").and_then(|text| text.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn a_name_is_asked_once_until_it_is_written() {
        let (names, digest) = (PublishedNames::default(), Digest::of(b"x"));
        assert!(names.get_or("1", || Err(Error::network("cut"))).is_err());
        assert_eq!(names.get_or("1", || Ok(None)).unwrap(), None);
        assert_eq!(names.get_or("1", || panic!("the name is known")).unwrap(), None);
        names.forget("1");
        assert_eq!(names.get_or("1", || Ok(Some(digest))).unwrap(), Some(digest));
        (0..2 * MAX_NAMES).for_each(|other| drop(names.get_or(&other.to_string(), || Ok(None))));
        assert_eq!(names.names().len(), MAX_NAMES);
    }
}
