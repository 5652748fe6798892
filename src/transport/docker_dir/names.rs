//! `repositories.json`: the names of images.

use super::data_root::with_root_hint;
use super::driver::Driver;
use crate::error::Result;
use crate::image::{Digest, MAX_NAMES, Name, Reference, json_tree};
use crate::message::shortened;
use serde_json::Value;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

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

/// The names of images.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Sorted.
    pub all: Vec<Named>,
    /// The images by those of their names that can be names of a copy.
    pub ids: HashMap<Name, Digest>,
}

/// Reads the names of `driver`'s images. A name that is not valid is left out: no tool could ask for it.
///
/// # Errors
/// - `Invalid`: the file is damaged or too large.
pub(super) fn read(driver: &Driver) -> Result<Arc<Names>> {
    let path = driver.path(FILE);
    driver.names.read(driver.root(), &path, MAX_BYTES, parse).map_err(with_root_hint)
}

/// Parses the file. The error is the reason as the end of a sentence.
fn parse(text: &[u8]) -> Result<Names, String> {
    let document = json_tree(text)?;
    let repositories = match document.get("Repositories") {
        Some(Value::Object(repositories)) => repositories,
        Some(Value::Null) | None => return Ok(Names::default()),
        Some(_) => return Err("its field Repositories is not an object".to_owned()),
    };
    let listed = repositories.values().filter_map(Value::as_object).flatten();
    let mut all = Vec::new();
    for (name, id) in listed {
        let id = id.as_str().and_then(|id| id.parse::<Digest>().ok());
        let id = id.ok_or_else(|| format!("the image ID of {} is not a digest", shortened(name)))?;
        if all.len() == MAX_NAMES {
            return Err(format!("it has more than {MAX_NAMES} names"));
        }
        if let Ok(reference) = name.parse::<Reference>() {
            all.push(Named { reference: reference.tagged(), id });
        }
    }
    all.sort_by_cached_key(|named| named.reference.to_string());
    let ids = all.iter().filter_map(|named| Some((named.name()?, named.id))).collect();
    Ok(Names { all, ids })
}

/// The path of the file.
pub(super) fn path(driver: &Driver) -> PathBuf {
    driver.root().path().join(driver.path(FILE))
}
