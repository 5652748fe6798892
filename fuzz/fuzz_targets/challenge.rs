//! `WWW-Authenticate` of a stranger: bounded, and nothing in it is made up.

#![no_main]

use imgmv::internals::registry::challenge::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|header: &str| {
    let challenges = parse(header);
    assert!(challenges.len() <= 16);
    for challenge in &challenges {
        assert!(header.to_ascii_lowercase().contains(&challenge.scheme));
        assert!(challenge.parameters.len() <= 32);
        for (name, value) in &challenge.parameters {
            assert!(!name.is_empty() && value.len() <= header.len());
            assert_eq!(challenge.parameter(name).is_some(), true);
        }
    }
});
