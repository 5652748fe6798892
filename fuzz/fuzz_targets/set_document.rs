//! Documents that list images. Templates are expanded, so that their parser is reached.

#![no_main]

use imgmv::internals::sets::{ReadOptions, is_document_word, pattern, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|document: &[u8]| {
    for allow_templates in [false, true] {
        let options = ReadOptions {
            allow_templates,
            allow_empty: false,
            env: &|name| (name.len() < 9).then(|| "s3cret".to_owned()),
            file: &|_| Ok("s3cret\n".to_owned()),
        };
        match read(document, &options) {
            Ok(set) => {
                assert!(!set.entries.is_empty() && set.entries.len() <= 10 * document.len() + 65536);
                for entry in &set.entries {
                    let mut names = entry.to.iter().chain([&entry.from]);
                    assert!(names.all(|name| !name.is_empty() && !name.chars().any(char::is_control)));
                }
                assert!(allow_templates || !format!("{set:?}").contains("s3cret") || contains(document, b"s3cret"));
            }
            // An error is one line, without what a variable or a file holds.
            Err(error) => {
                let error = error.to_string();
                assert!(error.len() < 10_000 && !error.chars().any(char::is_control), "{error}");
                assert!(!error.contains("s3cret") || contains(document, b"s3cret"), "{error}");
            }
        }
    }
    if let Ok(word) = std::str::from_utf8(document) {
        if let Ok(Some(entry)) = pattern(word) {
            assert!(word.starts_with(&*entry.from) && word.ends_with('/'));
        }
        let _ = is_document_word(word);
    }
});

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
