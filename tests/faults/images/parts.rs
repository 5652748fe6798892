//! Images of which only a part is there or wanted.

use super::world::{World, names, told};
use crate::support::registry::Double;
use imgmv::{Descriptor, Digest};
use serde_json::json;

/// A layout with an index of three platforms, of which `here` are there; the index, and its images.
fn sparse(here: &[&str]) -> (World, Descriptor, Vec<Descriptor>) {
    let mut world = World::new();
    let platforms = ["linux/amd64", "linux/arm64", "linux/s390x"];
    let images: Vec<Descriptor> = platforms.iter().map(|one| world.image(one, one.as_bytes())).collect();
    let index = world.index(&images, json!({}));
    world.name("app", &index);
    for (image, _) in images.iter().zip(platforms).filter(|(_, platform)| !here.contains(platform)) {
        world.lose(image);
    }
    (world, index, images)
}

/// Whether every manifest that the archive names, or that one of its indexes lists, is in it.
fn is_whole(bytes: &[u8], root: &Digest) -> bool {
    let names = names(bytes);
    let has = |digest: &str| names.contains(&format!("blobs/{}", digest.replace(':', "/")));
    let mut archive = tar::Archive::new(bytes);
    let listed = archive.entries().unwrap().filter_map(|entry| {
        let entry = entry.unwrap();
        if !entry.path().unwrap().display().to_string().ends_with(&root.hex()) {
            return None;
        }
        serde_json::from_reader::<_, serde_json::Value>(entry).ok()
    });
    let listed: Vec<String> = listed
        .flat_map(|document| document["manifests"].as_array().cloned().unwrap_or_default())
        .map(|entry| entry["digest"].as_str().unwrap().to_owned())
        .collect();
    has(&root.to_string()) && listed.iter().all(|digest| has(digest))
}

