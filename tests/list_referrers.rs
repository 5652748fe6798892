//! What belongs to an image, as `imgmv list --referrers`, `inspect` and `verify` show it.

#[path = "support/mod.rs"]
mod support;

use imgmv::internals::image::media_type;
use imgmv::{Descriptor, Digest, Manifest};
use serde_json::{Value, json};
use support::program::{Output, imgmv};
use support::registry::{Double, Stumble, image};
use tempfile::TempDir;

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// A referrer of `subject` with one small blob, stored at the registry.
fn referrer(registry: &Double, subject: &Manifest, artifact_type: &str) -> Manifest {
    let manifest = artifact(Some(subject), artifact_type);
    registry.put_blob("app", b"{}");
    registry.put_manifest("app", None, &manifest);
    manifest
}

fn artifact(subject: Option<&Manifest>, artifact_type: &str) -> Manifest {
    let mut document = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": Descriptor::of("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [],
        "annotations": { "org.opencontainers.image.created": "2026-01-02T03:04:05Z", "note": "a\u{1b}[2Jb" },
    });
    if let Some(subject) = subject {
        document["subject"] = json!(subject.descriptor);
    }
    Manifest::from_bytes(document.to_string().into_bytes(), media_type::OCI_MANIFEST).unwrap()
}

fn good(args: &[&str]) -> Output {
    let out = imgmv(args, None);
    assert_eq!(out.status.code(), Some(0), "{args:?}: {}", out.stderr);
    out
}

fn document(args: &[&str]) -> Value {
    let document: Value = serde_json::from_str(&good(args).stdout).unwrap();
    assert_eq!(document["version"], 2);
    document
}

/// A signed image: a signature, an SBOM with a signature of its own, and a tag of cosign.
fn signed(registry: &Double) -> [Manifest; 5] {
    let config = json!({ "architecture": "amd64", "os": "linux",
                         "rootfs": { "type": "layers", "diff_ids": [Digest::of(b"layer")] } })
    .to_string();
    registry.put_blob("app", config.as_bytes());
    registry.put_blob("app", b"layer");
    let config = Descriptor::of(media_type::OCI_CONFIG, config.as_bytes());
    let app = Manifest::synthesise(&config, &[Descriptor::of(media_type::OCI_LAYER, b"layer")]);
    registry.put_manifest("app", Some("1"), &app);
    let signature = referrer(registry, &app, BUNDLE);
    let sbom = referrer(registry, &app, "application/spdx+json");
    let of_sbom = referrer(registry, &sbom, BUNDLE);
    let tagged = image(&[b"an old signature"]);
    registry.put_blob("app", b"an old signature");
    registry.put_blob("app", support::registry::config());
    registry.put_manifest("app", Some(&cosign_tag(&app)), &tagged);
    [app, signature, sbom, of_sbom, tagged]
}

fn cosign_tag(subject: &Manifest) -> String {
    format!("{}.sig", subject.digest().to_string().replacen(':', "-", 1))
}

/// The paths of digests from the image downwards.
fn paths(nodes: &Value, above: &str, all: &mut Vec<String>) {
    for node in nodes.as_array().unwrap() {
        let path = format!("{above}/{} {}", node["type"].as_str().unwrap(), node["digest"].as_str().unwrap());
        paths(&node["referrers"], &path, all);
        all.push(path);
    }
}

fn expected([_, signature, sbom, of_sbom, tagged]: &[Manifest; 5]) -> Vec<String> {
    let sbom = format!("/sbom {}", sbom.digest());
    let mut all = vec![
        format!("/signature {}", signature.digest()),
        format!("{sbom}/signature {}", of_sbom.digest()),
        sbom,
        format!("/signature {}", tagged.digest()),
    ];
    all.sort();
    all
}

fn listed(source: &str) -> (Value, Vec<String>) {
    let mut document = document(&["list", "--referrers", source, "--json"]);
    assert_eq!(document["images"].as_array().unwrap().len(), 1, "{document}");
    let image = document["images"][0].take();
    let mut all = Vec::new();
    paths(&image["referrers"], "", &mut all);
    all.sort();
    (image, all)
}

#[test]
fn the_tree_is_the_same_in_a_registry_a_layout_and_an_archive() {
    let (registry, dir) = (Double::start(), TempDir::new().unwrap());
    let all = signed(&registry);
    let source = format!("{}/app:1", registry.host());
    let layout = format!("oci:{}:1", dir.path().join("layout").display());
    let archive = dir.path().join("app.tar").display().to_string();
    for destination in [&layout, &archive] {
        good(&["copy", &source, destination]);
    }
    let whole = format!("oci:{}", dir.path().join("layout").display());
    for place in [&source, &layout, &archive, &whole] {
        let (image, tree) = listed(place);
        assert_eq!(tree, expected(&all), "{place}");
        assert_eq!((&image["digest"], &image["left_out"]), (&json!(all[0].digest()), &Value::Null), "{place}");
        let tagged = image["referrers"].as_array().unwrap().iter().find(|node| !node["tag"].is_null()).unwrap();
        assert_eq!(tagged["tag"], cosign_tag(&all[0]), "{place}");
    }
    registry.faults().no_referrers = true;
    // Without the API a registry has no tag for these.
    assert_eq!(listed(&source).1, [format!("/signature {}", all[4].digest())]);
}

