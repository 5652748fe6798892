//! Layouts and archives that have not all that belongs to an image. The image is copied, a sentence names what is not,
//! `--require-referrers` fails, and `verify` names the image that it belongs to.

use crate::signed::{SBOM, SIGNATURE, Signed, assert_all, referrer};
use crate::support::registry::Double;
use imgmv::{Descriptor, Digest};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;

/// Copies from `source`: the image arrives with `count` manifests, and `said` is said; with a required type it fails.
fn copied_without(signed: &Signed, source: &str, said: &[String], count: usize) {
    let to = Double::start();
    let target = format!("docker://{}/app:1", to.host());
    let output = signed.done(&["copy", source, &target]);
    assert!(output.contains("not all that belongs to the image is copied"), "{source}: {output}");
    assert!(said.iter().all(|part| output.contains(part)), "{source}: expected {said:?}: {output}");
    assert_eq!(signed.manifests_in(&to), count, "{source}");
    let required = signed.world.run(&["copy", "--require-referrers", "sbom", source, &target]);
    assert_eq!(required.status.code(), Some(3), "{source}: {}", required.stderr);
    assert!(said.iter().all(|part| required.stderr.contains(part)), "{source}: {}", required.stderr);
}

/// The layout `l` as an archive of another tool, without the files `missing`.
fn foreign_archive(signed: &Signed, to: &str, missing: &[Digest]) {
    let mut tar = tar::Builder::new(fs::File::create(signed.world.path(to)).unwrap());
    let missing: Vec<String> = missing.iter().map(Digest::blob_path).collect();
    let root = signed.world.path("l");
    let files = walkdir::WalkDir::new(&root).sort_by_file_name().into_iter().flatten();
    for file in files.filter(|entry| entry.file_type().is_file()) {
        let name = file.path().strip_prefix(&root).unwrap();
        if !missing.iter().any(|path| name.to_str() == Some(path)) {
            tar.append_path_with_name(file.path(), name).unwrap();
        }
    }
    tar.finish().unwrap();
}

fn gzip(signed: &Signed, from: &str, to: &str) {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(&fs::read(signed.world.path(from)).unwrap()).unwrap();
    fs::write(signed.world.path(to), out.finish().unwrap()).unwrap();
}

/// The archive `from` without the file `name`.
fn without(signed: &Signed, from: &str, name: &str, to: &str) {
    let mut archive = tar::Archive::new(fs::File::open(signed.world.path(from)).unwrap());
    let mut out = tar::Builder::new(fs::File::create(signed.world.path(to)).unwrap());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header().clone();
        if entry.path().unwrap().to_str() != Some(name) {
            out.append(&header, &mut entry).unwrap();
        }
    }
    out.finish().unwrap();
}

/// The layer of the manifest `of` in the layout.
fn layer(signed: &Signed, of: &Descriptor) -> Digest {
    signed.world.parsed("l", &of.digest)["layers"][0]["digest"].as_str().unwrap().parse().unwrap()
}

fn blob_file(signed: &Signed, digest: &Digest) -> std::path::PathBuf {
    signed.world.path("l").join(digest.blob_path())
}