#[test]
fn an_archive_lists_no_image_that_is_not_in_it() {
    for here in [&["linux/arm64"][..], &["linux/amd64", "linux/s390x"]] {
        let (world, index, images) = sparse(here);
        for pipe in [false, true] {
            let out = match pipe {
                true => world.run(&["save", "oci:DIR/l:app", "-o", "-"]),
                false => world.run(&["copy", "oci:DIR/l:app", "DIR/app.tar"]),
            };
            assert!(out.status.success(), "{}", out.stderr);
            let bytes = if pipe { out.bytes.clone() } else { std::fs::read(world.path("app.tar")).unwrap() };
            let said = out.stderr.lines().find(|line| line.contains("becomes")).unwrap_or_default();
            let now: Digest = said.split("becomes ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
            assert!(said.contains(&index.digest.to_string()) && said.contains("--sparse keep"), "{said}");
            assert!(is_whole(&bytes, &now), "{said}");
            if here.len() == 1 {
                assert_eq!(now, images[1].digest);
            }
        }
        for (how, code, root) in [("keep", 0, Some(index.digest)), ("narrow", 0, None), ("fail", 3, None)] {
            let out = world.run(&["copy", "oci:DIR/l:app", "DIR/app.tar", "--sparse", how, "--as", "a.example/app:1"]);
            assert_eq!(out.status.code(), Some(code), "{how} {}", told(&out));
            let digest = out.stdout.trim().split('@').nth(1).map(|digest| digest.parse::<Digest>().unwrap());
            assert!(root.is_none() || digest == root, "{how} {}", told(&out));
            assert!(how != "narrow" || digest != Some(index.digest), "{how} {}", told(&out));
        }
    }
}

#[test]
fn a_layout_keeps_an_index_of_which_parts_are_missing_and_a_smaller_one_where_asked() {
    let (world, index, _) = sparse(&["linux/amd64", "linux/s390x"]);
    for (options, root) in [
        (&[][..], Some(index.digest)),
        (&["--sparse", "keep"], Some(index.digest)),
        (&["--sparse", "keep", "--platform", "linux/amd64"], Some(index.digest)),
        (&["--sparse", "keep", "--all-platforms"], Some(index.digest)),
        (&["--sparse", "narrow"], None),
    ] {
        let out = world.run(&[&["copy", "oci:DIR/l:app", "oci:DIR/n"], options].concat());
        assert!(out.status.success(), "{options:?} {}", told(&out));
        let is = world.root("n");
        assert!(root.map_or(is != index.digest, |root| is == root), "{options:?} {}", told(&out));
        std::fs::remove_dir_all(world.path("n")).unwrap();
    }
    let out = world.run(&["copy", "oci:DIR/l:app", "oci:DIR/n", "--platform", "linux/amd64", "--sparse", "fail"]);
    assert_eq!(out.status.code(), Some(2), "{}", told(&out));
}

#[test]
fn all_platforms_of_an_image_of_which_parts_are_missing_is_an_error() {
    let (world, ..) = sparse(&["linux/amd64", "linux/s390x"]);
    let registry = Double::start();
    let registry = format!("{}/app:1", registry.host());
    for target in ["oci:DIR/n", "DIR/app.tar", &registry] {
        let out = world.run(&["copy", "oci:DIR/l:app", target, "--all-platforms"]);
        assert_eq!(out.status.code(), Some(3), "{target} {}", told(&out));
        assert!(out.stderr.contains("missing: linux/arm64") && out.stderr.contains("--sparse keep"), "{}", told(&out));
    }
    assert!(!world.path("app.tar").exists());
    // A registry that has not all of them: a copy of one platform leaves such an index too.
    let source = Double::start();
    let (whole, _, images) = sparse(&["linux/amd64", "linux/arm64", "linux/s390x"]);
    let reference = format!("{}/app:1", source.host());
    let out = whole.run(&["copy", "oci:DIR/l:app", &reference, "--compress", "keep"]);
    assert!(out.status.success(), "{}", told(&out));
    source.lose_manifest("app", &images[1].digest);
    for (options, code) in [(&[][..], 0), (&["--all-platforms"], 3), (&["--all-platforms", "--sparse", "keep"], 0)] {
        let out = world.run(&[&["copy", &*reference, "oci:DIR/lost"], options].concat());
        assert_eq!(out.status.code(), Some(code), "{options:?} {}", told(&out));
    }
    // A platform that is listed and missing is named as such.
    let out = world.run(&["copy", "oci:DIR/l:app", "DIR/app.tar", "--platform", "linux/arm64"]);
    assert_eq!(out.status.code(), Some(3), "{}", told(&out));
    assert!(out.stderr.contains("lists linux/arm64") && out.stderr.contains("only linux/amd64"), "{}", told(&out));
}

#[test]
fn the_newest_build_of_windows_is_taken_and_said() {
    let mut world = World::new();
    let builds = ["10.0.17763.5122", "10.0.20348.405", "10.0.20348.2966"];
    let images: Vec<Descriptor> =
        builds.iter().map(|build| world.image(&format!("windows/amd64:{build}"), build.as_bytes())).collect();
    let index = world.index(&images, json!({}));
    world.name("app", &index);
    for (options, at, said) in [
        (&["--platform", "windows/amd64"][..], Some(2), true),
        (&["--platform", "windows/amd64:10.0.20348"], Some(2), true),
        (&["--platform", "windows/amd64", "--os-version", "10.0.20348"], Some(2), true),
        (&["--platform", "windows/amd64:10.0.17763"], Some(0), false),
        (&["--platform", "windows/amd64:10.0.20348.405"], Some(1), false),
        (&["--platform", "windows/amd64:10.0.2"], None, false),
        (&["--platform", "linux/amd64"], None, false),
    ] {
        let out = world.run(&[&["digest", "oci:DIR/l:app"], options].concat());
        assert_eq!(out.status.code(), Some(if at.is_some() { 0 } else { 3 }), "{options:?} {}", told(&out));
        if let Some(at) = at {
            assert_eq!(out.stdout.trim(), images[at].digest.to_string(), "{options:?} {}", told(&out));
        }
        let listed = out.stderr.contains("10.0.20348.405") && out.stderr.contains("newest");
        assert_eq!(listed, said, "{options:?} {}", told(&out));
    }
    let out = world.run(&["inspect", "oci:DIR/l:app", "--platform", "windows/amd64:10.0.20348", "--json"]);
    assert!(out.stdout.contains(builds[2]) && !out.stdout.contains(builds[1]), "{}", told(&out));
    for wrong in [&["--os-version", "10"][..], &["--platform", "windows/amd64", "--os-version", "10 0"]] {
        let out = world.run(&[&["digest", "oci:DIR/l:app"], wrong].concat());
        assert_eq!(out.status.code(), Some(2), "{wrong:?} {}", told(&out));
    }
}
