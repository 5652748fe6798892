//! The images without a name that `podman images` lists: not those that are only a step of another image's build.

use super::driver::Driver;
use super::records::ImageRecord;
use super::{documents, layers};
use crate::error::Result;
use crate::image::Digest;
use std::collections::{HashMap, HashSet};

/// The images of `driver` that have no name except one with a digest.
pub(super) fn unnamed(driver: &Driver, records: &[ImageRecord]) -> Result<Vec<Digest>> {
    if records.iter().all(|record| record.full_names().next().is_some()) {
        return Ok(Vec::new());
    }
    let below = layers_below(driver, records)?;
    let mut tops: HashMap<Digest, Vec<&ImageRecord>> = HashMap::new();
    for record in records {
        record.layer.into_iter().for_each(|top| tops.entry(top).or_default().push(record));
    }
    let is_step = |record: &ImageRecord| {
        let Some(top) = record.layer else { return false };
        let same_top = || tops.get(&top).into_iter().flatten();
        record.names.is_empty() && (below.contains(&top) || same_top().any(|other| precedes(driver, record, other)))
    };
    let unnamed = records.iter().filter(|record| record.full_names().next().is_none() && !is_step(record));
    Ok(unnamed.map(|record| record.id).collect())
}

/// The layers that are below the topmost layer of an image.
fn layers_below(driver: &Driver, records: &[ImageRecord]) -> Result<HashSet<Digest>> {
    let all = driver.layers()?;
    let layers = all.iter().flat_map(|records| records.values());
    let parents: HashMap<Digest, Digest> = layers.filter_map(|layer| Some((layer.id, layer.parent?))).collect();
    let mut below = HashSet::new();
    for top in records.iter().filter_map(|record| record.layer) {
        let mut at = top;
        for _ in 0..layers::MAX_LAYERS {
            match parents.get(&at) {
                // What is below a known layer is known too; so a cycle ends.
                Some(parent) if below.insert(*parent) => at = *parent,
                _ => break,
            }
        }
    }
    Ok(below)
}

/// Whether `record` is a step before `other`, which has the same layers: `other`'s history continues its history.
fn precedes(driver: &Driver, record: &ImageRecord, other: &ImageRecord) -> bool {
    if record.id == other.id {
        return false;
    }
    // A damaged image hides nothing.
    let histories = (documents::history(driver, &record.id), documents::history(driver, &other.id));
    match histories {
        (Some(own), Some(longer)) => longer.len() > own.len() && longer.starts_with(&own),
        _ => false,
    }
}
