//! One platform of an index: the index stays as it is where the destination takes it.

use crate::signed::{SBOM, Signed, referrer, sig_tag};
use crate::support::registry::{Double, Stumble};
use serde_json::{Value, json};
use std::fs;
use std::io::Read;

pub const ARM64: [&str; 2] = ["--platform", "linux/arm64"];

pub fn tolerant() -> Double {
    let registry = Double::start();
    registry.faults().takes_sparse = true;
    registry
}

pub fn copy(signed: &Signed, options: &[&str], from: &str, to: &Double) -> String {
    let to = format!("docker://{}/app:1", to.host());
    signed.done(&[&["copy"], options, &[from, &to]].concat())
}

/// The digest of the image at `place`.
pub fn digest(signed: &Signed, place: &str) -> String {
    let output = signed.world.run(&["digest", place]);
    assert!(output.status.success(), "{place}: {}", output.stderr);
    output.stdout.trim().to_owned()
}

#[test]
fn a_registry_gets_the_original_index_with_the_chosen_platform() {
    let signed = Signed::new();
    let to = tolerant();
    copy(&signed, &ARM64, "oci:DIR/l:1", &to);
    let (manifests, tags) = to.contents("app");
    assert_eq!(tags.get("1"), Some(&signed.image.digest));
    assert!(manifests.contains_key(&signed.arm64.digest) && !manifests.contains_key(&signed.amd64.digest));
    assert!(manifests.contains_key(&signed.signature.digest) && tags.contains_key(&sig_tag(&signed.image)));

    to.forget_requests();
    copy(&signed, &ARM64, "oci:DIR/l:1", &to);
    assert_eq!((to.count("PUT", ""), to.count("POST", "")), (0, 0), "nothing changed");

    // The tag points at the right digest already, but a platform is missing.
    copy(&signed, &[], "oci:DIR/l:1", &to);
    assert!(to.contents("app").0.contains_key(&signed.amd64.digest));
}

#[test]
fn a_sparse_registry_is_a_source() {
    let signed = Signed::new();
    let from = tolerant();
    copy(&signed, &ARM64, "oci:DIR/l:1", &from);
    let to = tolerant();
    let said = copy(&signed, &[], &format!("docker://{}/app:1", from.host()), &to);
    assert!(said.contains("the source has only linux/arm64"), "{said}");
    assert_eq!(to.tag("app", "1"), Some(signed.image.digest));
    let all =
        signed.world.run(&["copy", "--all-platforms", &format!("docker://{}/app:1", from.host()), "oci:DIR/all:1"]);
    assert_eq!(all.status.code(), Some(3), "{}", all.stderr);
}

#[test]
fn a_registry_that_refuses_missing_children_gets_a_smaller_index() {
    let signed = Signed::new();
    let to = Double::start();
    let said = copy(&signed, &ARM64, "oci:DIR/l:1", &to);
    let (manifests, tags) = to.contents("app");
    assert_eq!(tags.get("1"), Some(&signed.arm64.digest));
    assert!(!manifests.contains_key(&signed.image.digest) && !manifests.contains_key(&signed.signature.digest));
    for digest in [signed.image.digest, signed.arm64.digest] {
        assert!(said.contains(&digest.to_string()), "{said}");
    }
    assert!(said.contains("referrers") && said.contains("are not copied"), "{said}");
}

#[test]
fn narrow_gives_the_platforms_own_manifest() {
    let signed = Signed::new();
    let to = tolerant();
    copy(&signed, &["--platform", "linux/arm64", "--sparse", "narrow"], "oci:DIR/l:1", &to);
    assert_eq!(to.tag("app", "1"), Some(signed.arm64.digest));
}

#[test]
fn a_layout_keeps_the_original_index() {
    let signed = Signed::new();
    signed.done(&["copy", "--platform", "linux/arm64", "oci:DIR/l:1", "oci:DIR/arm:1"]);
    let digest = signed.world.run(&["digest", "oci:DIR/arm:1"]);
    assert_eq!(digest.stdout.trim(), signed.image.digest.to_string());
    assert!(signed.world.read("arm", &signed.amd64.digest).is_none());
}

