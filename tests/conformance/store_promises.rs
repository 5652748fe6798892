//! The promises of `Store`, in the order of its documentation.

use crate::sample::Sample;
use crate::stores::{Case, by_name, check};
use imgmv::internals::image::{MAX_MANIFEST_BYTES, media_type};
use imgmv::{Descriptor, Digest, Kind, Manifest, Result, Root, Selector, Store};
use std::io::Read;
use std::thread;

/// Checks a promise over every store with the sample's images.
fn each(promise: &str, promised: impl Fn(&Case)) {
    check(promise, |build| promised(&build(Sample::new()).unwrap()));
}

fn read(store: &dyn Store, blob: &Descriptor, from: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    store.open(blob, from)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn digests(roots: &[Root]) -> Vec<Digest> {
    roots.iter().map(|root| root.descriptor.digest).collect()
}

fn unknown() -> Descriptor {
    Descriptor::of(media_type::OCI_LAYER, b"bytes that no store has")
}

// `roots`

#[test]
fn roots_are_in_the_order_of_the_selectors() {
    each("roots_are_in_the_order_of_the_selectors", |case| {
        let (hello, bye) = (case.sample.hello.digest(), case.sample.bye.digest());
        for (selectors, expected) in [
            (vec![by_name(&case.hello), by_name(&case.bye)], [hello, bye]),
            (vec![by_name(&case.bye), by_name(&case.hello)], [bye, hello]),
            (vec![Selector::Digest(bye), by_name(&case.hello)], [bye, hello]),
        ] {
            assert_eq!(digests(&case.store.roots(&selectors).unwrap()), expected);
        }
        let root = case.store.roots(&[by_name(&case.hello)]).unwrap().remove(0);
        assert_eq!(root.name.unwrap().as_str(), case.hello);
        assert_eq!(root.descriptor.size, case.sample.hello.descriptor.size);
    });
}

#[test]
fn all_images_are_roots_without_a_selector() {
    each("all_images_are_roots_without_a_selector", |case| {
        let mut found = digests(&case.store.roots(&[]).unwrap());
        let mut expected = digests(&case.sample.memory.roots);
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    });
}

#[test]
fn a_digest_selects_an_unnamed_manifest() {
    each("a_digest_selects_an_unnamed_manifest", |case| {
        let unnamed = &case.sample.unnamed;
        let root = case.store.roots(&[Selector::Digest(unnamed.digest())]).unwrap().remove(0);
        assert_eq!((root.name.as_ref(), root.descriptor.digest), (None, unnamed.digest()));
        assert_eq!(root.descriptor.size, unnamed.descriptor.size);
        assert_eq!(root.read(&*case.store).unwrap().bytes, unnamed.bytes);
    });
}

#[test]
fn a_wrong_manifest_is_never_returned_as_right() {
    check("a_wrong_manifest_is_never_returned_as_right", |build| {
        let mut sample = Sample::new();
        let text = String::from_utf8(sample.hello.bytes.clone()).unwrap();
        let altered = text.replacen("\"schemaVersion\":2", "\"schemaVersion\":3", 1);
        assert_ne!(altered, text);
        sample.put_manifest(sample.hello.digest(), altered.into_bytes());
        let Ok(case) = build(sample) else { return };
        let right = |root: Root| root.read(&*case.store).map(|manifest| manifest.bytes);
        let answer = case.store.roots(&[by_name(&case.hello)]).and_then(|mut roots| right(roots.remove(0)));
        assert_eq!(answer.unwrap_err().kind(), Kind::Invalid);
    });
}

#[test]
fn a_missing_image_is_not_found() {
    each("a_missing_image_is_not_found", |case| {
        let name = case.hello.replace("hello", "absent");
        for selector in [by_name(&name), Selector::Digest(unknown().digest)] {
            let error = case.store.roots(std::slice::from_ref(&selector)).unwrap_err();
            assert_eq!(error.kind(), Kind::NotFound, "{selector}: {error}");
        }
    });
}

#[test]
fn a_missing_name_lists_the_images() {
    each("a_missing_name_lists_the_images", |case| {
        let error = case.store.roots(&[by_name("docker.io/t/absent:1")]).unwrap_err().to_string();
        assert!(error.contains(&case.hello) && error.contains(&case.bye), "{error}");
    });
}

#[test]
fn an_ambiguous_name_is_usage() {
    each("an_ambiguous_name_is_usage", |case| {
        let error = case.store.roots(&[by_name("1")]).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{error}");
        assert!(error.to_string().contains(&case.hello) && error.to_string().contains(&case.bye), "{error}");
    });
}

// `manifest`

#[test]
fn manifest_bytes_are_those_of_the_descriptor() {
    each("manifest_bytes_are_those_of_the_descriptor", |case| {
        for root in case.store.roots(&[]).unwrap() {
            let bytes = case.store.manifest(&root.descriptor).unwrap();
            assert_eq!((Digest::of(&bytes), bytes.len() as u64), (root.descriptor.digest, root.descriptor.size));
            let manifest = Manifest::parse(bytes, &root.descriptor).unwrap();
            assert_eq!(root.read(&*case.store).unwrap().bytes, manifest.bytes);
        }
    });
}

#[test]
fn a_manifest_above_the_limit_is_refused() {
    check("a_manifest_above_the_limit_is_refused", |build| {
        let mut sample = Sample::new();
        let start = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]"#;
        let mut bytes = start.to_vec();
        bytes.resize(MAX_MANIFEST_BYTES as usize, b' ');
        bytes.push(b'}');
        let descriptor = Descriptor::of(media_type::OCI_INDEX, &bytes);
        sample.put_manifest(descriptor.digest, bytes);
        let case = build(sample).unwrap();
        for size in [descriptor.size, MAX_MANIFEST_BYTES, 0] {
            let at = Descriptor { size, ..descriptor.clone() };
            let error = case.store.manifest(&at).map(|bytes| bytes.len()).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{error}");
        }
    });
}