#[test]
fn a_damaged_or_missing_manifest_of_a_layout_may_be_a_referrer() {
    for (damage, told) in [(Some(&b"{}"[..]), "cannot be read"), (None, "is listed and missing")] {
        let signed = Signed::new();
        let file = blob_file(&signed, &signed.signature.digest);
        match damage {
            Some(bytes) => fs::write(&file, bytes).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let said = [signed.signature.digest.to_string(), told.to_owned()];
        copied_without(&signed, "oci:DIR/l:1", &said, 6);
    }
}

#[test]
fn a_layout_with_too_many_manifests_says_so() {
    let mut signed = Signed::new();
    let absent = |nth: u32| Descriptor::of("application/vnd.oci.image.manifest.v1+json", &nth.to_le_bytes());
    let children: Vec<Descriptor> = (0..20_001).map(absent).collect();
    let index = signed.world.index(&children, json!({}));
    signed.world.name("large", &index);
    // What `index.json` lists after the large index is read; of the entries before it, one is cut off.
    copied_without(&signed, "oci:DIR/l:1", &["more than 20000 manifests".to_owned()], 6);
}

#[test]
fn a_referrer_without_its_blob_is_left_out_and_the_image_is_copied() {
    let signed = Signed::new();
    let gone = layer(&signed, &signed.signature);
    foreign_archive(&signed, "foreign.tar", &[gone]);
    signed.done(&["save", "oci:DIR/l:1", "-o", "DIR/whole.tar"]);
    without(&signed, "whole.tar", &gone.blob_path(), "own.tar");
    for archive in ["foreign", "own"] {
        gzip(&signed, &format!("{archive}.tar"), &format!("{archive}.tar.gz"));
    }
    fs::remove_file(blob_file(&signed, &gone)).unwrap();
    let said = [signed.signature.digest.to_string(), gone.to_string(), "is missing".to_owned()];
    for place in [
        "oci:DIR/l:1",
        "DIR/own.tar",
        "DIR/own.tar.gz",
        "oci-archive:DIR/foreign.tar:1",
        "oci-archive:DIR/foreign.tar.gz:1",
    ] {
        copied_without(&signed, place, &said, 6);
    }
}

#[test]
fn a_referrer_of_which_the_blob_has_another_size_is_left_out() {
    let signed = Signed::new();
    let cut = layer(&signed, &signed.signature);
    fs::write(blob_file(&signed, &cut), b"sig").unwrap();
    let said = [signed.signature.digest.to_string(), "has 3 bytes, expected 9".to_owned()];
    copied_without(&signed, "oci:DIR/l:1", &said, 6);
}

#[test]
fn a_referrer_that_an_archive_lists_and_does_not_have_is_named() {
    let signed = Signed::new();
    signed.done(&["save", "oci:DIR/l:1", "-o", "DIR/whole.tar"]);
    without(&signed, "whole.tar", &signed.sbom_signature.digest.blob_path(), "own.tar");
    gzip(&signed, "own.tar", "own.tar.gz");
    let said = [format!("referrer {} cannot be read", signed.sbom_signature.digest)];
    for place in ["DIR/own.tar", "DIR/own.tar.gz"] {
        copied_without(&signed, place, &said, 6);
    }
}

/// The list itself is gone: the images are still readable.
#[test]
fn an_archive_whose_list_is_missing_is_readable() {
    let signed = Signed::new();
    signed.done(&["save", "oci:DIR/l:1", "-o", "DIR/whole.tar"]);
    let mut archive = tar::Archive::new(fs::File::open(signed.world.path("whole.tar")).unwrap());
    let index = archive.entries().unwrap().flatten().find(|entry| entry.path().unwrap().to_str() == Some("index.json"));
    let index: Value = serde_json::from_reader(index.unwrap()).unwrap();
    let list: Digest = index["annotations"]["imgmv.referrers"].as_str().unwrap().parse().unwrap();
    without(&signed, "whole.tar", &list.blob_path(), "own.tar");
    copied_without(&signed, "DIR/own.tar", &[format!("{list}\", which is not in the archive")], 3);
}

/// A registry reports only when a blob is read that it does not have it, or that it has other bytes.
#[test]
fn a_referrer_whose_blob_a_registry_cannot_give_is_left_out() {
    let signed = Signed::new();
    let gone = layer(&signed, &signed.signature);
    for (bytes, told) in [(None, "unknown"), (Some(&b"otherbyte"[..]), "does not match"), (Some(b"sig"), "9")] {
        let from = Double::start();
        let source = signed.push(&from);
        match bytes {
            Some(bytes) => from.put_blob_at("app", gone, bytes),
            None => from.lose_blob("app", &gone),
        }
        let said = [format!("referrer {} is not complete", signed.signature.digest), told.to_owned()];
        copied_without(&signed, &source, &said, 6);
        for archive in ["out.tar", "out.tar.gz"] {
            let output = signed.done(&["copy", &source, &format!("DIR/{archive}")]);
            assert!(said.iter().all(|part| output.contains(part)), "{archive}: {output}");
            signed.done(&["verify", &format!("DIR/{archive}")]);
            let to = Double::start();
            signed.done(&["copy", &format!("DIR/{archive}"), &format!("docker://{}/app:1", to.host())]);
            assert_eq!(signed.manifests_in(&to), 6, "{archive}");
            fs::remove_file(signed.world.path(archive)).unwrap();
        }
    }
}

/// What belongs to a referrer that is left out is left out too, and a blob of the image itself is never left out.
#[test]
fn only_what_belongs_to_the_image_is_left_out() {
    let signed = Signed::new();
    let from = Double::start();
    let source = signed.push(&from);
    from.lose_blob("app", &layer(&signed, &signed.sbom));
    copied_without(&signed, &source, &[signed.sbom.digest.to_string()], 5);
    from.lose_blob("app", &layer(&signed, &signed.arm64));
    let to = Double::start();
    let failed = signed.world.run(&["copy", &source, &format!("docker://{}/app:1", to.host())]);
    assert_eq!(failed.status.code(), Some(3), "{}", failed.stderr);
    assert_eq!(to.tag("app", "1"), None);
}

/// What other tools list in `index.json` belongs to the image in every form of the archive.
#[test]
fn a_foreign_archive_has_its_referrers_and_cosigns_tags_in_every_form() {
    let signed = Signed::new();
    foreign_archive(&signed, "foreign.tar", &[]);
    gzip(&signed, "foreign.tar", "foreign.tar.gz");
    for (place, stdin) in [
        ("oci-archive:DIR/foreign.tar:1", None),
        ("oci-archive:DIR/foreign.tar", None),
        ("oci-archive:DIR/foreign.tar.gz:1", None),
        ("DIR/foreign.tar.gz", None),
        ("-", Some("foreign.tar")),
        ("-", Some("foreign.tar.gz")),
    ] {
        let to = Double::start();
        let target = format!("docker://{}/app:1", to.host());
        let stdin = stdin.map(|name| signed.world.path(name));
        let output = signed.world.run_with(&["copy", place, &target], stdin.as_deref());
        assert!(output.status.success(), "{place}: {}", output.stderr);
        assert_all(&to, &signed);
    }
}

/// Each SBOM is a JSON document, and together they are larger than what is stored of a stream.
#[test]
fn many_sboms_do_not_make_a_compressed_archive_unreadable() {
    let mut signed = Signed::new();
    let image = signed.image.clone();
    let sboms: Vec<Descriptor> = (0..500)
        .map(|nth| {
            let text = json!({ "spdxVersion": "SPDX-2.3", "packages": [nth], "comment": "x".repeat(70_000) });
            referrer(&mut signed.world, SBOM, &image, text.to_string().as_bytes())
        })
        .collect();
    signed.done(&["save", "oci:DIR/l:1", "-o", "DIR/large.tar.gz"]);
    signed.done(&["verify", "DIR/large.tar.gz"]);
    signed.done(&["copy", "DIR/large.tar.gz", "oci:DIR/back:1"]);
    assert!(sboms.iter().all(|sbom| signed.world.read("back", &sbom.digest).is_some()));
    assert!(sboms.iter().all(|sbom| signed.world.read("back", &layer(&signed, sbom)).is_some()));
}

/// Two images, one of which lost a referrer: `verify` names that referrer and only that image.
#[test]
fn verify_marks_only_the_image_that_lost_its_referrer() {
    let mut signed = Signed::new();
    let other = signed.world.image("linux/amd64", b"another image");
    signed.world.name("2", &other);
    let lost = referrer(&mut signed.world, SIGNATURE, &other, b"a signature of the other image");
    signed.done(&["copy", "oci:DIR/l", "DIR/whole.tar"]);
    signed.done(&["verify", "DIR/whole.tar"]);
    let blob = layer(&signed, &lost);
    for (nth, missing) in [lost.digest, blob].into_iter().enumerate() {
        let name = format!("own{nth}.tar");
        without(&signed, "whole.tar", &missing.blob_path(), &name);
        gzip(&signed, &name, &format!("{name}.gz"));
        for archive in [format!("DIR/{name}"), format!("DIR/{name}.gz")] {
            let out = signed.world.run(&["verify", "--json", &archive]);
            assert_eq!(out.status.code(), Some(5), "{}", out.stderr);
            let report: Value = serde_json::from_str(&out.stdout).unwrap();
            let images = report["images"].as_array().unwrap();
            let broken: Vec<&Value> = images.iter().filter(|image| image["ok"] == false).collect();
            assert_eq!((images.len(), broken.len()), (2, 1), "{report}");
            assert_eq!(broken[0]["digest"], other.digest.to_string());
            assert_eq!(broken[0]["broken"].as_array().unwrap().len(), 1, "{report}");
            assert!(out.stderr.contains(&missing.to_string()), "{}", out.stderr);
        }
    }
}

/// An archive of one platform keeps the original index: `inspect`, `verify` and `list --referrers` work on that.
#[test]
fn the_original_index_of_an_archive_is_what_is_inspected_and_verified() {
    let signed = Signed::new();
    signed.done(&["save", "--platform", "linux/arm64", "oci:DIR/l:1", "-o", "DIR/arm.tar"]);
    let stdout = |args: &[&str]| {
        let out = signed.world.run(args);
        assert!(out.status.success(), "{args:?}: {}", out.stderr);
        serde_json::from_str::<Value>(&out.stdout).unwrap()["images"][0].take()
    };
    let inspected = stdout(&["inspect", "--json", "DIR/arm.tar"]);
    assert_eq!(inspected["digest"], signed.image.digest.to_string());
    assert_eq!(inspected["referrers"].as_array().unwrap().len(), 2, "{inspected}");
    let verified = stdout(&["verify", "--json", "DIR/arm.tar"]);
    assert_eq!((&verified["ok"], &verified["referrers"]), (&json!(true), &json!(2)), "{verified}");
    let listed = stdout(&["list", "--referrers", "--json", "DIR/arm.tar"]);
    let listed = listed["referrers"].as_array().unwrap();
    let digests: Vec<&str> = listed.iter().map(|node| node["digest"].as_str().unwrap()).collect();
    assert_eq!(digests, [signed.signature.digest.to_string(), signed.cosign.digest.to_string()]);
}

/// The destination was signed by another key: its signatures stay under the tag, and a sentence names both.
#[test]
fn layouts_and_trees_keep_the_signatures_that_the_source_does_not_have() {
    for place in ["oci:DIR/to:1", "registry-dir:DIR/tree:app:1"] {
        let mut signed = Signed::new();
        signed.done(&["copy", "oci:DIR/l:1", place]);
        let config = signed.world.config("linux/amd64", &[]);
        let payload = signed.world.blob("application/vnd.dev.cosign.simplesigning.v1+json", b"another payload");
        let other = signed.world.manifest(&config, &[payload], json!({}));
        let index = signed.world.path("l/index.json");
        let mut listed: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
        for entry in listed["manifests"].as_array_mut().unwrap() {
            if entry["digest"] == signed.cosign.digest.to_string() {
                (entry["digest"], entry["size"]) = (json!(other.digest), json!(other.size));
            }
        }
        fs::write(&index, listed.to_string()).unwrap();
        let said = signed.done(&["copy", "oci:DIR/l:1", place]);
        assert!([&signed.cosign, &other].iter().all(|one| said.contains(&one.digest.to_string())), "{place}: {said}");
        let to = Double::start();
        signed.done(&["copy", place, &format!("docker://{}/app:1", to.host())]);
        assert_all(&to, &signed);
    }
}
