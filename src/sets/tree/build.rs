//! The tree from the events of the YAML parser, with every limit of a document.

use super::{
    MAX_ANCHORS, MAX_COPIED_BYTES, MAX_DEPTH, MAX_EXPANSION, MAX_KEY_CHARS, MAX_NODES, MIN_EXPANSION_BYTES, Node,
    NodeKind, Tree, wrong,
};
use crate::error::Result;
use crate::message::{printable, shortened};
use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// Maps up to this size are searched for equal keys without a set.
const SMALL_MAP: usize = 8;

pub(super) fn tree(text: &str) -> Result<Tree<'_>> {
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
        simple_key_max_lookahead: MAX_KEY_CHARS,
    };
    let mut build = Build {
        tree: Tree { text, copied: String::new(), nodes: Vec::new(), roots: Vec::new() },
        open: Vec::new(),
        anchors: HashMap::new(),
        weight: 0,
        expanded: 0,
    };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) =
            event.map_err(|error| wrong(error.marker().line(), &format!("not YAML or JSON: {}", error.info())))?;
        build.event(event, span)?;
    }
    Ok(build.tree)
}

struct Build<'t> {
    tree: Tree<'t>,
    open: Vec<Open>,
    anchors: HashMap<usize, Anchored>,
    /// The bytes of text and the nodes so far, with aliases expanded.
    weight: usize,
    /// The part of `weight` that aliases add.
    expanded: usize,
}

/// A list or map whose end has not come.
struct Open {
    node: usize,
    anchor: usize,
    weight: usize,
    height: usize,
}

/// A node with an anchor. `weight` and `height` are those of its whole tree, with aliases expanded.
struct Anchored {
    node: u32,
    weight: usize,
    height: usize,
}

