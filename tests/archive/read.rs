//! Every shape is read, from a file and from a stream, with the same result.

use crate::make::*;
use crate::memory::{Kept, takes};
use imgmv::internals::archive::{Input, open};
use imgmv::internals::image::media_type;
use imgmv::internals::tarball::ArchiveCompression;
use imgmv::{Digest, Options, Selector, Store};
use serde_json::json;
use std::io::{Cursor, Read, Write};

/// What tools wrote: the file, the names in it, and the manifest where the tool kept or made the one of image.py.
const RECORDED: [(&str, &[&str], Option<&str>); 26] = [
    ("hello-docker20.tar", HELLO, None),
    ("hello-docker20.tar.gz", HELLO, None),
    ("hello-docker20.tar.zst", HELLO, None),
    ("hello-docker20.tar.xz", HELLO, None),
    ("hello-docker20.tar.bz2", HELLO, None),
    ("hello-docker28.tar", HELLO, None),
    ("hello-docker28c.tar", HELLO, Some(GZIP)),
    ("hello-ctr16.tar", HELLO, Some(GZIP)),
    ("hello-ctr21.tar", HELLO, Some(GZIP)),
    ("hello-podman-docker.tar", HELLO, None),
    ("hello-podman-oci.tar", HELLO, None),
    ("hello-skopeo-docker.tar", HELLO, None),
    ("hello-skopeo-oci.tar", HELLO, Some(GZIP)),
    ("hello-skopeo-zstd.tar", HELLO, None),
    ("like-kaniko.tar", HELLO, Some(GZIP)),
    ("like-kaniko-old.tar", HELLO, Some(GZIP)),
    ("like-nix.tar.gz", HELLO, None),
    ("like-rules-oci.tar", HELLO, Some(GZIP)),
    ("like-jib.tar", HELLO, Some(GZIP)),
    ("like-jib-old.tar", HELLO, Some(GZIP)),
    ("both-forms.tar", HELLO, Some(GZIP)),
    ("two-images-docker20.tar", THREE, None),
    ("two-images-docker28.tar", THREE, None),
    ("two-images-docker28c.tar", THREE, Some(GZIP)),
    ("two-images-podman.tar", THREE, None),
    ("two-images-ctr21.tar", TWO, Some(GZIP)),
];
const HELLO: &[&str] = &["docker.io/library/hello-imgmv:1"];
const TWO: &[&str] = &["docker.io/library/bye-imgmv:1", "docker.io/library/hello-imgmv:1"];
const THREE: &[&str] =
    &["docker.io/library/bye-imgmv:1", "docker.io/library/hello-imgmv:1", "docker.io/library/hello-imgmv:latest"];
/// The manifest of `hello` with gzip layers, and docker 28's own of raw ones.
const GZIP: &str = "sha256:602b22ac0877e98491067019bf894774c63bd3f2b4be96809c3c1e9a29cca06c";
const RAW: &str = "sha256:b5460fd902613226e30a3fd4108b565c8786729d7340208367cbbb74cc7bbcc1";
const CONFIG: &str = "sha256:54e28c1bb2d5d187a1e809dd97d69756369d677b2d105af1678620f9383bd14e";

/// What arrives of a file read as it is and, where it is no packed one, in place.
fn arrived(bytes: Vec<u8>) -> Vec<Kept> {
    let compression = ArchiveCompression::sniff(&bytes).unwrap();
    if compression == ArchiveCompression::Plain {
        return arrive(&bytes).map(Result::unwrap).into();
    }
    let mut tar = Vec::new();
    compression.decompress(Box::new(Cursor::new(bytes))).unwrap().read_to_end(&mut tar).unwrap();
    let sink = Kept::new(takes());
    run(streamed(tar), &sink, &Options::default()).unwrap();
    vec![sink]
}

#[test]
fn what_tools_write_is_read_in_place_and_as_it_passes() {
    for (file, names, digest) in RECORDED {
        for kept in arrived(fixture(file)) {
            let state = kept.state();
            assert_eq!(state.names.keys().collect::<Vec<_>>(), names, "{file}");
            if let Some(digest) = digest {
                assert_eq!(state.names[HELLO[0]].to_string(), digest, "{file}");
            }
            if file != "like-nix.tar.gz" {
                assert!(state.blobs.contains_key(&CONFIG.parse().unwrap()), "{file}");
            }
        }
    }
}

#[test]
fn the_old_and_the_new_form_of_docker_give_the_same_digest() {
    for file in ["hello-docker20.tar", "hello-docker20.tar.zst", "hello-docker28.tar", "hello-podman-docker.tar"] {
        for kept in arrived(fixture(file)) {
            assert_eq!(kept.state().names[HELLO[0]].to_string(), RAW, "{file}");
        }
    }
}

