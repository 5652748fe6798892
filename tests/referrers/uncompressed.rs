//! An image with uncompressed layers, and artifacts that are tars: what a registry gets compressed, and what keeps its bytes.

use crate::support::registry::Double;
use crate::world::{World, tar};
use imgmv::Descriptor;
use serde_json::json;
use std::fs;

/// An artifact whose blob is a tar, with the subject `about`.
fn model(world: &mut World, about: Option<&Descriptor>) -> (Descriptor, Descriptor) {
    let config = world.blob("application/vnd.oci.empty.v1+json", b"{}");
    let blob = world.blob("application/vnd.acme.model.tar", &tar(b"model"));
    let mut more = json!({ "artifactType": "application/vnd.acme.model" });
    if let Some(about) = about {
        more["subject"] = json!(Descriptor { platform: None, ..about.clone() });
    }
    (world.manifest(&config, std::slice::from_ref(&blob), more), blob)
}

fn done(world: &World, args: &[&str]) -> String {
    let output = world.run(args);
    assert!(output.status.success(), "{args:?}: {}", output.stderr);
    output.stderr
}

/// Copies `archive` through a pipe to `registry`.
fn piped(world: &World, archive: &str, options: &[&str], registry: &Double) -> String {
    let to = format!("docker://{}/app:1", registry.host());
    let output = world.run_with(&[&["copy", "-v", "-", &to], options].concat(), Some(&world.path(archive)));
    assert!(output.status.success(), "{archive}: {}", output.stderr);
    output.stderr
}

#[test]
fn a_tar_in_an_artifact_goes_through_compressed_archives_and_pipes() {
    let mut world = World::new();
    let (artifact, blob) = model(&mut world, None);
    world.name("model", &artifact);
    let image = world.image("linux/amd64", b"one");
    world.name("1", &image);
    let (attached, _) = model(&mut world, Some(&image));
    world.list(&attached);
    for (name, root, is_listed) in [("model", &artifact, false), ("1", &image, true)] {
        let source = format!("oci:DIR/l:{name}");
        for archive in ["DIR/a.tar.gz", "DIR/a.tar.zst", "DIR/a.tar"] {
            done(&world, &["copy", &source, archive]);
            let to = Double::start();
            match archive.ends_with("tar") {
                true => drop(piped(&world, "a.tar", &[], &to)),
                false => drop(done(&world, &["copy", archive, &format!("docker://{}/app:1", to.host())])),
            }
            assert_eq!(to.tag("app", "1"), Some(root.digest), "{name} {archive}");
            assert_eq!(to.manifest("app", &attached.digest).is_some(), is_listed, "{name} {archive}");
            assert!(to.blob("app", &blob.digest).is_some(), "{name} {archive}");
            fs::remove_file(world.word(archive)).unwrap();
        }
    }
}

/// A file shows which blobs are layers; a pipe does not, unless an engine wrote it.
#[test]
fn layers_are_compressed_where_they_are_known() {
    let mut world = World::new();
    let image = world.image("linux/amd64", b"one");
    world.name("1", &image);
    done(&world, &["copy", "oci:DIR/l:1", "DIR/a.tar.gz"]);
    done(&world, &["copy", "oci:DIR/l:1", "DIR/a.tar"]);
    let blobs_first = ["blobs", "index.json", "oci-layout"];
    let mut tar = tar::Builder::new(fs::File::create(world.path("engine.tar")).unwrap());
    for name in blobs_first {
        let path = world.path("l").join(name);
        match path.is_dir() {
            true => tar.append_dir_all(name, path).unwrap(),
            false => tar.append_path_with_name(path, name).unwrap(),
        }
    }
    tar.finish().unwrap();
    let to = Double::start();
    done(&world, &["copy", "DIR/a.tar.gz", &format!("docker://{}/app:1", to.host())]);
    assert_ne!(to.tag("app", "1"), Some(image.digest));
    for (archive, options, is_same) in
        [("a.tar", &[][..], true), ("a.tar", &["--compress", "gzip"], false), ("engine.tar", &[], false)]
    {
        let to = Double::start();
        let said = piped(&world, archive, options, &to);
        assert_eq!(to.tag("app", "1") == Some(image.digest), is_same, "{archive} {options:?}: {said}");
        assert_eq!(said.contains("uncompressed layers stay"), is_same, "{archive} {options:?}: {said}");
    }
}

/// What is attached to an image has its digest. So its layers are not compressed unless the user asks for it.
#[test]
fn an_image_with_referrers_keeps_its_layers() {
    let mut world = World::new();
    let images = [world.image("linux/amd64", b"one"), world.image("linux/arm64", b"two")];
    let index = world.index(&images, json!({}));
    world.name("1", &index);
    let (sbom, _) = model(&mut world, Some(&images[0]));
    world.list(&sbom);
    for archive in ["a.tar", "a.tar.gz"] {
        done(&world, &["copy", "oci:DIR/l:1", &format!("DIR/{archive}")]);
    }
    for from in ["oci:DIR/l:1", "DIR/a.tar", "DIR/a.tar.gz"] {
        let to = Double::start();
        let target = format!("docker://{}/app:1", to.host());
        let said = done(&world, &["copy", "-v", from, &target]);
        assert!(to.manifest("app", &images[0].digest).is_some(), "{from}: {said}");
        assert!(to.manifest("app", &sbom.digest).is_some(), "{from}: {said}");
        assert!(said.contains("keep their digests"), "{from}: {said}");
        // The SBOM does not refer to the index or to this image.
        assert!(to.manifest("app", &images[1].digest).is_none(), "{from}: {said}");
        for options in [&["--compress", "gzip"][..], &["--no-referrers"]] {
            let to = Double::start();
            done(&world, &[&["copy", from, &format!("docker://{}/app:1", to.host())], options].concat());
            assert!(to.manifest("app", &images[0].digest).is_none(), "{from} {options:?}");
        }
    }
    let cosign = model(&mut world, None).0;
    world.name(&crate::signed::sig_tag(&index), &cosign);
    let to = Double::start();
    let said = done(&world, &["copy", "oci:DIR/l:1", &format!("docker://{}/app:1", to.host())]);
    assert_eq!(to.tag("app", "1"), Some(index.digest), "{said}");
    assert_eq!(to.tag("app", &crate::signed::sig_tag(&index)), Some(cosign.digest), "{said}");
}
