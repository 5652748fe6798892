//! The list of what failed: a set in imgmv's own YAML form, which the next run reads.

use super::entry::SyncEntry;
use super::outcome::Outcome;
use crate::image::Platform;
use crate::message::on_one_line;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The destinations of an image that failed, and their errors.
type Failed<'o> = (Vec<&'o str>, Vec<String>);

/// The text of the list. Each image has the failed destinations, and the error as a comment.
pub fn text(outcomes: &[Outcome], entries: &[SyncEntry]) -> String {
    let mut images: BTreeMap<(usize, &str), Failed<'_>> = BTreeMap::new();
    for outcome in outcomes {
        let Err(error) = &outcome.result else { continue };
        let (to, errors) = images.entry((outcome.entry, &outcome.from)).or_default();
        to.push(&outcome.to);
        errors.push(on_one_line(&error.to_string()));
    }
    let mut text = String::from("# Written by imgmv sync: the images that failed. imgmv sync FILE copies them.\n");
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
