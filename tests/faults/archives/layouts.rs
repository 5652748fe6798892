//! What an `index.json` may say, and how much of it is missing in other tools' layouts.

use super::make::*;
use crate::support::registry::Double;
use crate::support::shell::Shell;
use imgmv::image::{Descriptor, Digest, media_type};
use serde_json::{Value, json};
use std::fs;

const AMD: &str = "linux/amd64";
const ARM: &str = "linux/arm64";

#[test]
fn platforms_side_by_side_are_one_image() {
    for (name, platforms) in [
        (Some("v1"), [Some(AMD), Some(ARM)]),
        (Some("docker.io/library/app:2"), [Some(AMD), Some(ARM)]),
        (None, [Some(AMD), Some(ARM)]),
        // Only the configs know.
        (Some("v1"), [None, None]),
    ] {
        let (double, shell) = (Double::start(), Shell::new());
        let mut files = Files::default();
        let (amd, arm) = (files.image(AMD, "for amd64"), files.image(ARM, "for arm64"));
        let entries = json!([entry(&amd, name, platforms[0]), entry(&arm, name, platforms[1])]);
        let files = files.listed(entries);
        files.write(&shell.at("l"));
        fs::write(shell.at("a.tar"), files.tar()).unwrap();
        let mut made = Vec::new();
        for src in ["oci:l", "a.tar", "- a.tar"] {
            let (src, pipe) = piped(src);
            let listed = good(&shell, &format!("{pipe}imgmv list {src}"));
            assert_eq!(listed.lines().count(), 1, "{src} {name:?}: {listed}");
            for (platform, manifest) in [(AMD, &amd), (ARM, &arm)] {
                let copy =
                    format!("{pipe}imgmv copy {src} {}/app:1 --platform {platform} --compress keep", double.host());
                good(&shell, &copy);
                assert_eq!(double.tag("app", "1"), Some(manifest.digest()), "{src} {name:?}");
            }
            let all = format!("{pipe}imgmv copy {src} {}/app:all --all-platforms --compress keep", double.host());
            let ran = run(&shell, &all);
            assert_eq!(ran.status, 0, "{src}: {}", ran.said);
            let digest = double.tag("app", "all").unwrap();
            assert!(ran.said.contains(&digest.to_string()) && ran.said.contains("as separate images"), "{}", ran.said);
            assert!(ran.out.ends_with(&digest.to_string()), "{}", ran.out);
            let index: Value = serde_json::from_slice(&double.manifest("app", &digest).unwrap().1).unwrap();
            let children: Vec<&str> =
                index["manifests"].as_array().unwrap().iter().map(|child| child["digest"].as_str().unwrap()).collect();
            assert_eq!(children, [amd.digest().to_string(), arm.digest().to_string()]);
            assert_eq!(index["manifests"][1]["platform"]["architecture"], "arm64");
            made.push(digest);
        }
        assert!(made.iter().all(|digest| *digest == made[0]), "{name:?}: {made:?}");
        // Another name in the layout needs the index there.
        good(&shell, "imgmv tag oci:l other && imgmv copy oci:l:other out.tar && imgmv verify out.tar");
    }
}

#[test]
fn two_images_of_one_name_and_platform_are_chosen_by_digest() {
    let shell = Shell::new();
    let mut files = Files::default();
    let (one, two) = (files.image(AMD, "one"), files.image(AMD, "two"));
    let entries = json!([entry(&one, Some("v1"), Some(AMD)), entry(&two, Some("v1"), Some(AMD))]);
    let files = files.listed(entries);
    files.write(&shell.at("l"));
    fs::write(shell.at("a.tar"), files.tar()).unwrap();
    for (src, picked) in [("oci:l", "oci:l:"), ("a.tar", "oci-archive:a.tar:")] {
        let listed = good(&shell, &format!("imgmv list {src}"));
        assert_eq!(listed, format!("v1@{}\nv1@{}", one.digest(), two.digest()), "{src}");
        for src in [src.to_owned(), format!("{picked}v1")] {
            let ran = run(&shell, &format!("imgmv copy {src} out.tar"));
            assert_eq!(ran.status, 2, "{src}: {}", ran.said);
            for told in ["by its digest".to_owned(), one.digest().to_string(), two.digest().to_string()] {
                assert!(ran.said.contains(&told), "{src}: {}", ran.said);
            }
        }
        let chosen = good(&shell, &format!("imgmv copy {picked}@{} out.tar", two.digest()));
        assert!(chosen.ends_with(&two.digest().to_string()), "{src}: {chosen}");
    }
}

