//! A manifest, index or config of a stranger: what is taken is taken again, and can be converted.

#![no_main]

use imgmv::{Format, Image, Manifest};
use imgmv::internals::copy::convert;
use imgmv::internals::image::{Config, media_type};
use libfuzzer_sys::fuzz_target;
use std::collections::HashMap;

const TYPES: [&str; 6] = [
    "",
    media_type::OCI_MANIFEST,
    media_type::OCI_INDEX,
    media_type::DOCKER_LIST,
    media_type::DOCKER_MANIFEST,
    "application/vnd.unknown",
];

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let _ = Config::parse(bytes).map(|config| config.platform().to_string());
    let Ok(manifest) = Manifest::from_bytes(bytes.to_vec(), TYPES[*first as usize % TYPES.len()]) else { return };
    let again = Manifest::parse(bytes.to_vec(), &manifest.descriptor).expect("taken before");
    assert_eq!(again.descriptor, manifest.descriptor);
    assert!(manifest.children().is_empty() || manifest.config().is_none());
    let image = Image {
        names: Vec::new(),
        source_digest: manifest.digest(),
        tree: vec![manifest],
        synthesised: false,
        lost_manifest: None,
        foreign_layers: Vec::new(),
        narrowed: None,
        original: None,
        attached: Vec::new(),
        is_current: false,
    };
    let same = convert::image(&image, &HashMap::new(), Format::Keep).expect("nothing is to change");
    assert_eq!(same.root().bytes, bytes);
    for format in [Format::Docker, Format::Oci] {
        if let Ok(made) = convert::image(&image, &HashMap::new(), format) {
            assert_eq!(made.root().blobs().len(), image.root().blobs().len());
        }
    }
});