#[test]
fn lines_show_type_size_time_and_annotations_and_no_terminal_escapes() {
    let registry = Double::start();
    let [app, signature, _, of_sbom, _] = signed(&registry);
    let out = good(&["list", "--referrers", &format!("{}/app:1", registry.host())]);
    let lines: Vec<&str> = out.stdout.lines().collect();
    assert!(lines[0].ends_with(&format!("/app:1@{}", app.digest())), "{}", out.stdout);
    let line = |digest: Digest| *lines.iter().find(|line| line.contains(&digest.to_string())).unwrap();
    let shown = line(signature.digest());
    assert!(shown.starts_with("  signature ") && shown.contains("2026-01-02T03:04:05Z"), "{shown}");
    assert!(line(of_sbom.digest()).starts_with("    signature "), "{}", out.stdout);
    assert!(out.stdout.contains("note=a?[2Jb") && !out.stdout.contains('\u{1b}'), "{}", out.stdout);
}

#[test]
fn lists_of_other_verbs_stay_and_their_variable_asks_for_nothing() {
    let registry = Double::start();
    signed(&registry);
    let source = format!("{}/app", registry.host());
    let mut command = support::program::command(env!("CARGO_BIN_EXE_imgmv"));
    let out = command.args(["list", &source]).env("IMGMV_REFERRERS", "signature").output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.lines().any(|line| line == format!("{source}:1")), "{text}");
    assert_eq!(registry.count("GET", "/referrers/"), 0);
}

/// The digests that `inspect` shows, and those of `list --referrers`.
fn inspected_and_listed(place: &str) -> [Vec<String>; 2] {
    let shown = document(&["inspect", place, "--json"]);
    let shown = shown["images"][0]["referrers"].as_array().unwrap();
    let mut shown: Vec<String> = shown.iter().map(|one| one["digest"].as_str().unwrap().to_owned()).collect();
    let (_, paths) = listed(place);
    let mut listed: Vec<String> = paths.iter().map(|path| path.rsplit(' ').next().unwrap().to_owned()).collect();
    shown.sort();
    listed.sort();
    [shown, listed]
}

#[test]
fn inspect_counts_what_is_listed() {
    let (registry, dir) = (Double::start(), TempDir::new().unwrap());
    let [app, .., tagged] = signed(&registry);
    // An image with only a signature under a tag of cosign, and an index of which only a child is signed.
    let [old, child] = ["old", "child"].map(|tag| registry.image("app", tag, &[tag.as_bytes()]));
    registry.tag_as("app", &cosign_tag(&old), tagged.digest());
    let signature = referrer(&registry, &child, BUNDLE);
    let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX,
                        "manifests": [child.descriptor, app.descriptor] });
    let index = Manifest::from_bytes(index.to_string().into_bytes(), media_type::OCI_INDEX).unwrap();
    registry.put_manifest("app", Some("index"), &index);
    for (tag, count, types) in [
        ("1", 4, ["signature, sbom", "sbom, signature"]),
        ("old", 1, ["signature"; 2]),
        ("child", 1, ["signature"; 2]),
        ("index", 5, ["signature, sbom", "sbom, signature"]),
    ] {
        let source = format!("{}/app:{tag}", registry.host());
        let layout = format!("oci:{}:{tag}", dir.path().join("layout").display());
        let archive = dir.path().join(format!("{tag}.tar")).display().to_string();
        for destination in [&layout, &archive] {
            good(&["copy", &source, destination]);
        }
        for place in [&source, &layout, &archive] {
            let [shown, listed] = inspected_and_listed(place);
            assert_eq!(shown, listed, "{place}");
            let text = good(&["inspect", place]).stdout;
            let lines = types.map(|types| format!("\n  referrers: {count} ({types})\n"));
            assert!(lines.iter().any(|line| text.contains(line)), "{place}: {text}");
        }
    }
    let shown = document(&["inspect", "--json", &format!("{}/app:index", registry.host())]);
    let shown = shown["images"][0]["referrers"].as_array().unwrap();
    let of = |digest: Digest| shown.iter().find(|one| one["digest"] == digest.to_string()).unwrap();
    assert_eq!(of(signature.digest())["subject"], child.digest().to_string());
    assert_eq!(of(tagged.digest())["tag"], cosign_tag(&app));
}