/// What an engine loads is the chosen platform; what a registry gets from the archive is the original.
#[test]
fn an_archive_keeps_the_original_index_beside_the_image() {
    let signed = Signed::new();
    signed.done(&["save", "--platform", "linux/arm64", "oci:DIR/l:1", "-o", "DIR/a.tar"]);
    let digest = signed.world.run(&["digest", "DIR/a.tar"]);
    assert_eq!(digest.stdout.trim(), signed.arm64.digest.to_string());
    signed.done(&["copy", "DIR/a.tar", "DIR/b.tar"]);
    for archive in ["a.tar", "b.tar"] {
        let to = tolerant();
        copy(&signed, &[], &format!("DIR/{archive}"), &to);
        let (manifests, tags) = to.contents("app");
        assert_eq!(tags.get("1"), Some(&signed.image.digest), "{archive}");
        assert!(manifests.contains_key(&signed.signature.digest) && tags.contains_key(&sig_tag(&signed.image)));
        let piped = tolerant();
        let target = format!("docker://{}/app:1", piped.host());
        let output = signed.world.run_with(&["copy", "-", &target], Some(&signed.world.path(archive)));
        assert!(output.status.success(), "{}", output.stderr);
        assert_eq!(piped.tag("app", "1"), Some(signed.image.digest), "{archive}");
    }
    signed.done(&["copy", "DIR/a.tar", "oci:DIR/back:1"]);
    let digest = signed.world.run(&["digest", "oci:DIR/back:1"]);
    assert_eq!(digest.stdout.trim(), signed.image.digest.to_string());
}

/// BuildKit's attestation of the chosen platform, an entry of the index, is below the original index everywhere.
#[test]
fn an_archive_keeps_the_attestation_of_the_chosen_platform() {
    let mut signed = Signed::new();
    let mut attested = Vec::new();
    for image in [&signed.amd64, &signed.arm64] {
        let text = format!("{{\"predicateType\":\"of {}\"}}", image.digest);
        let statement = signed.world.blob("application/vnd.in-toto+json", text.as_bytes());
        let config = signed.world.config("unknown/unknown", &[statement.digest]);
        let manifest = signed.world.manifest(&config, std::slice::from_ref(&statement), json!({}));
        let mut entry = imgmv::Descriptor { platform: Some("unknown/unknown".parse().unwrap()), ..manifest };
        entry.annotate("vnd.docker.reference.digest", &image.digest.to_string());
        entry.annotate("vnd.docker.reference.type", "attestation-manifest");
        attested.push((entry, statement));
    }
    let entries = [signed.amd64.clone(), signed.arm64.clone(), attested[0].0.clone(), attested[1].0.clone()];
    let image = signed.world.index(&entries, json!({}));
    signed.world.name("2", &image);
    signed.done(&["save", "--platform", "linux/arm64", "oci:DIR/l:2", "-o", "DIR/a.tar"]);
    signed.done(&["verify", "DIR/a.tar"]);
    let digest = signed.world.run(&["digest", "DIR/a.tar"]);
    assert_eq!(digest.stdout.trim(), signed.arm64.digest.to_string());
    let listed = signed.world.run(&["list", "--json", "DIR/a.tar"]);
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    assert_eq!(listed["images"].as_array().unwrap().len(), 1, "{listed}");
    signed.done(&["copy", "DIR/a.tar", "DIR/b.tar"]);
    signed.done(&["copy", "DIR/a.tar", "DIR/c.tar.gz"]);
    for (archive, stdin) in [("DIR/a.tar", None), ("DIR/b.tar", None), ("DIR/c.tar.gz", None), ("-", Some("b.tar"))] {
        let to = tolerant();
        let stdin = stdin.map(|name| signed.world.path(name));
        let args = ["copy", archive, &format!("docker://{}/app:2", to.host())];
        let output = signed.world.run_with(&args, stdin.as_deref());
        assert!(output.status.success(), "{archive}: {}", output.stderr);
        let (contents, tags) = to.contents("app");
        assert_eq!(tags.get("2"), Some(&image.digest), "{archive}");
        for (at, (manifest, statement)) in attested.iter().enumerate() {
            let has = [manifest, statement].map(|one| contents.contains_key(&one.digest));
            assert_eq!(has, [at == 1; 2], "{archive}: attestation {at}");
        }
    }
    // A converted image has another digest than the one that was attested.
    signed.done(&["copy", "--format", "docker", "--platform", "linux/arm64", "oci:DIR/l:2", "DIR/d.tar"]);
    signed.done(&["copy", "DIR/d.tar", "oci:DIR/converted:2"]);
    assert!(signed.world.read("converted", &attested[1].0.digest).is_none());
}

