//! What holds for any document.

use crate::shown::{lines, no_templates, plain};
use imgmv::internals::sets::{is_document_word, pattern, read};
use proptest::prelude::*;

/// Pieces of documents; any order of them is tried.
const PIECES: &[&str] = &[
    "sync:",
    "images:",
    "tasks:",
    "mappings:",
    "source: ",
    "target: b",
    "type: repository",
    "tags: ",
    "allow: [",
    "]",
    "{",
    "}",
    "- ",
    "\n",
    "\n  ",
    "\n    ",
    "a/b:1",
    "*x",
    "&x ",
    "<<: ",
    "'",
    "\"",
    "\\",
    "#",
    "from: ",
    "to: ",
    ", ",
    ": ",
    "~",
    "creds:",
    "registry: a",
    "user: ",
    "{{env \"X\"}}",
    "${X}",
    "apiVersion: content.hauler.cattle.io/v1",
    "kind: Images",
    "spec:",
    "---",
    "regex: ^1",
    "semver: '>=1'",
    "|",
    ">",
    "\t",
    "\u{feff}",
    "\0",
    "\u{2028}",
    "é",
    "!x",
    "?",
    "%YAML 1.2",
    "defaults:",
];

fn check(bytes: &[u8]) {
    match read(bytes, &no_templates()) {
        Ok(set) => {
            assert!(!set.entries.is_empty() && set.entries.len() <= bytes.len() * 10 + 65536);
            for entry in &set.entries {
                let names = entry.to.iter().chain([&entry.from]);
                assert!(names.into_iter().all(|name| !name.is_empty() && !name.chars().any(char::is_control)));
            }
        }
        Err(error) => {
            let error = error.to_string();
            assert!(error.len() < 4000 && !error.chars().any(char::is_control), "{error}");
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        check(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        check(text.as_bytes());
        let _ = (is_document_word(&text), pattern(&text));
    }

    #[test]
    fn any_pieces_of_documents_are_read_or_refused(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40)) {
        check(pieces.concat().as_bytes());
    }

    #[test]
    fn a_printed_list_is_read_again(
        pairs in prop::collection::vec(("[a-z0-9./:@_+\\[\\]-]{1,40}", prop::option::of("[a-z0-9./:@=,_-]{1,40}")), 1..40)
    ) {
        let printed: Vec<String> = pairs.iter().map(|(from, to)| match to {
            Some(to) => format!("{from} {to}"),
            None => from.clone(),
        }).collect();
        let Ok(set) = plain(&(printed.join("\n") + "\n")) else { return Ok(()) };
        // A document that begins with a key or a bracket is YAML.
        prop_assume!(matches!(set.format.to_string().as_str(), "plain list" | "list of pairs"));
        prop_assert_eq!(set.entries.len(), printed.len());
        let again: Vec<String> = set.entries.iter().map(|entry| {
            let tags = match &entry.tags {
                imgmv::internals::sets::Tags::Filtered(filter) => format!(":/{}/", filter.include[0]),
                _ => String::new(),
            };
            let to = entry.to.iter().map(|to| format!(" {to}"));
            format!("{}{tags}{}", entry.from, to.collect::<String>())
        }).collect();
        prop_assert_eq!(&again, &printed);
        let read_again = plain(&(again.join("\r\n") + "\n# end")).unwrap();
        prop_assert_eq!(lines(&read_again), lines(&set));
    }
}