#[test]
fn what_is_not_in_doubt_is_read_and_its_bytes_stay() {
    let docker = |text: &[u8]| {
        let text = String::from_utf8(text.to_vec()).unwrap();
        text.replace(media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST)
            .replace(media_type::OCI_CONFIG, media_type::DOCKER_CONFIG)
            .replace(media_type::OCI_LAYER, media_type::DOCKER_LAYER)
    };
    let mut files = Files::default();
    let image = files.image(AMD, "layer");
    let body = docker(&image.bytes);
    let as_docker = files.blob(media_type::DOCKER_MANIFEST, body.as_bytes());
    let list = json!({ "schemaVersion": 2, "mediaType": media_type::DOCKER_LIST, "manifests": [as_docker] });
    let list = files.blob(media_type::DOCKER_LIST, list.to_string().as_bytes());
    let claimed = |media_type: &str, at: &Descriptor| {
        let at = Descriptor { media_type: media_type.to_owned(), ..at.clone() };
        serde_json::to_value(at).unwrap()
    };
    for (what, entry, own, status, told) in [
        (
            "no oci-layout",
            claimed(media_type::OCI_MANIFEST, &image.descriptor),
            media_type::OCI_MANIFEST,
            0,
            "no file oci-layout",
        ),
        (
            "docker under oci",
            claimed(media_type::OCI_MANIFEST, &as_docker),
            media_type::DOCKER_MANIFEST,
            0,
            "its own type is",
        ),
        (
            "oci under docker",
            claimed(media_type::DOCKER_MANIFEST, &image.descriptor),
            media_type::OCI_MANIFEST,
            0,
            "its own type is",
        ),
        ("list under index", claimed(media_type::OCI_INDEX, &list), media_type::DOCKER_LIST, 0, "its own type is"),
        ("index as image", claimed(media_type::OCI_MANIFEST, &list), "", 5, "claimed type is"),
        ("image as index", claimed(media_type::OCI_INDEX, &image.descriptor), "", 5, "claimed type is"),
    ] {
        let (double, shell) = (Double::start(), Shell::new());
        let digest: Digest = entry["digest"].as_str().unwrap().parse().unwrap();
        files.clone().listed(json!([entry])).write(&shell.at("l"));
        if what == "no oci-layout" {
            fs::remove_file(shell.at("l/oci-layout")).unwrap();
        }
        let ran = run(&shell, &format!("imgmv copy oci:l {}/app:1 -v --compress keep", double.host()));
        assert_eq!(ran.status, status, "{what}: {}", ran.said);
        assert!(ran.said.contains(told), "{what}: {}", ran.said);
        let stored = double.manifest("app", &digest);
        assert_eq!(stored.map(|(media_type, _)| media_type).unwrap_or_default(), own, "{what}");
        if status == 0 {
            let quiet = run(&shell, "imgmv copy oci:l oci:n");
            assert!(!quiet.said.contains(told), "{what}: {}", quiet.said);
            good(&shell, "imgmv verify oci:n");
        }
    }
}

#[test]
fn nothing_to_copy_is_an_error() {
    let shell = Shell::new();
    for (name, index) in
        [("null", json!({ "manifests": null })), ("bare", json!({})), ("none", json!({ "manifests": [] }))]
    {
        let mut files = Files::default();
        files.put("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
        files.put("index.json", index.to_string());
        files.write(&shell.at(name));
        fs::write(shell.at(&format!("{name}.tar")), files.tar()).unwrap();
    }
    let mut files = Files::default();
    files.put("manifest.json", "[]");
    fs::write(shell.at("old.tar"), files.tar()).unwrap();
    let mut files = Files::default();
    let index = files.blob(media_type::OCI_INDEX, br#"{"schemaVersion":2,"manifests":[]}"#);
    files.listed(json!([index])).write(&shell.at("hollow"));
    for (src, told) in [
        ("oci:null", "null has no image: its index.json lists no manifests"),
        ("oci:bare", "index.json"),
        ("oci:none", "index.json"),
        ("null.tar", "null.tar contains no images: index.json lists no manifests"),
        ("old.tar", "old.tar contains no images: manifest.json is an empty list"),
        ("- old.tar", "standard input contains no images"),
        ("oci:hollow", "is an index that lists no image"),
    ] {
        let (src, pipe) = piped(src);
        for line in [format!("imgmv copy {src} oci:to"), format!("imgmv save {src} -o to.tar")] {
            let ran = run(&shell, &format!("{pipe}{line}"));
            assert_eq!(ran.status, 3, "{line}: {}", ran.said);
            assert!(ran.said.contains(told) && ran.said.contains("--allow-empty"), "{line}: {}", ran.said);
            assert!(!shell.at("to.tar").exists() && !shell.at("to").exists());
            good(&shell, &format!("{pipe}{line} --allow-empty; rm -rf to to.tar"));
        }
        if src != "oci:hollow" {
            let prefix = run(&shell, &format!("{pipe}imgmv copy {src} docker://127.0.0.1:1/pre/"));
            assert_eq!(prefix.status, if src == "-" { 2 } else { 3 }, "{src}: {}", prefix.said);
            for verb in ["digest", "inspect", "verify"] {
                assert_eq!(run(&shell, &format!("{pipe}imgmv {verb} {src}")).status, 3, "{verb} {src}");
            }
            assert_eq!(good(&shell, &format!("{pipe}imgmv list {src}")), "");
        }
    }
    let ran = run(&shell, "imgmv load -i old.tar --remote-command 'cat >to'");
    assert_eq!(ran.status, 3, "{}", ran.said);
}

/// Before: the archive was written with exit 0, and refused when it was read.
#[test]
fn an_entry_without_a_type_is_read_where_it_was_written() {
    let mut files = Files::default();
    let (one, other) = (files.image(AMD, "one"), files.image(ARM, "other"));
    let mut entries = [entry(&one, None, Some(AMD)), entry(&other, None, Some(ARM))];
    entries[0].as_object_mut().unwrap().remove("mediaType");
    let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries });
    let index = files.blob(media_type::OCI_INDEX, index.to_string().as_bytes());
    let shell = Shell::new();
    files.listed(json!([index])).write(&shell.at("l"));
    for to in ["x.tar", "oci-archive:y.tar", "oci:n"] {
        good(&shell, &format!("imgmv copy oci:l {to} --as app:1 --all-platforms"));
        good(&shell, &format!("imgmv verify {to}"));
        assert_eq!(good(&shell, &format!("imgmv digest {to}")), index.digest.to_string());
        if to.ends_with("tar") {
            good(&shell, &format!("cat {} | imgmv copy - oci:again", to.trim_start_matches("oci-archive:")));
        }
    }
}
