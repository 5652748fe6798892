//! What messages say of archives that are not as they should be, and that only imgmv's own words reach the user.

use super::make::*;
use crate::support::shell::Shell;
use imgmv::image::{Digest, Manifest, Platform, media_type};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn saved(config: &str, layers: &[&str]) -> String {
    json!([{ "Config": config, "RepoTags": ["app:2"], "Layers": layers }]).to_string()
}

#[test]
fn messages_name_what_a_person_knows() {
    let shell = Shell::new();
    // An index of which one platform is there, as docker's containerd store saves it.
    let mut files = Files::default();
    let (here, gone) = (files.image("linux/amd64", "here"), image("linux/arm64", "gone"));
    let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [
        entry(&here, None, Some("linux/amd64")), entry(&gone, None, Some("linux/arm64")) ] });
    let index = files.blob(media_type::OCI_INDEX, index.to_string().as_bytes());
    let mut named = index.clone();
    named.annotate("io.containerd.image.name", "docker.io/library/app:2");
    fs::write(shell.at("sparse.tar"), files.clone().listed(json!([named])).tar()).unwrap();
    // A layer that is listed and not there.
    let mut lacking = Files::default();
    let whole = lacking.image("linux/amd64", "layer");
    lacking.0.retain(|(name, _)| *name != Digest::of(b"layer").blob_path());
    fs::write(shell.at("lacking.tar"), lacking.listed(json!([entry(&whole, Some("v1"), None)])).tar()).unwrap();
    // Layers and configs under no name.
    let config = config("linux/amd64", "layer");
    let mut old = Files::default();
    old.put("c.json", &config);
    old.put("layer.tar", "layer");
    for (name, config, layers) in [
        ("nolayer", "c.json", &[""][..]),
        ("dots", "c.json", &["layer.tar", "./"]),
        ("noconfig", "./", &["layer.tar"]),
        ("absent", "c.json", &["other.tar"]),
    ] {
        let mut files = old.clone();
        files.put("manifest.json", saved(config, layers));
        fs::write(shell.at(&format!("{name}.tar")), files.tar()).unwrap();
    }
    // As a tool on Windows writes them.
    let mut backslashes = Files::default();
    backslashes.put("c.json", &config);
    backslashes.put("sub\\layer.tar", "layer");
    backslashes.put("manifest.json", saved("c.json", &["sub/layer.tar"]));
    fs::write(shell.at("backslashes.tar"), backslashes.tar()).unwrap();
    let mut layout = Files::default();
    let image = layout.image("linux/amd64", "layer");
    layout.0.iter_mut().for_each(|(name, _)| *name = name.replace('/', "\\"));
    fs::write(shell.at("layout.tar"), layout.clone().listed(json!([entry(&image, Some("v1"), None)])).tar()).unwrap();
    fs::write(shell.at("nothing.tar"), layout.tar()).unwrap();

    for (src, options, status, told) in [
        (
            "sparse.tar",
            "--platform linux/arm64",
            3,
            "docker.io/library/app:2 lists linux/arm64, but the source has only linux/amd64",
        ),
        ("sparse.tar", "--platform linux/s390x", 3, "no image for linux/s390x"),
        ("lacking.tar", "", 3, "although a manifest in the archive lists it"),
        ("nolayer.tar", "", 5, "layer 1 of the image with config \"c.json\" has an empty file name"),
        ("dots.tar", "", 5, "layer 2 of the image"),
        ("noconfig.tar", "", 5, "no Config"),
        ("absent.tar", "", 5, "refers to the file \"other.tar\", which is not in the archive"),
        ("backslashes.tar", "", 5, "as written on Windows"),
        ("layout.tar", "", 5, "as written on Windows"),
        ("nothing.tar", "", 5, "as written on Windows"),
    ] {
        for src in [src.to_owned(), format!("- {src}")] {
            // A stream is known not to have a blob when it has ended, as one that was cut.
            if src.starts_with("- lacking") {
                continue;
            }
            let (src, pipe) = piped(&src);
            let ran = run(&shell, &format!("{pipe}imgmv copy {src} oci:out {options}"));
            assert_eq!(ran.status, status, "{told}: {}", ran.said);
            assert!(ran.said.contains(told), "{told}: {}", ran.said);
            assert!(!ran.said.contains("names \"\""), "{}", ran.said);
        }
    }
}

/// A docker that knows no images and fails to load one.
const DOCKER: &str = r#"#!/bin/sh
case "$1" in
  version) echo 28.0.0 ;;
  info) case "$3" in *OSType*) echo "linux/x86_64 overlay2 []" ;; *) exit 1 ;; esac ;;
  load) cat >/dev/null; echo "invalid image" >&2; exit 1 ;;
esac
"#;

#[test]
fn nothing_of_a_shells_own_reaches_the_user() {
    let folder = tempfile::tempdir().unwrap();
    let docker = folder.path().join("docker");
    fs::write(&docker, DOCKER).unwrap();
    fs::set_permissions(&docker, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let shell = Shell::with(&[("PATH".to_owned(), path)]);
    let mut files = Files::default();
    let artifact = files.blob("application/vnd.example.policy.v1+json", b"{}");
    let text = files.blob("text/plain", b"policy");
    let artifact = Manifest::synthesise(&artifact, &[text]);
    files.put(&artifact.digest().blob_path(), &artifact.bytes);
    // An image whose config tells nothing of its layers.
    let platform = Platform::host().to_string();
    let bare = files.blob(media_type::OCI_CONFIG, &config(&platform, "another"));
    let layers = [files.blob(media_type::OCI_LAYER, b"one"), files.blob(media_type::OCI_LAYER, b"two")];
    let bare = Manifest::synthesise(&bare, &layers);
    files.put(&bare.digest().blob_path(), &bare.bytes);
    let entries =
        json!([entry(&artifact, Some("docker.io/t/art:1"), None), entry(&bare, Some("docker.io/t/bare:1"), None)]);
    files.listed(entries).write(&shell.at("l"));
    for (name, status, told) in [("art", 2, "is an artifact"), ("bare", 7, "invalid image")] {
        let ran = run(&shell, &format!("imgmv copy oci:l:docker.io/t/{name}:1 docker-daemon:"));
        assert_eq!(ran.status, status, "{name}: {}", ran.said);
        assert!(ran.said.contains(told), "{name}: {}", ran.said);
        for noise in ["test:", "sh:", "Illegal", "integer", "not found", "imgmv: 1:"] {
            assert!(!ran.said.contains(noise), "{name}: {}", ran.said);
        }
    }
}

#[test]
fn the_hint_for_an_ending_is_the_command_for_it() {
    let shell = Shell::new();
    let mut files = Files::default();
    let image = files.image("linux/amd64", "layer");
    files.listed(json!([entry(&image, Some("v1"), None)])).write(&shell.at("l"));
    for (name, hint) in
        [("x.tar.xz", "| xz > x.tar.xz"), ("x.tar.bz2", "| bzip2 > x.tar.bz2"), ("x.tar.lz4", "| lz4 > ")]
    {
        let ran = run(&shell, &format!("imgmv save oci:l -o {name}"));
        assert_eq!(ran.status, 2, "{}", ran.said);
        assert!(ran.said.contains(hint), "{}", ran.said);
    }
}
