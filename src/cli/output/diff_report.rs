//! The answer of `imgmv diff` as lines.

use crate::cli::compare::files::{FileDifference, FileDifferences};
use crate::cli::compare::{Comparison, PlatformComparison};
use crate::message::counted;
use indicatif::HumanBytes;

/// Longer values of a config are cut, except in JSON.
const MAX_VALUE_CHARS: usize = 200;

/// The lines of `comparison`. They are made one by one, since there may be many files.
pub fn lines(comparison: &Comparison) -> impl Iterator<Item = String> + '_ {
    let platforms = [("+", &comparison.new_platforms), ("-", &comparison.gone_platforms)];
    let platforms =
        platforms.into_iter().flat_map(|(sign, names)| names.iter().map(move |name| format!("{sign} platform {name}")));
    let last = format!(
        "to move from B to where A is: {} ({})",
        HumanBytes(comparison.bytes_to_move),
        counted(comparison.blobs_to_move, "blob")
    );
    platforms.chain(comparison.images.iter().flat_map(image)).chain([last])
}

fn image(image: &PlatformComparison) -> impl Iterator<Item = String> + '_ {
    let name = image.platform.as_deref().unwrap_or("image");
    let head = match image.a == image.b {
        true => format!("{name}: the same manifest {}", image.a),
        false => format!("{name}: {} -> {}", image.a, image.b),
    };
    let details = (image.a != image.b).then(|| layers(image).into_iter().chain(config(image)));
    let files = image.files.iter().filter(|_| image.a != image.b).flat_map(files);
    [head].into_iter().chain(details.into_iter().flatten()).chain(files)
}

fn layers(image: &PlatformComparison) -> Vec<String> {
    let layers = &image.layers;
    let sum = |list: &[crate::cli::compare::LayerEntry]| HumanBytes(list.iter().map(|layer| layer.size).sum());
    let mut lines = vec![format!(
        "  layers: {} shared ({}), {} new ({}), {} gone ({})",
        layers.shared.len(),
        sum(&layers.shared),
        layers.new.len(),
        sum(&layers.new),
        layers.gone.len(),
        sum(&layers.gone)
    )];
    for (sign, list) in [("-", &layers.gone), ("+", &layers.new)] {
        lines.extend(
            list.iter().map(|layer| format!("    {sign} {}  {:>10}", layer.digest, HumanBytes(layer.size).to_string())),
        );
    }
    lines.extend(layers.reordered.then(|| "    the shared layers have another order".to_owned()));
    lines.extend(layers.recompressed.iter().map(|pair| {
        let (a, b) = (&pair.a, &pair.b);
        let sizes = format!("{} -> {}", HumanBytes(a.size), HumanBytes(b.size));
        format!("    = {} -> {}  {sizes}, the same content compressed in another way", a.digest, b.digest)
    }));
    lines
}

fn config(image: &PlatformComparison) -> Vec<String> {
    let value = |value: &Option<String>| {
        let text = value.as_deref().unwrap_or_default();
        let cut: String = text.chars().take(MAX_VALUE_CHARS).collect();
        if cut.len() < text.len() { format!("{cut:?}…") } else { format!("{cut:?}") }
    };
    let line = |one: &crate::cli::compare::ConfigDifference| {
        let key = one.key.as_ref().map_or_else(String::new, |key| format!(" {key}"));
        let field = one.field;
        match (&one.a, &one.b) {
            (None, _) => format!("    + {field}{key}: {}", value(&one.b)),
            (_, None) => format!("    - {field}{key}: {}", value(&one.a)),
            _ => format!("    ~ {field}{key}: {} -> {}", value(&one.a), value(&one.b)),
        }
    };
    match image.config.is_empty() {
        true => Vec::new(),
        false => ["  config:".to_owned()].into_iter().chain(image.config.iter().map(line)).collect(),
    }
}

fn files(files: &FileDifferences) -> impl Iterator<Item = String> + '_ {
    let count = |change: &str| files.0.iter().filter(|file| file.change() == change).count();
    let head = format!("  files: {} added, {} removed, {} changed", count("added"), count("removed"), count("changed"));
    [head].into_iter().chain(files.0.iter().map(file))
}

fn file(file: &FileDifference) -> String {
    let path = &file.path;
    match file.sizes() {
        (Some(a), Some(b)) => {
            let sizes =
                if a == b { HumanBytes(b).to_string() } else { format!("{} -> {}", HumanBytes(a), HumanBytes(b)) };
            format!("    ~ /{path}  {sizes}  ({})", file.properties().join(", "))
        }
        (Some(size), None) => format!("    - /{path}  {}", HumanBytes(size)),
        (_, size) => format!("    + /{path}  {}", HumanBytes(size.unwrap_or_default())),
    }
}