#[test]
fn an_unknown_manifest_is_refused() {
    each("an_unknown_manifest_is_refused", |case| {
        let error = case.store.manifest(&unknown()).unwrap_err();
        assert!(matches!(error.kind(), Kind::NotFound | Kind::Invalid), "{:?}: {error}", error.kind());
    });
}

// `open`

#[test]
fn a_blob_is_read_from_any_offset() {
    each("a_blob_is_read_from_any_offset", |case| {
        let expected = case.sample.bytes(&case.blob);
        for from in [0, 1, case.blob.size / 2, case.blob.size - 1, case.blob.size] {
            let bytes = read(&*case.store, &case.blob, from).unwrap_or_else(|error| panic!("from {from}: {error}"));
            assert!(bytes == expected[from as usize..], "from {from}: {} bytes", bytes.len());
        }
    });
}

#[test]
fn a_reader_beyond_the_end_returns_no_byte() {
    each("a_reader_beyond_the_end_returns_no_byte", |case| match read(&*case.store, &case.blob, case.blob.size + 1) {
        Ok(bytes) => assert_eq!(bytes, b""),
        Err(error) => assert_eq!(error.kind(), Kind::Invalid, "{error}"),
    });
}

#[test]
fn several_readers_are_open_at_the_same_time() {
    each("several_readers_are_open_at_the_same_time", |case| {
        let expected = case.sample.bytes(&case.blob);
        let mut one = case.store.open(&case.blob, 0).unwrap();
        let mut start = [0; 10];
        one.read_exact(&mut start).unwrap();
        let other = read(&*case.store, &case.blob, 5).unwrap();
        let mut rest = Vec::new();
        one.read_to_end(&mut rest).unwrap();
        assert!([&start[..], &rest].concat() == expected && other == expected[5..]);
        let (store, blob) = (&*case.store, &case.blob);
        thread::scope(|scope| {
            for from in 0..6 {
                scope.spawn(move || assert!(read(store, blob, from).unwrap() == expected[from as usize..]));
            }
        });
    });
}

