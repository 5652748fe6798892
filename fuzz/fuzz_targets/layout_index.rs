//! An `index.json` of a stranger: read, a name added, read back.

#![no_main]

use imgmv::{Descriptor, Name};
use imgmv::internals::image::{LayoutIndex, media_type};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut index) = LayoutIndex::parse(bytes) else { return };
    let entries = index.entries().expect("checked when read").len();
    let _ = index.named();
    let root = Descriptor::of(media_type::OCI_MANIFEST, b"root");
    for name in ["registry.lan/app:1", "tag"] {
        let name = Name::new(name).expect("fit");
        index.point(Some(&name), &root);
        assert_eq!(index.target(&name), Some(root.digest));
        let back = LayoutIndex::parse(&index.bytes()).expect("written here");
        assert_eq!(back.target(&name), Some(root.digest));
        assert!(back.entries().expect("written here").len() <= entries + 2);
        assert!(index.remove(&name) && index.target(&name).is_none());
    }
});
