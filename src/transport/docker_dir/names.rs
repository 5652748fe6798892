//! `repositories.json`: the names of images.

use super::driver::Driver;
use crate::error::{Error, Result};
use crate::image::{Digest, MAX_NAMES, Name, Reference, json_tree};
use serde_json::Value;
use std::path::PathBuf;

const FILE: &str = "repositories.json";
/// The maximum size of the file: about [`MAX_NAMES`] names.
const MAX_BYTES: u64 = 16 << 20;

/// A name of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub reference: Reference,
    /// The image: the digest of its config.
    pub id: Digest,
}

impl Named {
    /// The name; `None` for `NAME@DIGEST`, which names a manifest that docker does not store.
    pub fn name(&self) -> Option<Name> {
        self.reference.digest.is_none().then(|| Name::from(&self.reference))
    }
}

/// Reads the names of `driver`'s images, sorted. A name that is not valid is left out: no tool could ask for it.
///
/// # Errors
/// - `Invalid`: the file is damaged or too large.
pub(super) fn read(driver: &Driver) -> Result<Vec<Named>> {
    let Some(bytes) = driver.read(FILE, MAX_BYTES)? else { return Ok(Vec::new()) };
    let wrong = |why: &str| Error::invalid(format!("{}: {why}", driver.display(FILE)));
    let document = json_tree(&bytes).map_err(|why| wrong(&why))?;
    let repositories = match document.get("Repositories") {
        Some(Value::Object(repositories)) => repositories,
        Some(Value::Null) | None => return Ok(Vec::new()),
        Some(_) => return Err(wrong("its field Repositories is not an object")),
    };
    let listed = repositories.values().filter_map(Value::as_object).flatten();
    let mut names = Vec::new();
    for (name, id) in listed {
        let id = id.as_str().and_then(|id| id.parse::<Digest>().ok());
        let id = id.ok_or_else(|| wrong(&format!("the image ID of {name} is not a digest")))?;
        if names.len() == MAX_NAMES {
            return Err(wrong(&format!("it has more than {MAX_NAMES} names")));
        }
        if let Ok(reference) = name.parse::<Reference>() {
            names.push(Named { reference: reference.tagged(), id });
        }
    }
    names.sort_by_cached_key(|named| named.reference.to_string());
    Ok(names)
}

/// The path of the file.
pub(super) fn path(driver: &Driver) -> PathBuf {
    driver.root().path().join(driver.path(FILE))
}