#[test]
fn a_chosen_manifest_is_fetched_once() {
    let signed = Signed::new();
    let from = Double::start();
    let source = signed.push(&from);
    for options in
        [&ARM64[..], &["--platform", "linux/arm64", "--no-referrers"], &["--platform", "linux/arm64,linux/amd64"]]
    {
        from.forget_requests();
        copy(&signed, options, &source, &tolerant());
        let fetched = from.count("GET", &format!("/manifests/{}", signed.arm64.digest));
        assert_eq!(fetched, 1, "{options:?}");
    }
}

/// Two indexes share the image of the chosen platform, which also has a name: each name keeps its digest.
#[test]
fn images_that_share_a_platform_keep_their_own_indexes() {
    let mut signed = Signed::new();
    let amd64 = signed.world.image("linux/amd64", b"three");
    let (two, arm64) = (signed.world.index(&[amd64, signed.arm64.clone()], json!({})), signed.arm64.clone());
    signed.world.name("2", &two);
    signed.world.name("3", &arm64);
    signed.done(&["save", "--platform", "linux/arm64", "oci:DIR/l", "-o", "DIR/a.tar"]);
    signed.done(&["copy", "DIR/a.tar", "DIR/b.tar"]);
    signed.done(&["copy", "DIR/b.tar", "oci:DIR/back"]);
    let archive = signed.world.path("b.tar");
    let piped = signed.world.run_with(&["copy", "-", "oci:DIR/piped"], Some(&archive));
    assert!(piped.status.success(), "{}", piped.stderr);
    for layout in ["back", "piped"] {
        for (tag, digest) in [("1", signed.image.digest), ("2", two.digest), ("3", arm64.digest)] {
            let found = signed.world.run(&["digest", &format!("oci:DIR/{layout}:{tag}")]);
            assert_eq!(found.stdout.trim(), digest.to_string(), "{layout}:{tag}");
        }
    }
    let listed = signed.world.run(&["list", "--json", "DIR/a.tar"]);
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    assert_eq!(listed["images"].as_array().unwrap().len(), 3, "what belongs to another platform is an image: {listed}");
    // What an engine loads is the platform itself, under each name.
    for tag in ["1", "2", "3"] {
        let found = signed.world.run(&["digest", &format!("oci-archive:DIR/a.tar:{tag}")]);
        assert_eq!(found.stdout.trim(), arm64.digest.to_string(), "{tag}: {}", found.stderr);
    }
}

