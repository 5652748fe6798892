//! `repositories.json`: the names of images.

use super::data_root::with_root_hint;
use super::driver::Driver;
use crate::error::{Kind, Result};
use crate::image::{Digest, MAX_NAMES, Name, Reference, json_tree};
use crate::message::shortened;
use crate::source::rebuilt::some_reasons;
use serde_json::Value;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

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
    /// The sentence about names that cannot be read.
    pub damage: Option<String>,
}

/// Reads the names of `driver`'s images. What is damaged hides nothing else: an image without its name has its ID.
///
/// # Errors
/// - `Failed`, `Denied`: the file cannot be read.
pub(super) fn read(driver: &Driver) -> Result<Arc<Names>> {
    let path = driver.path(FILE);
    let shown = driver.display(FILE);
    let parse = |text: &[u8]| parse(text, &shown);
    match driver.names.read(driver.root(), &path, MAX_BYTES, parse).map_err(with_root_hint) {
        Err(error) if error.kind() == Kind::Invalid => {
            Ok(Arc::new(Names { damage: Some(error.to_string()), ..Names::default() }))
        }
        names => names,
    }
}

/// Parses the file `shown`. The error is the reason as the end of a sentence.
fn parse(text: &[u8], shown: &str) -> Result<Names, String> {
    let document = json_tree(text)?;
    let repositories = match document.get("Repositories") {
        Some(Value::Object(repositories)) => repositories,
        Some(Value::Null) | None => return Ok(Names::default()),
        Some(_) => return Err("its field Repositories is not an object".to_owned()),
    };
    let (mut all, mut wrong) = (Vec::new(), Vec::new());
    for (repository, listed) in repositories {
        let Some(listed) = listed.as_object() else {
            wrong.push(format!("the repository {} has no list of names", shortened(repository)));
            continue;
        };
        for (name, id) in listed {
            match named(name, id) {
                Ok(_) if all.len() == MAX_NAMES => return Err(format!("it has more than {MAX_NAMES} names")),
                Ok(named) => all.push(named),
                Err(why) => wrong.push(why),
            }
        }
    }
    all.sort_by_cached_key(|named| named.reference.to_string());
    let ids = all.iter().filter_map(|named| Some((named.name()?, named.id))).collect();
    let damage = some_reasons(&wrong).map(|reasons| format!("{shown}: {reasons}"));
    Ok(Names { all, ids, damage })
}

/// The name `name` of the image `id`. The error is the reason as the end of a sentence.
fn named(name: &str, id: &Value) -> Result<Named, String> {
    let parsed = id.as_str().and_then(|id| id.parse::<Digest>().ok());
    let id = parsed.ok_or_else(|| format!("the image ID of {} is not a digest", shortened(name)))?;
    let reference = name.parse::<Reference>().map_err(|_| format!("{:?} is not a valid name", shortened(name)))?;
    Ok(Named { reference: reference.tagged(), id })
}

/// The path of the file.
pub(super) fn path(driver: &Driver) -> PathBuf {
    driver.root().path().join(driver.path(FILE))
}

/// The time at which docker wrote the names of `driver`'s images; `None` if it never did.
pub(super) fn changed(driver: &Driver) -> Option<SystemTime> {
    driver.root().file(driver.path(FILE)).ok()??.metadata().ok()?.modified().ok()
}