impl<'t> Build<'t> {
    fn event(&mut self, event: Event<'t>, span: Span) -> Result<()> {
        let line = span.start.line();
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                check_tag(tag.as_deref(), line)?;
                let kind = match style {
                    ScalarStyle::Plain if tag.is_none() => NodeKind::Plain,
                    _ => NodeKind::Quoted,
                };
                let before = self.weight;
                let (start, length) = self.place(text, &span, line)?;
                self.weight += length;
                let node = self.push(Node::new(kind, start, length), line)?;
                self.anchor(anchor, node, before, 0, line)
            }
            Event::SequenceStart(_, anchor, tag) => self.begin(NodeKind::List, anchor, tag, &span),
            Event::MappingStart(_, anchor, tag) => self.begin(NodeKind::Map, anchor, tag, &span),
            Event::SequenceEnd | Event::MappingEnd => self.end(line),
            Event::Alias(anchor) => self.alias(anchor, line),
            Event::DocumentEnd => {
                self.anchors.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The place of a scalar's text in the document, or in the copied texts.
    fn place(&mut self, text: Cow<'t, str>, span: &Span, line: usize) -> Result<(usize, usize)> {
        // A quoted text is inside its quotes.
        let start = start_of(span);
        let is_at = |start: &usize| self.tree.text.get(*start..start + text.len()) == Some(&*text);
        if let Some(start) = [start, start + 1].into_iter().find(is_at) {
            return Ok((start, text.len()));
        }
        if self.tree.copied.len() + text.len() > MAX_COPIED_BYTES {
            return Err(wrong(line, "the texts with escapes or several lines are too long; write them on one line"));
        }
        // The start is behind the end of the document, so that it differs from a start in it.
        let start = self.tree.text.len() + 1 + self.tree.copied.len();
        self.tree.copied.push_str(&text);
        Ok((start, text.len()))
    }

    fn push(&mut self, node: Node, line: usize) -> Result<usize> {
        let at = self.tree.nodes.len();
        if at == MAX_NODES {
            return Err(wrong(line, &format!("the document has more than {MAX_NODES} values; divide it")));
        }
        self.weight += 1;
        if self.open.is_empty() {
            self.tree.roots.push(number(at));
        }
        self.tree.nodes.push(node);
        Ok(at)
    }

    fn begin(&mut self, kind: NodeKind, anchor: usize, tag: Option<Cow<'t, Tag>>, span: &Span) -> Result<()> {
        let line = span.start.line();
        check_tag(tag.as_deref(), line)?;
        self.check_depth(0, line)?;
        let weight = self.weight;
        let node = self.push(Node::new(kind, start_of(span), 1), line)?;
        self.open.push(Open { node, anchor, weight, height: 0 });
        Ok(())
    }

    /// Fails if a tree of `height` is too deep below the lists and maps that are open.
    fn check_depth(&self, height: usize, line: usize) -> Result<()> {
        match self.open.len() + height < MAX_DEPTH {
            true => Ok(()),
            false => Err(wrong(line, &format!("lists and maps are nested more than {MAX_DEPTH} deep"))),
        }
    }

    fn end(&mut self, line: usize) -> Result<()> {
        let Some(closed) = self.open.pop() else { return Ok(()) };
        let size = self.tree.nodes.len() - closed.node;
        let node = &mut self.tree.nodes[closed.node];
        *node = Node::new(node.kind, node.start as usize, size);
        if node.kind == NodeKind::Map {
            self.check_keys(closed.node)?;
        }
        let height = closed.height + 1;
        if let Some(parent) = self.open.last_mut() {
            parent.height = parent.height.max(height);
        }
        self.anchor(closed.anchor, closed.node, closed.weight, height, line)
    }

    /// Remembers a node with an anchor; `before` is the weight before it.
    fn anchor(&mut self, anchor: usize, node: usize, before: usize, height: usize, line: usize) -> Result<()> {
        if anchor == 0 {
            return Ok(());
        }
        if self.anchors.len() == MAX_ANCHORS {
            return Err(wrong(line, &format!("the document has more than {MAX_ANCHORS} anchors")));
        }
        let weight = self.weight - before;
        self.anchors.insert(anchor, Anchored { node: number(node), weight, height });
        Ok(())
    }

    fn alias(&mut self, anchor: usize, line: usize) -> Result<()> {
        let Some(Anchored { node, weight, height }) = self.anchors.get(&anchor) else {
            return Err(wrong(line, "an alias is inside the value that it stands for"));
        };
        let (node, weight, height) = (*node, *weight, *height);
        self.check_depth(height.saturating_sub(1), line)?;
        if let Some(parent) = self.open.last_mut() {
            parent.height = parent.height.max(height);
        }
        self.weight += weight;
        self.expanded += weight;
        let most = (self.tree.text.len() * MAX_EXPANSION).max(MIN_EXPANSION_BYTES);
        if self.expanded > most {
            return Err(wrong(line, &format!("aliases expand to more than {most} bytes; write the values instead")));
        }
        self.push(Node::new(NodeKind::Alias, node as usize, 1), line)?;
        Ok(())
    }

    /// Fails if a key of the map at `map` is there twice, or is not a text.
    fn check_keys(&self, map: usize) -> Result<()> {
        let end = map + self.tree.nodes[map].size() as usize;
        let mut keys: Vec<&str> = Vec::new();
        let mut seen = HashSet::new();
        let mut at = map + 1;
        while at < end {
            let key = &self.tree.nodes[at];
            let line = || self.tree.line_of(number(at));
            if !matches!(key.kind, NodeKind::Plain | NodeKind::Quoted) {
                return Err(wrong(line(), "a key is a list, a map or an alias, expected a text"));
            }
            let text = self.tree.text_of(key);
            if keys.len() == SMALL_MAP && seen.is_empty() {
                seen.extend(keys.iter().copied());
            }
            let is_new = if seen.is_empty() { !keys.contains(&text) } else { seen.insert(text) };
            if !is_new {
                let key = printable(&shortened(text));
                return Err(wrong(line(), &format!("the key {key:?} is there twice; remove one")));
            }
            if keys.len() < SMALL_MAP {
                keys.push(text);
            }
            at += 1;
            at += self.tree.nodes.get(at).map_or(1, |value| value.size() as usize);
        }
        Ok(())
    }
}

/// The byte at which a node begins.
fn start_of(span: &Span) -> usize {
    span.byte_range().map_or(0, |range| range.start)
}

/// Tags of YAML's core schema say nothing that imgmv needs; others would change a value.
fn check_tag(tag: Option<&Tag>, line: usize) -> Result<()> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema() || tag.core_suffix() == Some("binary") => {
            Err(wrong(line, "the value has a tag (!) that imgmv does not know; remove the tag"))
        }
        _ => Ok(()),
    }
}

/// Lengths fit, since a document has at most 16 MiB.
fn number(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}