/// The archive `from` without `manifest.json`, and with `change` made to its `index.json`, as `to`.
fn with_index(signed: &Signed, from: &str, to: &str, change: impl Fn(&mut Value)) {
    let mut builder = tar::Builder::new(Vec::new());
    let tar = fs::read(signed.world.path(from)).unwrap();
    for entry in tar::Archive::new(&tar[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let (name, mut bytes) = (entry.path().unwrap().display().to_string(), Vec::new());
        entry.read_to_end(&mut bytes).unwrap();
        match &*name {
            "manifest.json" => continue,
            "index.json" => {
                let mut index: Value = serde_json::from_slice(&bytes).unwrap();
                change(&mut index);
                bytes = index.to_string().into_bytes();
            }
            _ => {}
        }
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    fs::write(signed.world.path(to), builder.into_inner().unwrap()).unwrap();
}

#[test]
fn an_archive_without_the_index_that_it_names_is_told() {
    let signed = Signed::new();
    signed.done(&["save", "--platform", "linux/arm64", "oci:DIR/l:1", "-o", "DIR/a.tar"]);
    let absent = imgmv::Digest::of(b"absent").to_string();
    with_index(&signed, "a.tar", "b.tar", |index| {
        index["manifests"][0]["annotations"]["imgmv.original"] = absent.clone().into();
    });
    let expected = format!("names {absent} as the index that it is a part of");
    let verified = signed.world.run(&["verify", "DIR/b.tar"]);
    assert!(
        !verified.status.success() && verified.stderr.contains(&expected),
        "{}{}",
        verified.stdout,
        verified.stderr
    );
    let said = signed.done(&["copy", "DIR/b.tar", "oci:DIR/back:1"]);
    assert!(said.contains(&expected), "{said}");
    assert_eq!(digest(&signed, "oci:DIR/back:1"), signed.arm64.digest.to_string());
}

/// An archive that says of an image that it is a part of an index which does not list it.
#[test]
fn an_index_that_does_not_list_the_image_is_not_its_original() {
    let mut signed = Signed::new();
    let other = signed.world.image("linux/arm64", b"other");
    signed.world.name("2", &other);
    signed.done(&["save", "--platform", "linux/arm64", "oci:DIR/l", "-o", "DIR/a.tar"]);
    // Both names now have the entry that names the index.
    with_index(&signed, "a.tar", "altered.tar", |index| {
        let entries = index["manifests"].as_array_mut().unwrap();
        assert_eq!(entries.len(), 2);
        let original = entries.iter().find_map(|entry| entry["annotations"].get("imgmv.original").cloned());
        for entry in entries {
            entry["annotations"]["imgmv.original"] = original.clone().expect("one of them names its index");
        }
    });
    signed.done(&["copy", "DIR/altered.tar", "oci:DIR/back"]);
    for (tag, digest) in [("1", signed.image.digest), ("2", other.digest)] {
        let found = signed.world.run(&["digest", &format!("oci:DIR/back:{tag}")]);
        assert_eq!(found.stdout.trim(), digest.to_string(), "{tag}");
    }
}

/// Other refusals are told in the registry's own words.
#[test]
fn a_refusal_for_another_reason_is_not_called_a_missing_child() {
    let signed = Signed::new();
    let to = tolerant();
    let path: &'static str = format!("/manifests/{}", signed.image.digest).leak();
    let body = r#"{"errors":[{"code":"MANIFEST_INVALID","message":"the index is too odd"}]}"#.to_owned();
    to.faults().stumbles.push(Stumble { body, ..Stumble::new("PUT", path, 400, 1) });
    let said = copy(&signed, &ARM64, "oci:DIR/l:1", &to);
    assert!(said.contains("the index is too odd") && said.contains("is stored instead"), "{said}");
    assert!(!said.contains("children of it are missing"), "{said}");
    assert_eq!(to.tag("app", "1"), Some(signed.arm64.digest));
}

/// By the code, whatever the status is.
#[test]
fn a_missing_child_is_known_by_its_code() {
    let signed = Signed::new();
    for (status, code) in [(400, "MANIFEST_BLOB_UNKNOWN"), (422, "MANIFEST_UNKNOWN"), (404, "")] {
        let to = tolerant();
        let path: &'static str = format!("/manifests/{}", signed.image.digest).leak();
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"what is that"}}]}}"#);
        to.faults().stumbles.push(Stumble { body, ..Stumble::new("PUT", path, status, 1) });
        let said = copy(&signed, &ARM64, "oci:DIR/l:1", &to);
        assert!(said.contains("children of it are missing there"), "{status}: {said}");
    }
}

/// The index that is listed is that of the chosen platform; the index that it is a part of counts for a registry.
#[test]
fn a_platform_chosen_again_from_a_sparse_archive_keeps_the_original_index() {
    let signed = Signed::new();
    signed.done(&["save", "--platform", "linux/arm64", "oci:DIR/l:1", "-o", "DIR/a.tar"]);
    signed.done(&["copy", "--platform", "linux/arm64", "DIR/a.tar", "DIR/b.tar"]);
    for archive in ["DIR/a.tar", "DIR/b.tar"] {
        let to = tolerant();
        let required = ["--platform", "linux/arm64", "--require-referrers", "signature"];
        copy(&signed, &required, archive, &to);
        let (manifests, tags) = to.contents("app");
        assert_eq!(tags.get("1"), Some(&signed.image.digest), "{archive}");
        assert!(manifests.contains_key(&signed.signature.digest) && tags.contains_key(&sig_tag(&signed.image)));
        signed.done(&["copy", "--platform", "linux/arm64", archive, "oci:DIR/back:1"]);
        assert_eq!(digest(&signed, "oci:DIR/back:1"), signed.image.digest.to_string(), "{archive}");
    }
    let absent = signed.world.run(&["copy", "--platform", "linux/amd64", "DIR/a.tar", "oci:DIR/absent:1"]);
    assert_eq!(absent.status.code(), Some(3), "{}", absent.stderr);
    assert!(absent.stderr.contains("the source has only linux/arm64"), "{}", absent.stderr);
    let narrow = ["copy", "--platform", "linux/arm64", "--sparse", "narrow", "DIR/a.tar", "oci:DIR/narrow:1"];
    signed.done(&narrow);
    assert_eq!(digest(&signed, "oci:DIR/narrow:1"), signed.arm64.digest.to_string());
}

