//! YAML and JSON as a tree: nodes in one list, in the order of the document, each of 8 bytes.
//!
//! The text of a node is a range of the document; only text with escapes or folded lines is copied. A map is a list of keys
//! and values in turn. Lines are counted when a message needs one. An alias is the number of the node that it means, so aliases need no memory: `build` only counts
//! the size that they would expand to.
//!
//! granit-parser, which serde-saphyr reads with, makes the events. serde-saphyr itself reads `1.10` as a number where a value
//! may be a text or a map.

mod build;
mod value;

pub(super) use value::{Field, Value};

use crate::error::{Error, Result};

/// The maximum number of values of a document. 50,000 entries with a filter each have 650,000.
const MAX_NODES: usize = 800_000;
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
    /// Start in the document, or behind its end if the text is copied. Of an alias, the node that it means.
    start: u32,
    kind: NodeKind,
    /// The length of a text, less than 2^24. Of a list or map, the number of nodes of it and all below it.
    extent: [u8; 3],
}

/// The largest extent.
const MAX_EXTENT: usize = 0xff_ffff;

impl Node {
    fn new(kind: NodeKind, start: usize, extent: usize) -> Node {
        let [a, b, c, _] = u32::try_from(extent.min(MAX_EXTENT)).unwrap_or_default().to_le_bytes();
        Node { start: u32::try_from(start).unwrap_or(u32::MAX), kind, extent: [a, b, c] }
    }

    fn extent(&self) -> usize {
        let [a, b, c] = self.extent;
        u32::from_le_bytes([a, b, c, 0]) as usize
    }

    /// Number of nodes of this one and all below it.
    fn size(&self) -> u32 {
        if matches!(self.kind, NodeKind::List | NodeKind::Map) { self.extent() as u32 } else { 1 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
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

    /// The memory of the tree, without the document.
    pub fn bytes(&self) -> usize {
        self.nodes.len() * size_of::<Node>() + self.copied.len()
    }

    /// The line of the node at `at`. A node whose text is copied has the line of the node before it.
    fn line_of(&self, at: u32) -> usize {
        let before = self.nodes.get(..=at as usize).unwrap_or_default().iter().rev();
        let mut starts = before.filter(|node| node.kind != NodeKind::Alias).map(|node| node.start as usize);
        let start = starts.find(|start| *start <= self.text.len()).unwrap_or_default();
        1 + self.text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count()
    }

    fn text_of(&self, node: &Node) -> &str {
        let (start, length) = (node.start as usize, node.extent());
        let (text, start) = match start.checked_sub(self.text.len() + 1) {
            Some(start) => (self.copied.as_str(), start),
            None => (self.text, start),
        };
        text.get(start..start + length).unwrap_or_default()
    }
}

fn wrong(line: usize, problem: &str) -> Error {
    Error::invalid(format!("line {line}: {problem}"))
}