/// The image is shown, with a sentence about a missing referrer.
#[test]
fn inspect_says_what_is_not_counted() {
    let registry = Double::start();
    let [_, signature, ..] = signed(&registry);
    let path = format!("/manifests/{}", signature.digest()).leak();
    registry.faults().stumbles = vec![Stumble::new("GET", path, 404, 9)];
    let out = good(&["inspect", &format!("{}/app:1", registry.host())]);
    let told = format!("not all that belongs to the image is listed: referrer {}", signature.digest());
    assert!(out.stderr.contains(&told), "{}", out.stderr);
    assert!(out.stdout.contains("\n  referrers: 3 ("), "{}", out.stdout);
}

#[test]
fn verify_names_what_an_archive_or_layout_lists_and_does_not_have() {
    let (registry, dir) = (Double::start(), TempDir::new().unwrap());
    let [_, signature, _, _, tagged] = signed(&registry);
    let source = format!("{}/app:1", registry.host());
    let layout = dir.path().join("layout");
    let place = format!("oci:{}:1", layout.display());
    good(&["copy", &source, &place]);
    let whole = good(&["verify", &place]).stdout;
    assert!(whole.contains("ok, 5 blobs"), "{whole}");
    // A blob of the old signature.
    let blob = layout.join(tagged.layers()[0].digest.blob_path());
    std::fs::write(&blob, b"an OLD signature").unwrap();
    let out = imgmv(&["verify", &place], None);
    assert_eq!(out.status.code(), Some(5), "{}", out.stderr);
    assert!(out.stderr.contains(&tagged.layers()[0].digest.hex()), "{}", out.stderr);

    let archive = dir.path().join("app.tar");
    good(&["copy", &source, archive.to_str().unwrap()]);
    good(&["verify", archive.to_str().unwrap()]);
    for missing in [signature.digest(), tagged.digest()] {
        let spoiled = dir.path().join("spoiled.tar");
        without(&archive, &missing.blob_path(), &spoiled);
        let out = imgmv(&["verify", spoiled.to_str().unwrap()], None);
        assert_eq!(out.status.code(), Some(5), "{}", out.stderr);
        assert!(out.stderr.contains(&missing.hex()), "{}", out.stderr);
    }
}

/// `archive` without the file `name`.
fn without(archive: &std::path::Path, name: &str, to: &std::path::Path) {
    let mut from = tar::Archive::new(std::fs::File::open(archive).unwrap());
    let mut out = tar::Builder::new(std::fs::File::create(to).unwrap());
    for entry in from.entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header().clone();
        if entry.path().unwrap().to_str() != Some(name) {
            out.append(&header, &mut entry).unwrap();
        }
    }
    out.finish().unwrap();
}

/// An attached index is one referrer; its children are a part of it and count in its size.
#[test]
fn the_children_of_an_attached_index_are_a_part_of_it() {
    let registry = Double::start();
    let [app, ..] = signed(&registry);
    let child = artifact(None, "application/vnd.test.part");
    registry.put_manifest("app", None, &child);
    let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "artifactType": "a/set",
                        "manifests": [child.descriptor], "subject": app.descriptor });
    let index = Manifest::from_bytes(index.to_string().into_bytes(), media_type::OCI_INDEX).unwrap();
    registry.put_manifest("app", None, &index);
    let source = format!("{}/app:1", registry.host());
    let (image, tree) = listed(&source);
    assert!(tree.contains(&format!("/a/set {}", index.digest())), "{tree:?}");
    assert!(!tree.iter().any(|path| path.contains(&child.digest().hex())), "{tree:?}");
    let nodes = image["referrers"].as_array().unwrap();
    let node = nodes.iter().find(|node| node["digest"] == index.digest().to_string()).unwrap();
    let size = |manifest: &Manifest| manifest.bytes.len() as u64;
    assert_eq!((&node["size"], &node["total_size"]), (&json!(size(&index)), &json!(size(&index) + size(&child) + 2)));
    // The same number in `verify`, which reads a layout.
    let dir = TempDir::new().unwrap();
    let layout = format!("oci:{}:1", dir.path().join("layout").display());
    good(&["copy", &source, &layout]);
    assert_eq!(document(&["verify", "--json", &layout])["images"][0]["referrers"], 5);
}

#[test]
fn an_engine_gets_a_sentence() {
    for engine in ["docker-daemon:app:1", "ssh://node1/app:1", "containerd:app:1"] {
        let out = imgmv(&["list", "--referrers", engine, "--ssh", "false"], None);
        assert_eq!(out.status.code(), Some(2), "{}", out.stderr);
        assert!(out.stderr.contains("does not store signatures"), "{}", out.stderr);
    }
}