#[test]
fn images_without_a_name_are_found_by_digest() {
    for (file, manifest) in [
        ("untagged-docker20.tar", RAW),
        ("untagged-docker28.tar", RAW),
        ("untagged-docker28c.tar", GZIP),
        ("no-tags.tar", RAW),
        ("like-docker25-by-digest.tar", RAW),
    ] {
        let store = store(fixture(file)).unwrap();
        let roots = store.roots(&[]).unwrap();
        assert_eq!((roots.len(), &roots[0].name), (1, &None), "{file}");
        let root = store.roots(&[Selector::Digest(manifest.parse().unwrap())]).unwrap();
        assert_eq!(root[0].descriptor.digest.to_string(), manifest, "{file}");
        assert!(store.names().unwrap().is_empty());
        for kept in arrived(fixture(file)) {
            assert_eq!(kept.state().names[""].to_string(), manifest, "{file}");
        }
    }
    let store = store(fixture("no-tags.tar")).unwrap();
    assert_eq!(
        store.roots(&[Selector::Digest(CONFIG.parse().unwrap())]).unwrap()[0].descriptor.digest.to_string(),
        RAW
    );
}

#[test]
fn a_name_that_is_not_there_is_told_with_those_that_are() {
    let store = store(fixture("two-images-docker20.tar")).unwrap();
    let error = store.roots(&[Selector::Name("nothing:1".into())]).unwrap_err();
    assert_eq!(error.kind(), imgmv::Kind::NotFound);
    assert!(error.to_string().contains("docker.io/library/bye-imgmv:1"), "{error}");
    assert_eq!(store.roots(&[Selector::Name("bye-imgmv:1".into())]).unwrap().len(), 1);
}

#[test]
fn raw_layers_are_not_read_to_list_images() {
    let image = Image::new(2);
    let mut bytes = old(&image, &["app:2"]);
    let at = bytes.windows(6).position(|window| window == b"file-2").unwrap();
    bytes[at + 600] ^= 1;
    let store = store(bytes).unwrap();
    let root = &store.roots(&[]).unwrap()[0];
    assert_eq!(root.descriptor.digest, image.raw_manifest().digest());
    assert!(root.synthesised);
}

#[test]
fn names_come_from_either_list() {
    let image = Image::new(2);
    let tags = json!(["app:2"]);
    for (annotations, tags) in [
        (named(NAME, "2"), tags.clone()),
        (named(NAME, "2"), json!(null)),
        (json!({ "org.opencontainers.image.ref.name": "2" }), tags.clone()),
        (json!({ "org.opencontainers.image.ref.name": NAME }), tags.clone()),
        (json!({}), tags),
    ] {
        for kept in arrive(&both(&image, annotations.clone(), tags.clone())) {
            let kept = kept.unwrap();
            assert_eq!(kept.state().names.keys().collect::<Vec<_>>(), [NAME], "{annotations} {tags}");
        }
    }
}

#[test]
fn layers_may_be_links_to_each_other_and_come_twice() {
    let image = Image::new(2);
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, "store/one.tar", &image.raw[0]);
    add(&mut tar, "store/two.tar", &image.raw[1]);
    add(&mut tar, "./config.json", &image.config);
    for (link, target, kind) in [
        ("a/layer.tar", "../store/one.tar", tar::EntryType::Symlink),
        ("b/layer.tar", "store/two.tar", tar::EntryType::Link),
        ("c/layer.tar", "../a/layer.tar", tar::EntryType::Symlink),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        tar.append_link(&mut header, link, target).unwrap();
    }
    let layers = ["c/layer.tar", "./b/layer.tar"];
    let list = json!([{ "Config": "config.json", "RepoTags": ["app:2"], "Layers": layers }]);
    add(&mut tar, "manifest.json", list.to_string().as_bytes());
    for kept in arrive(&tar.into_inner().unwrap()) {
        assert_eq!(kept.unwrap().state().names[NAME], image.raw_manifest().digest());
    }
}

#[test]
fn long_names_and_pax_sizes_are_read() {
    let image = Image::new(2);
    let folder = "deep/".repeat(60);
    let layers: Vec<String> = image.raw.iter().map(|layer| format!("{folder}{}/layer.tar", hex(layer))).collect();
    let list = json!([{ "Config": "config.json", "RepoTags": ["app:2"], "Layers": layers }]);
    let mut gnu = tar::Builder::new(Vec::new());
    let mut pax = Vec::new();
    for (name, bytes) in layers.iter().zip(&image.raw) {
        add(&mut gnu, name, bytes);
        let size = bytes.len().to_string();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions([("path", name.as_bytes()), ("size", size.as_bytes())]).unwrap();
        // The header's own size and name are wrong, as they are in archives of more than 8 GiB.
        let mut header = tar::Header::new_ustar();
        header.set_path("short").unwrap();
        header.set_size(0);
        header.set_cksum();
        pax.extend(&builder.get_ref()[..]);
        pax.extend(header.as_bytes());
        pax.extend(bytes);
        pax.resize(pax.len().next_multiple_of(512), 0);
    }
    let mut rest = tar::Builder::new(Vec::new());
    for tar in [&mut gnu, &mut rest] {
        add(tar, "config.json", &image.config);
        add(tar, "manifest.json", list.to_string().as_bytes());
    }
    pax.extend(rest.into_inner().unwrap());
    for bytes in [gnu.into_inner().unwrap(), pax] {
        for kept in arrive(&bytes) {
            assert_eq!(kept.unwrap().state().names[NAME], image.raw_manifest().digest());
        }
    }
}