#[test]
fn an_unknown_blob_is_not_found() {
    each("an_unknown_blob_is_not_found", |case| {
        let error = read(&*case.store, &unknown(), 0).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
    });
}

#[test]
fn a_wrong_size_is_invalid_or_found_by_the_reader() {
    each("a_wrong_size_is_invalid_or_found_by_the_reader", |case| {
        let claim = Descriptor { size: case.blob.size + 7, ..case.blob.clone() };
        match read(&*case.store, &claim, 0) {
            Ok(bytes) => assert_eq!(bytes.len() as u64, case.blob.size),
            Err(error) => assert!(matches!(error.kind(), Kind::Invalid | Kind::Network | Kind::RemoteHost), "{error}"),
        }
    });
}

// `find`

#[test]
fn find_knows_blobs_and_manifests() {
    each("find_knows_blobs_and_manifests", |case| {
        let roots = case.store.roots(&[]).unwrap();
        for expected in roots.iter().map(|root| &root.descriptor).chain([&case.blob]) {
            let found = case.store.find(&expected.digest).unwrap().expect("it is stored");
            assert_eq!(found.digest, expected.digest);
            assert!([0, expected.size].contains(&found.size), "{} bytes", found.size);
        }
        assert_eq!(case.store.find(&unknown().digest).unwrap(), None);
    });
}

#[test]
fn find_does_not_read_the_bytes() {
    each("find_does_not_read_the_bytes", |case| {
        let Some(reads) = &case.reads else { return println!("not counted") };
        let before = reads();
        for digest in [case.blob.digest, case.sample.hello.digest(), unknown().digest] {
            case.store.find(&digest).unwrap();
        }
        // An unknown digest may be asked for once more as a manifest.
        assert!(reads() <= before + 1, "{} reads", reads() - before);
    });
}

// `names`, `referrers`, `profile`

#[test]
fn names_are_those_of_the_roots() {
    each("names_are_those_of_the_roots", |case| {
        let mut names: Vec<String> = case.store.names().unwrap().iter().map(ToString::to_string).collect();
        names.sort();
        assert_eq!(names, [case.bye.clone(), case.hello.clone()]);
    });
}

#[test]
fn names_do_not_read_manifests() {
    check("names_do_not_read_manifests", |build| {
        let mut sample = Sample::new();
        for digest in [sample.hello.digest(), sample.bye.digest()] {
            sample.memory.blobs.remove(&digest);
        }
        let case = build(sample).unwrap();
        assert_eq!(case.store.names().unwrap().len(), 2);
        assert_eq!(case.reads.map_or(0, |reads| reads()), 0);
    });
}

#[test]
fn an_image_without_referrers_has_an_empty_list() {
    each("an_image_without_referrers_has_an_empty_list", |case| {
        for subject in [case.sample.hello.digest(), unknown().digest] {
            assert_eq!(case.store.referrers(&subject).unwrap(), imgmv::ReferrerList::default());
        }
    });
}

#[test]
fn the_profile_is_plausible() {
    each("the_profile_is_plausible", |case| {
        let profile = case.store.profile();
        assert!((1..=64).contains(&profile.parallel_reads), "{profile:?}");
        assert!(!profile.empty_message.is_empty());
        assert!(profile.is_remote || profile.origin.is_none(), "{profile:?}");
        if let Some(origin) = profile.origin {
            assert!(case.hello.starts_with(&format!("{}/{}:", origin.host, origin.repository)), "{origin:?}");
        }
        assert!(!(profile.downloads)(&case.blob), "a layer without urls");
    });
}

#[test]
fn a_sparse_store_opens_without_some_children() {
    check("a_sparse_store_opens_without_some_children", |build| {
        let mut sample = Sample::new();
        let gone = sample.unnamed.digest();
        sample.memory.blobs.remove(&gone);
        let case = build(sample).unwrap();
        assert_eq!(case.store.find(&gone).unwrap(), None);
        assert_eq!(case.store.roots(&[]).unwrap().len(), 2);
    });
}
