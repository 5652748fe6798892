//! One value of a tree, read as the type that a format expects. Errors name its place and line.

use super::{Node, NodeKind, Tree};
use crate::error::{Error, Result};
use crate::message::{printable, shortened};
use std::collections::HashSet;
use std::fmt;

/// The key of YAML that adds the fields of other maps.
const MERGE: &str = "<<";
/// The maximum number of keys of a map with `<<`: its fields are collected.
const MAX_MERGED_FIELDS: usize = 1000;

/// A value; an alias is the value that it stands for.
#[derive(Clone, Copy)]
pub(in crate::sets) struct Value<'t> {
    tree: &'t Tree<'t>,
    node: u32,
}

/// A key and its value.
#[derive(Clone, Copy)]
pub(in crate::sets) struct Field<'t> {
    pub key: &'t str,
    pub value: Value<'t>,
    at: Value<'t>,
}

impl<'t> Value<'t> {
    pub(super) fn of(tree: &'t Tree<'t>, node: u32) -> Value<'t> {
        match tree.nodes.get(node as usize) {
            Some(Node { kind: NodeKind::Alias, start, .. }) => Value { tree, node: *start },
            _ => Value { tree, node },
        }
    }

    fn node(self) -> &'t Node {
        const NULL: &Node = &Node { kind: NodeKind::Plain, start: 0, extent: [0; 3] };
        self.tree.nodes.get(self.node as usize).unwrap_or(NULL)
    }

    fn raw(self) -> &'t str {
        self.tree.text_of(self.node())
    }

    pub fn is_map(self) -> bool {
        self.node().kind == NodeKind::Map
    }

    pub fn is_list(self) -> bool {
        self.node().kind == NodeKind::List
    }

    /// Whether the value is missing: `null`, `~` or nothing.
    pub fn is_null(self) -> bool {
        self.node().kind == NodeKind::Plain && matches!(self.raw(), "" | "~" | "null" | "Null" | "NULL")
    }

    /// Whether the value is a text or a number.
    pub fn is_text(self) -> bool {
        matches!(self.node().kind, NodeKind::Plain | NodeKind::Quoted) && !self.is_null()
    }

    /// The text; a number or `true` is the text as written.
    pub fn text(self) -> Result<&'t str> {
        match self.is_text() {
            true => Ok(self.raw()),
            false => Err(self.wrong("a text")),
        }
    }

    /// `true` or `false`, in the spellings of YAML 1.1.
    pub fn flag(self) -> Result<bool> {
        let plain = if self.node().kind == NodeKind::Plain { self.raw() } else { "" };
        match plain.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Ok(true),
            "false" | "no" | "off" => Ok(false),
            _ => Err(self.wrong("true or false")),
        }
    }

    /// A whole number.
    pub fn count(self) -> Result<usize> {
        self.text().ok().and_then(|text| text.parse().ok()).ok_or_else(|| self.wrong("a whole number"))
    }

    /// The values of a list; nothing is an empty list.
    pub fn items(self) -> Result<impl Iterator<Item = Value<'t>> + use<'t>> {
        match self.is_list() || self.is_null() {
            true => Ok(self.children()),
            false => Err(self.wrong("a list")),
        }
    }

    /// The values of a list, or one text alone.
    pub fn one_or_more(self) -> Result<impl Iterator<Item = Value<'t>> + use<'t>> {
        match self.is_map() {
            true => Err(self.wrong("a text or a list")),
            // A text has no children.
            false => Ok(self.is_text().then_some(self).into_iter().chain(self.children())),
        }
    }

    /// The fields of a map, with those that `<<` merges; nothing is an empty map.
    pub fn fields(self) -> Result<Box<dyn Iterator<Item = Field<'t>> + 't>> {
        if !self.is_map() && !self.is_null() {
            return Err(self.wrong("a map"));
        }
        let is_merge = |key: &Value<'_>| key.node().kind == NodeKind::Plain && key.raw() == MERGE;
        let own = move || self.pairs().filter(move |(key, _)| !is_merge(key));
        let own = move || own().map(|(key, value)| Field { key: key.raw(), value, at: key });
        let Some((_, merged)) = self.pairs().find(|(key, _)| is_merge(key)) else { return Ok(Box::new(own())) };
        self.merged(own(), merged).map(|fields| Box::new(fields.into_iter()) as _)
    }

    /// The fields `own` and those of the map or maps `merged`. A field of an earlier map hides the later ones.
    fn merged(self, own: impl Iterator<Item = Field<'t>>, merged: Value<'t>) -> Result<Vec<Field<'t>>> {
        if !merged.is_map() && !merged.is_list() {
            return Err(merged.wrong("a map or a list of maps"));
        }
        let (mut fields, mut keys) = (Vec::new(), HashSet::new());
        let mut add = |field: Field<'t>| match keys.insert(field.key) {
            true if fields.len() == MAX_MERGED_FIELDS => {
                Err(self.problem(format!("a map with << has more than {MAX_MERGED_FIELDS} keys; divide it")))
            }
            true => {
                fields.push(field);
                Ok(())
            }
            false => Ok(()),
        };
        own.into_iter().try_for_each(&mut add)?;
        let list = merged.children().filter(|_| merged.is_list());
        for map in merged.is_map().then_some(merged).into_iter().chain(list) {
            map.fields()?.try_for_each(&mut add)?;
        }
        Ok(fields)
    }

    /// The value of `key` in a map; `None` also if it is null or `self` is not a map.
    pub fn field(self, key: &str) -> Option<Value<'t>> {
        let mut fields = self.fields().ok()?;
        fields.find(|field| field.key == key).map(|field| field.value).filter(|value| !value.is_null())
    }

    fn pairs(self) -> impl Iterator<Item = (Value<'t>, Value<'t>)> + use<'t> {
        let mut children = self.children();
        std::iter::from_fn(move || Some((children.next()?, children.next()?)))
    }

    fn children(self) -> impl Iterator<Item = Value<'t>> + use<'t> {
        self.child_nodes().map(move |node| Value::of(self.tree, node))
    }

    fn child_nodes(self) -> impl Iterator<Item = u32> + use<'t> {
        let Value { tree, node } = self;
        let end = node + self.node().size();
        let mut at = node + 1;
        std::iter::from_fn(move || {
            let child = at;
            at += tree.nodes.get(child as usize)?.size();
            (child < end).then_some(child)
        })
    }

    /// An error: the value has the wrong type.
    pub fn wrong(self, expected: &str) -> Error {
        let found = match self.node().kind {
            _ if self.is_null() => "nothing",
            NodeKind::List => "a list",
            NodeKind::Map => "a map",
            _ => "a text",
        };
        self.problem(format!("expected {expected}, found {found}"))
    }

    /// An error with the place and the line of the value.
    pub fn problem(self, problem: impl fmt::Display) -> Error {
        Error::invalid(format!("{} (line {}): {problem}", self.place(), self.tree.line_of(self.node)))
    }

    /// The place of the value: `sync[2].tags.allow`. It is found from the root, so it costs time.
    pub fn place(self) -> String {
        let mut place = String::new();
        let root = self.tree.roots.iter().rev().find(|root| **root <= self.node).copied().unwrap_or_default();
        let mut at = Value { tree: self.tree, node: root };
        while at.node < self.node {
            let below = |node: &u32| *node + Value { tree: self.tree, node: *node }.node().size() > self.node;
            let Some((nth, node)) = at.child_nodes().enumerate().find(|(_, node)| below(node)) else { break };
            let child = Value { tree: self.tree, node };
            if at.is_map() {
                let key = if nth % 2 == 0 { child } else { Value { tree: self.tree, node: node - 1 } };
                place += &named(key.raw(), place.is_empty());
            } else {
                place += &format!("[{nth}]");
            }
            at = child;
        }
        if place.is_empty() { "the document".to_owned() } else { shortened(&place) }
    }
}

/// A key as a part of a place.
fn named(key: &str, is_first: bool) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let key = if key.bytes().all(plain) { key.to_owned() } else { format!("{:?}", printable(&shortened(key))) };
    if is_first { key } else { format!(".{key}") }
}

impl<'t> Field<'t> {
    /// The place of the field; that of a merged field is in the other map.
    pub fn place(self) -> String {
        self.at.place()
    }
}