#[test]
fn digests_are_known_of_layouts_only() {
    for (file, known) in [
        ("hello-docker20.tar", false),
        ("hello-podman-docker.tar", false),
        ("hello-crane.tar", false),
        ("like-rules-oci.tar", false),
        ("hello-docker28.tar", true),
        ("hello-ctr16.tar", true),
        ("hello-skopeo-oci.tar", true),
        ("both-forms.tar", true),
    ] {
        let mut stream = stream(fixture(file));
        assert_eq!(stream.digests_known().unwrap(), known, "{file}");
        let claim = stream.next_blob().unwrap().unwrap().claim;
        assert_eq!((claim.digest.is_some(), claim.size.is_some()), (known, true), "{file}");
    }
}

#[test]
fn layers_left_unread_are_still_known_at_the_end() {
    let image = Image::new(2);
    let mut files = image.old_files();
    files.push(saved(json!([image.saved(&["app:2"])])));
    let mut stream = stream(tar(&files));
    let mut count = 0;
    while let Some(mut blob) = stream.next_blob().unwrap() {
        blob.bytes.read_exact(&mut [0; 100]).unwrap();
        count += 1;
    }
    let tail = stream.finish().unwrap();
    assert_eq!((count, tail.roots[0].descriptor.digest), (2, image.raw_manifest().digest()));
    assert_eq!(tail.documents[&Digest::of(&image.config)], image.config);
}

#[test]
fn a_blob_is_read_from_any_offset() {
    let image = Image::new(2);
    let store = store(both(&image, named(NAME, "2"), json!(["app:2"]))).unwrap();
    let manifest = image.gzip_manifest();
    let layer = &manifest.layers()[1];
    let mut rest = Vec::new();
    store.open(layer, 100).unwrap().read_to_end(&mut rest).unwrap();
    assert!(rest == image.gzip[1][100..]);
    assert!(store.open(layer, layer.size + 1).is_err());
    assert_eq!(store.find(&layer.digest).unwrap().unwrap().size, layer.size);
    assert!(store.find(&Digest::of(b"nothing")).unwrap().is_none());
}

#[test]
fn signatures_are_found_by_what_they_are_about() {
    let image = Image::new(2);
    let subject = image.gzip_manifest().descriptor;
    let about = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "artifactType": "application/vnd.example.signature", "subject": subject,
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::of(b"{}"), "size": 2 }, "layers": [] });
    let about = about.to_string().into_bytes();
    let mut files = image.oci_files();
    let entry = json!({ "mediaType": media_type::OCI_MANIFEST, "digest": Digest::of(&about), "size": about.len() });
    files.extend([index(json!([image.entry(named(NAME, "2")), entry])), layout_file(), (blob(b"{}"), b"{}".to_vec())]);
    files.push((blob(&about), about.clone()));
    let store = store(tar(&files)).unwrap();
    let found = store.referrers(&subject.digest).unwrap();
    assert_eq!(found.entries.iter().map(|entry| entry.digest).collect::<Vec<_>>(), [Digest::of(&about)]);
    assert!(store.referrers(&Digest::of(b"other")).unwrap().entries.is_empty());
}

#[test]
fn files_are_sniffed_whatever_they_are_called() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| Input::File(folder.path().join(name));
    let open = |name: &str| open(&at(name), std::sync::Arc::new(imgmv::Silent));
    std::fs::write(folder.path().join("a.tar.gz"), old(&Image::new(2), &["app:2"])).unwrap();
    std::fs::write(folder.path().join("b.tar"), gzip(&old(&Image::new(2), &["app:2"]))).unwrap();
    std::fs::File::create(folder.path().join("c.tar")).unwrap().write_all(b"no archive at all").unwrap();
    std::fs::write(folder.path().join("empty.tar"), b"").unwrap();
    assert!(matches!(open("a.tar.gz").unwrap(), imgmv::Source::Store(_)));
    assert!(matches!(open("b.tar").unwrap(), imgmv::Source::Stream(_)));
    for (name, words) in [
        ("c.tar", "c.tar is not an archive: expected a tar"),
        ("empty.tar", "is empty"),
        ("none.tar", "none.tar"),
        ("", "oci:"),
    ] {
        let Err(error) = open(name) else { panic!("{name} was taken") };
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn docker_before_1_10_is_told_by_name() {
    let bytes = tar(&[("repositories".into(), br#"{"app":{"2":"ab"}}"#.to_vec())]);
    for error in refused(&bytes) {
        assert!(error.to_string().contains("docker 1.10"), "{error}");
    }
}
