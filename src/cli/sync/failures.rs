//! The list of what failed: a set in imgmv's own YAML form, which the next run reads.

use super::entry::{SyncEntry, TargetKind};
use super::outcome::Outcome;
use crate::image::{Digest, Platform};
use crate::message::on_one_line;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;

/// The destinations of an image that failed, and their errors.
type Failed<'o> = (Vec<&'o str>, Vec<String>);

const HEADER: &str = "# Written by imgmv sync: the images that failed. imgmv sync FILE copies them.\n\
                      # The file has no credentials and no insecure hosts: give those of SRC as options, or use imgmv login.\n";

/// The text of the list. Each image has the failed destinations, and the error as a comment. An archive is written again
/// completely, so the list has all of its images if one failed.
pub fn text(outcomes: &[Outcome], entries: &[SyncEntry]) -> String {
    let incomplete: HashSet<&str> = outcomes
        .iter()
        .filter(|outcome| outcome.result.is_err() && is_written_once(outcome, entries))
        .map(|outcome| &*outcome.to)
        .collect();
    let mut images: BTreeMap<(usize, &str), Failed<'_>> = BTreeMap::new();
    for outcome in outcomes {
        if outcome.result.is_ok() && !incomplete.contains(&*outcome.to) {
            continue;
        }
        let (to, errors) = images.entry((outcome.entry, &outcome.from)).or_default();
        to.push(destination(&outcome.to));
        errors.extend(outcome.result.as_ref().err().map(|error| on_one_line(&error.to_string())));
    }
    let mut text = String::from(HEADER);
    if images.is_empty() {
        text.push_str("# No image failed.\n");
    } else {
        text.push_str("images:\n");
    }
    for ((at, from), (to, errors)) in images {
        for error in errors {
            let _ = writeln!(text, "  # {error}");
        }
        // JSON is YAML: names need no other quotes.
        let _ = writeln!(text, "  - {}", Value::Object(image(from, &to, &entries[at])));
    }
    text
}

fn is_written_once(outcome: &Outcome, entries: &[SyncEntry]) -> bool {
    let targets = entries.get(outcome.entry).into_iter().flat_map(|entry| &*entry.targets);
    targets.into_iter().any(|target| matches!(target.kind, TargetKind::Once) && *target.word == *outcome.to)
}

/// The destination of an image without a tag is its repository: a destination has no digest.
fn destination(name: &str) -> &str {
    match name.rsplit_once('@') {
        Some((repository, digest)) if digest.parse::<Digest>().is_ok() => repository,
        _ => name,
    }
}

fn image(from: &str, to: &[&str], entry: &SyncEntry) -> Map<String, Value> {
    let mut image = Map::new();
    image.insert("from".into(), json!(from));
    image.insert("to".into(), if let [to] = to { json!(to) } else { json!(to) });
    // The images of the filter are not known: the list of tags failed.
    if from == entry.from()
        && let Some(tags) = entry.filter()
    {
        image.insert("tags".into(), tags);
    }
    if !entry.platforms.is_empty() {
        let platforms: Vec<String> = entry.platforms.iter().map(Platform::to_string).collect();
        image.insert("platforms".into(), json!(platforms));
    }
    if let Some(referrers) = entry.referrers {
        image.insert("referrers".into(), json!(referrers));
    }
    image
}
