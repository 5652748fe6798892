//! YAML and JSON as a tree: nodes in one list, in the order of the document, each of 20 bytes.
//!
//! The text of a node is a range of the document; only text with escapes or folded lines is copied. A map is a list of keys
//! and values in turn. An alias is the number of the node that it means, so aliases need no memory: `build` only counts
//! the size that they would expand to.
//!
//! granit-parser, which serde-saphyr reads with, makes the events. serde-saphyr itself gives no tree: it reads `1.10` as a
//! number where the type is open, and its values have no lines.

mod build;
mod value;

pub(super) use value::{Field, Value};

use crate::error::{Error, Result};

/// The maximum number of values of a document. 50,000 entries with a filter each have 550,000.
const MAX_NODES: usize = 600_000;
/// The maximum depth of nested lists and maps, aliases included.
const MAX_DEPTH: usize = 64;
/// The maximum expanded size of aliases, as a multiple of the document.
const MAX_EXPANSION: usize = 10;
/// Aliases of a small document may expand to this size.
const MIN_EXPANSION_BYTES: usize = 64 << 10;
/// The maximum number of anchors.
const MAX_ANCHORS: usize = 10_000;
/// The maximum size of all texts with escapes or folded lines.
const MAX_COPIED_BYTES: usize = 2 << 20;
/// The maximum length of a key, in characters. YAML allows 1024, but keys of image-syncer have lists of tags.
const MAX_KEY_CHARS: usize = 16 << 10;

/// The documents of one text.
pub(super) struct Tree<'t> {
    text: &'t str,
    /// Texts that are not a range of `text`.
    copied: String,
    nodes: Vec<Node>,
    /// The node of each document.
    roots: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    kind: NodeKind,
    line: u32,
    /// Number of nodes of this one and all below it.
    size: u32,
    /// Start of the text, behind the end of `text` if it is copied; of an alias, the node that it means.
    start: u32,
    /// Length of the text.
    length: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NodeKind {
    Plain,
    Quoted,
    List,
    Map,
    Alias,
}

/// Parses YAML or JSON.
///
/// # Errors
/// `Invalid`, with the line: it is not YAML, a key is there twice, or a limit is exceeded.
pub(super) fn parse(text: &str) -> Result<Tree<'_>> {
    build::tree(text)
}

impl<'t> Tree<'t> {
    /// The documents in the text.
    pub fn roots(&self) -> impl Iterator<Item = Value<'_>> {
        self.roots.iter().map(|root| Value::of(self, *root))
    }

    fn text_of(&self, node: &Node) -> &str {
        let (start, length) = (node.start as usize, node.length as usize);
        let (text, start) = match start.checked_sub(self.text.len()) {
            Some(start) => (self.copied.as_str(), start),
            None => (self.text, start),
        };
        text.get(start..start + length).unwrap_or_default()
    }
}

fn wrong(line: usize, problem: &str) -> Error {
    Error::invalid(format!("line {line}: {problem}"))
}
