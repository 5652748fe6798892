//! The subset of TOML in the engines' configuration files: sections, and keys with one value.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The limit on a file; the rest is not read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A key and its value in a section. The section's own line has no key.
#[derive(Debug)]
pub struct Setting {
    pub section: String,
    pub key: String,
    /// The text in the file; an array is joined to one line.
    pub value: String,
}

impl Setting {
    /// Returns the value without quotes.
    pub fn text(&self) -> &str {
        unquoted(&self.value)
    }

    pub fn is_true(&self) -> bool {
        self.value == "true"
    }
}

pub fn unquoted(value: &str) -> &str {
    value.trim_matches(['"', '\''])
}

/// Returns the settings of `text`.
pub fn settings(text: &str) -> Vec<Setting> {
    let mut section = String::new();
    let mut all: Vec<Setting> = Vec::new();
    let mut open = false;
    for line in text.lines().map(without_comment).filter(|line| !line.is_empty()) {
        if open {
            if let Some(last) = all.last_mut() {
                last.value.push_str(line);
            }
            open = !line.contains(']');
        } else if line.starts_with('[') && line.ends_with(']') {
            section = line.trim_matches(['[', ']']).trim().to_owned();
            all.push(Setting { section: section.clone(), key: String::new(), value: String::new() });
        } else if let Some((key, value)) = line.split_once('=') {
            let value = value.trim();
            open = value.starts_with('[') && !value.contains(']');
            all.push(Setting { section: section.clone(), key: key.trim().to_owned(), value: value.to_owned() });
        }
    }
    all
}

/// Returns `line` without a comment. A `#` in quotes does not start one.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    for (at, byte) in line.bytes().enumerate() {
        match (quote, byte) {
            (None, b'#') => return line[..at].trim(),
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), _) if byte == open => quote = None,
            _ => {}
        }
    }
    line.trim()
}

/// Reads `file`, if it is a readable file of UTF-8 text.
pub fn read(file: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(file).ok()?.take(MAX_FILE_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_keys_and_arrays_are_read_and_comments_are_not() {
        let text =
            "a = \"x#y\" # why\n#b = 1\n[host.\"https://h/v2\"] # one\n  list = [ # two\n 'p',\n 'q' ]\nc = true";
        let found: Vec<_> =
            settings(text).into_iter().map(|line| format!("{}|{}|{}", line.section, line.key, line.value)).collect();
        assert_eq!(
            found,
            [
                "|a|\"x#y\"",
                "host.\"https://h/v2\"||",
                "host.\"https://h/v2\"|list|['p','q' ]",
                "host.\"https://h/v2\"|c|true"
            ]
        );
    }
}
