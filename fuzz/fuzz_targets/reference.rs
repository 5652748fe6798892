//! What people and strangers call images and hosts: what is taken means the same when it is written down and read.

#![no_main]

use imgmv::image::{Digest, Name, Platform, Reference};
use imgmv::remote::{SshTarget, quote, split_words};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(reference) = text.parse::<Reference>() {
        let full = reference.to_string();
        assert_eq!(full.parse::<Reference>().expect("written here"), reference);
        assert!(!reference.host.starts_with('-') && !reference.full_repository().contains(".."));
    }
    if let Ok(name) = Name::new(text) {
        assert!(name.matches(text));
        assert!(!text.chars().any(|c| c.is_control() || c.is_whitespace()));
        if let Some(reference) = name.reference() {
            assert!(name.matches(&reference.to_string()), "{name} {reference}");
        }
        let _ = name.tag();
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    if let Ok(platform) = text.parse::<Platform>() {
        assert!(platform.rank(&platform).is_some(), "{platform}");
    }
    let _ = SshTarget::matches(text);
    if let Ok((target, _)) = SshTarget::parse(text) {
        assert!(!target.host.starts_with('-') && !target.host.is_empty());
        let fit = |text: &str| !text.contains([' ', '\'', '"', '$', '`', ';', '&', '|', '\n', '<', '>', '(', '*']);
        assert!(fit(&target.host) && target.user.as_deref().is_none_or(|user| fit(user) && !user.starts_with('-')));
    }
    if let Ok(words) = split_words(text) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if let Ok(line) = quote(&words) {
            assert_eq!(split_words(&line).expect("quoted here"), words);
        }
    }
});
