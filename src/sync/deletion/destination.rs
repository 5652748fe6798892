//! The names at a destination, with their digests.

use super::repository::DestinationTag;
use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::image::{Digest, Name};
use crate::parallel;
use crate::transport::address::Deleter;
use std::collections::{BTreeSet, HashMap};

/// The maximum number of names of one destination.
const MAX_NAMES: usize = 200_000;

/// Lists the names of `repository`, and asks for each digest that is not `known`. A sync knows the digests of the names
/// that it wrote or compared.
///
/// # Errors
/// - `Invalid`: there are more than 200,000 names.
/// - Those of the list. An error of one digest is not an error, except `Network`, `Denied` and `Interrupted`.
pub fn list(
    repository: &str,
    deleter: &dyn Deleter,
    known: &HashMap<Name, Digest>,
    threads: usize,
    cancel: &Cancel,
) -> Result<Vec<DestinationTag>> {
    let mut names = BTreeSet::new();
    deleter.visit_names(&mut |name| {
        names.insert(name);
        match names.len() > MAX_NAMES {
            true => Err(Error::invalid(format!(
                "{repository}: --delete works on at most {MAX_NAMES} tags; sync without --delete"
            ))),
            false => Ok(()),
        }
    })?;
    let names: Vec<Name> = names.into_iter().collect();
    let digests = parallel::try_map(&names, threads, |name| {
        cancel.check()?;
        match known.get(name) {
            Some(digest) => Ok(Some(Some(*digest))),
            None => digest_of(deleter, name),
        }
    })?;
    let listed = names.into_iter().zip(digests);
    Ok(listed.filter_map(|(name, digest)| Some(DestinationTag { name, digest: digest? })).collect())
}

/// The digest of `name`; `Some(None)` if it cannot be read, and `None` if the name does not exist any more.
fn digest_of(deleter: &dyn Deleter, name: &Name) -> Result<Option<Option<Digest>>> {
    match deleter.digest_of(name) {
        Ok(digest) => Ok(digest.map(Some)),
        Err(error) if matches!(error.kind(), Kind::Network | Kind::Denied | Kind::Interrupted) => Err(error),
        Err(_) => Ok(Some(None)),
    }
}