/// An archive of some platforms says as a layout of them that parts are missing.
#[test]
fn missing_parts_of_an_archive_are_an_error_where_those_of_a_layout_are() {
    let mut signed = Signed::new();
    let third = signed.world.image("linux/ppc64le", b"three");
    let image = signed.world.index(&[signed.amd64.clone(), signed.arm64.clone(), third], json!({}));
    signed.world.name("3", &image);
    let two = ["--platform", "linux/amd64,linux/arm64", "oci:DIR/l:3"];
    signed.done(&[&["save"], &two[..], &["-o", "DIR/two.tar"]].concat());
    signed.done(&[&["copy"], &two[..], &["oci:DIR/two:3"]].concat());
    for source in ["DIR/two.tar", "oci:DIR/two:3"] {
        for to in ["oci:DIR/out:3", "DIR/out.tar"] {
            for options in [&["--all-platforms"][..], &["--sparse", "fail"]] {
                let output = signed.world.run(&[&["copy"], options, &[source, to]].concat());
                assert_eq!(output.status.code(), Some(3), "{options:?} {source} {to}: {}", output.stderr);
                assert!(output.stderr.contains("missing: linux/ppc64le"), "{}", output.stderr);
            }
        }
    }
    signed.done(&["copy", "--sparse", "keep", "DIR/two.tar", "oci-archive:DIR/kept.tar:3"]);
    assert_eq!(digest(&signed, "DIR/kept.tar"), image.digest.to_string());
}

#[test]
fn a_compressed_sparse_archive_is_inspected_like_a_plain_one() {
    let signed = Signed::new();
    for archive in ["DIR/a.tar", "DIR/a.tar.gz", "DIR/a.tar.zst"] {
        signed.done(&["save", "--platform", "linux/arm64", "oci:DIR/l:1", "-o", archive]);
        for args in [&["verify"][..], &["inspect"], &["list", "--referrers"], &["list"]] {
            signed.done(&[args, &[archive]].concat());
        }
        let diff = signed.world.run(&["diff", archive, "oci:DIR/l:1"]);
        assert!(matches!(diff.status.code(), Some(0 | 1)), "{archive}: {}", diff.stderr);
        let tree = signed.world.run(&["list", "--referrers", archive]);
        assert!(tree.stdout.contains(&signed.signature.digest.to_string()), "{archive}: {}", tree.stdout);
    }
}

#[test]
fn narrow_says_what_belongs_to_the_index() {
    let mut signed = Signed::new();
    let arm64 = signed.arm64.clone();
    let own = referrer(&mut signed.world, SBOM, &arm64, b"of arm64");
    let narrow = ["--platform", "linux/arm64", "--sparse", "narrow"];
    let to = tolerant();
    let said = copy(&signed, &narrow, "oci:DIR/l:1", &to);
    assert!(said.contains("2 referrers are not copied"), "{said}");
    let (manifests, tags) = to.contents("app");
    assert!(manifests.contains_key(&own.digest) && !manifests.contains_key(&signed.signature.digest));
    assert_eq!(tags.keys().collect::<Vec<_>>(), ["1"]);
    let target = format!("docker://{}/app:2", to.host());
    for (required, code) in [("sbom", Some(0)), ("signature", Some(3))] {
        let copied = [&["copy"], &narrow[..], &["--require-referrers", required, "oci:DIR/l:1", &target]].concat();
        let copied = signed.world.run(&copied);
        assert_eq!(copied.status.code(), code, "{required}: {}", copied.stderr);
    }
    let said = copy(&signed, &[&narrow[..], &["--no-referrers"]].concat(), "oci:DIR/l:1", &tolerant());
    assert!(!said.contains("not copied"), "{said}");
}
