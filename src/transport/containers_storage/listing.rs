//! The images without a name that `podman images` lists: not those that are only a step of another image's build.

use super::documents;
use super::driver::Driver;
use super::records::ImageRecord;
use crate::error::Result;
use crate::image::Digest;
use crate::source::rebuilt::MAX_LAYERS;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// A longer history is not compared with others.
const MAX_HISTORY: usize = 10_000;
/// The maximum number of starts of histories that are known at the same time.
const MAX_STARTS: usize = 100_000;

/// The images of `driver` that have no name except one with a digest.
pub(super) fn unnamed(driver: &Driver, records: &[ImageRecord]) -> Result<Vec<Digest>> {
    if records.iter().all(|record| record.full_names().next().is_some()) {
        return Ok(Vec::new());
    }
    let below = layers_below(driver, records)?;
    let steps = earlier_steps(driver, records);
    let is_step = |record: &ImageRecord| {
        let is_below = record.layer.is_some_and(|top| below.contains(&top));
        record.names.is_empty() && (is_below || steps.contains(&record.id))
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
        for _ in 0..MAX_LAYERS {
            match parents.get(&at) {
                // What is below a known layer is known too; so a cycle ends.
                Some(parent) if below.insert(*parent) => at = *parent,
                _ => break,
            }
        }
    }
    Ok(below)
}

/// The images that are a step of another one with the same layers: the other one's history continues theirs.
fn earlier_steps(driver: &Driver, records: &[ImageRecord]) -> HashSet<Digest> {
    let mut tops: HashMap<Digest, Vec<&ImageRecord>> = HashMap::new();
    for record in records {
        record.layer.into_iter().for_each(|top| tops.entry(top).or_default().push(record));
    }
    let mut steps = HashSet::new();
    for same_top in tops.values() {
        let is_asked = |record: &&ImageRecord| record.names.is_empty();
        if same_top.len() == 1 || !same_top.iter().any(is_asked) {
            continue;
        }
        let (mut own, mut starts) = (Vec::new(), HashSet::new());
        for record in same_top {
            // A damaged image hides nothing.
            let history = documents::history(driver, &record.id).filter(|history| history.len() <= MAX_HISTORY);
            let Some(history) = history else { continue };
            if starts.len() > MAX_STARTS {
                break;
            }
            let mut ahead = starts_of(&history);
            own.extend(ahead.pop().map(|whole| (record.id, whole)));
            starts.extend(ahead);
        }
        steps.extend(own.into_iter().filter(|(_, whole)| starts.contains(whole)).map(|(id, _)| id));
    }
    steps
}

/// A digest for each start of `history`, from none of its entries to all.
fn starts_of(history: &[Value]) -> Vec<Digest> {
    let mut starts = vec![Digest::of(b"")];
    for entry in history {
        let before = starts.last().map(Digest::to_string).unwrap_or_default();
        starts.push(Digest::of(format!("{before} {entry}").as_bytes()));
    }
    starts
}
