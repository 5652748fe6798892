//! The lines of `storage.conf` that name the storage's directories.
//!
//! `KEY = "TEXT"` in the table `[storage]` is read, and lists of texts in it and in `[storage.options]`, with either kind
//! of quotes. All else is passed over: other tables, other kinds of values, lines that are not TOML.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The maximum size of the file; what follows is not read.
const MAX_BYTES: u64 = 1 << 20;
/// The tables that are read; only the first one may have the storage's own directory.
const TABLES: [&str; 2] = ["[storage]", "[storage.options]"];

/// The texts and lists of texts of the tables.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct StorageConf(Vec<Entry>);

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    table: &'static str,
    key: String,
    /// One text, unless it is a list.
    texts: Vec<String>,
    is_list: bool,
}

impl StorageConf {
    /// Reads the file at `path`; `None` if it cannot be read.
    pub fn read(path: &Path) -> Option<StorageConf> {
        let mut text = Vec::new();
        File::open(path).ok()?.take(MAX_BYTES).read_to_end(&mut text).ok()?;
        Some(StorageConf::parse(&String::from_utf8_lossy(&text)))
    }

    fn parse(text: &str) -> StorageConf {
        let mut table = None;
        let mut found = Vec::new();
        let mut lines = text.lines().map(str::trim);
        while let Some(line) = lines.next() {
            if line.starts_with('[') {
                let name = line.split('#').next().unwrap_or_default().trim();
                table = TABLES.into_iter().find(|table| *table == name);
            } else if let Some(table) = table
                && let Some((key, value)) = line.split_once('=')
            {
                let (key, value) = (key.trim().to_owned(), value.trim());
                if let Some(inside) = value.strip_prefix('[') {
                    let texts = list(inside, &mut lines);
                    found.push(Entry { table, key, texts, is_list: true });
                } else if let Some(value) = quoted(value) {
                    found.push(Entry { table, key, texts: vec![value.to_owned()], is_list: false });
                }
            }
        }
        StorageConf(found)
    }

    /// The text of `key` in `[storage]`; `None` if it is missing or empty.
    pub fn text(&self, key: &str) -> Option<&str> {
        let is_it = |entry: &&Entry| entry.key == key && entry.table == TABLES[0] && !entry.is_list;
        let value = self.0.iter().find(is_it)?.texts.first()?;
        (!value.is_empty()).then_some(value)
    }

    /// The texts of `key` in either table.
    pub fn texts(&self, key: &str) -> impl Iterator<Item = &str> {
        let entries = self.0.iter().filter(move |entry| entry.key == key);
        entries.flat_map(|entry| &entry.texts).map(String::as_str).filter(|text| !text.is_empty())
    }
}

/// The texts of a list that starts with `first`, and may continue in `lines`.
fn list<'t>(first: &'t str, lines: &mut impl Iterator<Item = &'t str>) -> Vec<String> {
    let mut texts = Vec::new();
    let mut next = Some(first);
    while let Some(line) = next {
        if list_line(line, &mut texts) {
            break;
        }
        next = lines.next();
    }
    texts
}

/// Adds the texts of a line of a list to `texts`; returns whether the list ends in it.
fn list_line(mut line: &str, texts: &mut Vec<String>) -> bool {
    loop {
        line = line.trim_start_matches(|c| !matches!(c, '"' | '\'' | '#' | ']'));
        let mut rest = line.chars();
        let quote = match rest.next() {
            Some(']') => return true,
            Some(quote @ ('"' | '\'')) => quote,
            _ => return false,
        };
        let Some((text, after)) = rest.as_str().split_once(quote) else { return false };
        texts.push(text.to_owned());
        line = after;
    }
}

/// The text in quotes at the start of `value`.
fn quoted(value: &str) -> Option<&str> {
    let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    let (text, rest) = value.get(1..)?.split_once(quote)?;
    let rest = rest.trim();
    (rest.is_empty() || rest.starts_with('#')).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_storage_table_are_read_and_all_else_is_passed_over() {
        let conf = StorageConf::parse(
            "graphroot = \"/before\"\n# graphroot = \"/comment\"\n[storage] # the table\ndriver = \"overlay\"\n\
             graphroot=\"/data/storage\" # where\nrunroot = '/run'\nrootless_storage_path = \"\"\nnot toml\n\
             number = 3\nopen = \"x\nlist = [ \"a\" ]\n[storage.options]\ngraphroot = \"/options\"\nsize = \"\"\n",
        );
        for (key, expected) in [
            ("graphroot", Some("/data/storage")),
            ("driver", Some("overlay")),
            ("runroot", Some("/run")),
            ("rootless_storage_path", None),
            ("number", None),
            ("open", None),
            ("list", None),
            ("size", None),
        ] {
            assert_eq!(conf.text(key), expected, "{key}");
        }
        assert_eq!(StorageConf::parse(""), StorageConf::default());
    }

    #[test]
    fn lists_are_read_of_both_tables_on_one_line_or_more() {
        let conf = StorageConf::parse(
            "list = [\"/before\"]\n[storage]\nlist = [ \"/a\", '/b' ] # two\n[storage.options]\nlist = [ # more\n  \
             \"/c#]\", # '/comment'\n\n  '/d',\n]\nlist = \"/one\"\nempty = []\n[storage.options.overlay]\n\
             list = [\"/other\"]\n[storage]\nopen = [\"/e\", \"/f",
        );
        assert_eq!(conf.texts("list").collect::<Vec<_>>(), ["/a", "/b", "/c#]", "/d", "/one"]);
        assert_eq!(conf.texts("empty").count(), 0);
        assert_eq!(conf.texts("open").collect::<Vec<_>>(), ["/e"]);
        assert_eq!(conf.text("list"), None);
    }
}
