//! The lines of `storage.conf` that name the storage's directory.
//!
//! Only `KEY = "TEXT"` in the table `[storage]` is read, with either kind of quotes. All else is passed over: other
//! tables, other kinds of values, lines that are not TOML.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The maximum size of the file; what follows is not read.
const MAX_BYTES: u64 = 1 << 20;

/// The texts in the table `[storage]`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct StorageConf(Vec<(String, String)>);

impl StorageConf {
    /// Reads the file at `path`; `None` if it cannot be read.
    pub fn read(path: &Path) -> Option<StorageConf> {
        let mut text = Vec::new();
        File::open(path).ok()?.take(MAX_BYTES).read_to_end(&mut text).ok()?;
        Some(StorageConf::parse(&String::from_utf8_lossy(&text)))
    }

    fn parse(text: &str) -> StorageConf {
        let mut is_storage = false;
        let mut found = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                is_storage = line.split('#').next().unwrap_or_default().trim() == "[storage]";
            } else if is_storage
                && let Some((key, value)) = line.split_once('=')
                && let Some(value) = quoted(value.trim())
            {
                found.push((key.trim().to_owned(), value.to_owned()));
            }
        }
        StorageConf(found)
    }

    /// The text of `key`; `None` if it is missing or empty.
    pub fn text(&self, key: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(name, _)| name == key)?;
        (!value.is_empty()).then_some(value)
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
}
