//! What is copied, where it goes, and what it costs.

use super::scene::Scene;
use crate::support::noise::noise;
use crate::support::program::imgmv;
use crate::support::web::Request;
use imgmv::{Digest, Manifest};
use serde_json::{Value, json};
use std::fs;

/// A scene with three images in two repositories, and their list.
fn three() -> (Scene, String) {
    let scene = Scene::new();
    scene.image("team/app", "1", 11);
    scene.image("team/app", "2", 12);
    scene.image("base/db", "latest", 13);
    let list = scene.write("images.txt", "# three images\nFROM/team/app:1\nFROM/team/app:2\n\nFROM/base/db\n");
    (scene, list)
}

#[test]
fn each_image_of_a_list_keeps_its_path_below_a_prefix() {
    let (scene, list) = three();
    let output = scene.synced(&[&list, "TO/mirror/"]);
    for (repository, tag) in [("team/app", "1"), ("team/app", "2"), ("base/db", "latest")] {
        let digest = scene.from.tag(repository, tag);
        assert_eq!(scene.to.tag(&format!("mirror/{repository}"), tag), digest, "{repository}:{tag}");
        let line = format!("{}/mirror/{repository}:{tag}@{}\n", scene.to.host(), digest.unwrap());
        assert!(output.stdout.contains(&line), "{}", output.stdout);
    }
    let first = output.stderr.lines().next().unwrap();
    assert!(first.starts_with(&list) && first.contains("list") && first.contains("3 entries"), "{first}");
    assert!(output.stderr.contains("3 new, 0 changed, 0 same\n"), "{}", output.stderr);
}

#[test]
fn the_host_of_the_source_stays_in_the_path_with_keep_host() {
    let (scene, list) = three();
    scene.synced(&[&list, "TO/", "--keep-host"]);
    let host = scene.from.host().replace(':', "_");
    assert!(scene.to.tag(&format!("{host}/base/db"), "latest").is_some());
}

#[test]
fn a_second_run_asks_the_source_once_for_each_tag_and_moves_nothing() {
    let (scene, list) = three();
    scene.synced(&[&list, "TO/", "--no-referrers"]);
    scene.from.forget_requests();
    scene.to.forget_requests();
    let output = scene.synced(&[&list, "TO/", "--no-referrers"]);
    assert!(output.stderr.contains("0 new, 0 changed, 3 same\n"), "{}", output.stderr);
    assert_eq!(scene.from.count("HEAD", "/manifests/"), 3);
    assert_eq!((scene.from.count("GET", "/manifests/"), scene.from.count("GET", "/blobs/")), (0, 0));
    assert_eq!((scene.to.count("POST", ""), scene.to.count("PUT", "")), (0, 0));
}

#[test]
fn a_new_image_asks_the_destination_once_for_its_tag() {
    let (scene, list) = three();
    scene.synced(&[&list, "TO/", "--no-referrers"]);
    assert_eq!(scene.to.count("HEAD", "/manifests/"), 3);
}

#[test]
fn the_images_of_a_repository_share_what_is_known_of_its_referrers() {
    let scene = Scene::new();
    scene.from.faults().no_referrers = true;
    let list: String = (0..5)
        .map(|tag| {
            scene.image("team/app", &tag.to_string(), tag);
            format!("FROM/team/app:{tag}\n")
        })
        .collect();
    let list = scene.write("images.txt", &list);
    scene.synced(&[&list, "TO/", "--parallel", "1"]);
    assert_eq!(scene.from.count("GET", "/referrers/"), 1);
    // The three tags of the first subject; of the others one list tells.
    assert_eq!((scene.from.count("HEAD", "/manifests/"), scene.from.count("GET", "/tags/list")), (3, 1));
}

#[test]
fn a_tag_that_moved_is_changed_and_the_others_are_the_same() {
    let (scene, list) = three();
    scene.synced(&[&list, "TO/"]);
    let digest = scene.image("team/app", "2", 99);
    let output = scene.synced(&[&list, "TO/", "--json"]);
    let answer: Value = serde_json::from_str(&output.stdout).unwrap();
    let states: Vec<&str> =
        answer["images"].as_array().unwrap().iter().map(|one| one["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["same", "changed", "same"]);
    assert_eq!(scene.to.tag("team/app", "2"), Some(digest));
}

#[test]
fn an_index_without_its_children_is_not_the_same() {
    let scene = Scene::new();
    let layers = [noise(1, 100), noise(2, 100)];
    let children: Vec<Manifest> = layers.iter().map(|layer| scene.from.image("app", "x", &[layer])).collect();
    let entries: Vec<Value> = children
        .iter()
        .zip(["amd64", "arm64"])
        .map(|(child, architecture)| {
            json!({"mediaType": child.descriptor.media_type, "digest": child.digest().to_string(),
                   "size": child.bytes.len(), "platform": {"os": "linux", "architecture": architecture}})
        })
        .collect();
    let index =
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries});
    let index =
        Manifest::from_bytes(index.to_string().into_bytes(), "application/vnd.oci.image.index.v1+json").unwrap();
    scene.from.put_manifest("app", Some("1"), &index);
    scene.to.faults().takes_sparse = true;
    scene.synced(&["FROM/app:1", "TO/", "--no-referrers", "--platform", "linux/arm64"]);
    assert_eq!(scene.to.tag("app", "1"), Some(index.digest()));
    assert!(scene.to.manifest("app", &children[0].digest()).is_none());
    scene.synced(&["FROM/app:1", "TO/", "--no-referrers"]);
    assert!(scene.to.manifest("app", &children[0].digest()).is_some());
}

#[test]
fn a_pattern_selects_the_latest_tags() {
    let scene = Scene::new();
    for (seed, tag) in ["1.2", "1.9", "1.10", "2.0", "edge"].iter().enumerate() {
        scene.image("org/app", tag, seed as u64 + 20);
    }
    scene.synced(&[r"FROM/org/app:/^1\.\d+$/", "TO/copy/app", "--latest", "2"]);
    let (_, tags) = scene.to.contents("copy/app");
    assert_eq!(tags.keys().collect::<Vec<_>>(), ["1.10", "1.9"]);
}

#[test]
fn a_source_with_several_destinations_is_read_once() {
    let (scene, _) = three();
    let document = "images:\n- {from: FROM/team/app, to: [TO/a/app, TO/b/app], tags: {regex: '^1$'}}\n";
    let document = scene.write("set.yml", document);
    scene.synced(&[&document]);
    assert_eq!(scene.to.tag("a/app", "1"), scene.from.tag("team/app", "1"));
    assert_eq!(scene.to.tag("b/app", "1"), scene.from.tag("team/app", "1"));
    let blobs = scene.from.requests().iter().filter(|one| one.method == "GET" && one.path.contains("/blobs/")).count();
    assert!(blobs <= 3, "{blobs} reads of 3 blobs");
}

#[test]
fn all_images_go_into_one_archive_or_layout() {
    let (scene, list) = three();
    for to in ["bundle.tar", "mirror"] {
        let place = match to {
            "mirror" => format!("oci:{}", scene.at(to)),
            _ => scene.at(to),
        };
        scene.synced(&[&list, &place]);
        let listed = imgmv(&["list", &place], None).stdout;
        let mut names: Vec<&str> = listed.lines().collect();
        names.sort_unstable();
        let host = scene.from.host();
        let expected = [format!("{host}/base/db:latest"), format!("{host}/team/app:1"), format!("{host}/team/app:2")];
        assert_eq!(names, expected, "{to}");
        let back = format!("docker://{}/{to}/", scene.to.host());
        assert!(imgmv(&["copy", &place, &back, "--compress", "keep"], None).status.success());
        assert_eq!(scene.to.tag(&format!("{to}/team/app"), "2"), scene.from.tag("team/app", "2"));
    }
}

#[test]
fn a_dry_run_tells_states_and_writes_nothing() {
    let (scene, list) = three();
    scene.synced(&["FROM/team/app:1", "TO/"]);
    scene.to.forget_requests();
    let lock = scene.at("lock");
    let output = scene.synced(&[&list, "TO/", "--dry-run", "--lock-file", &lock]);
    let states: Vec<&str> = output.stdout.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(states, ["same", "new", "new"], "{}", output.stdout);
    assert!(output.stderr.contains("to transfer"), "{}", output.stderr);
    assert_eq!((scene.to.count("POST", ""), scene.to.count("PUT", "")), (0, 0));
    assert!(!fs::exists(lock).unwrap());
}

#[test]
fn two_images_for_one_name_are_refused_before_anything_moves() {
    let (scene, _) = three();
    scene.image("other/app", "1", 77);
    let pairs = scene.write("pairs.txt", "FROM/team/app:1 TO/x:1\nFROM/other/app:1 TO/x:1\n");
    let output = scene.sync(&[&pairs]);
    assert_eq!(output.status.code(), Some(2), "{}", output.stderr);
    assert!(output.stderr.contains("line 2"), "{}", output.stderr);
    assert!(scene.to.requests().is_empty());
}

#[test]
fn a_blob_that_several_images_share_is_read_and_sent_once() {
    let scene = Scene::new();
    let shared = noise(1, 300_000);
    let mut lines = String::new();
    for nth in 0..8 {
        let repository = format!("team/app{nth}");
        scene.from.image(&repository, "1", &[&shared, &noise(nth + 10, 2000)]);
        lines += &format!("FROM/{repository}:1\n");
    }
    let list = scene.write("images.txt", &lines);
    scene.synced(&[&list, "TO/", "--parallel", "8"]);
    let digest = Digest::of(&shared).to_string();
    let reads = scene.from.requests().iter().filter(|one| one.method == "GET" && one.path.contains(&digest)).count();
    let sends = |one: &&Request| one.method == "PUT" && one.parameter("digest").as_ref() == Some(&digest);
    let puts = scene.to.requests().iter().filter(sends).count();
    assert_eq!((reads, puts), (1, 1));
    let (_, tags) = scene.to.contents("team/app7");
    assert_eq!(tags.get("1").copied(), scene.from.tag("team/app7", "1"));
}

#[test]
fn a_layout_that_has_the_images_is_the_same() {
    let (scene, list) = three();
    let layout = format!("oci:{}", scene.at("mirror"));
    assert!(scene.synced(&[&list, &layout]).stderr.contains("3 new, 0 changed, 0 same"));
    scene.image("team/app", "1", 99);
    let again = scene.synced(&[&list, &layout]);
    assert!(again.stderr.contains("0 new, 1 changed, 2 same"), "{}", again.stderr);
}

#[test]
fn one_name_for_two_platforms_is_refused() {
    let (scene, _) = three();
    let list =
        scene.write("images.txt", "--platform=linux/amd64 FROM/team/app:1\n--platform=linux/arm64 FROM/team/app:1\n");
    let output = scene.sync(&[&list, "TO/"]);
    assert_eq!(output.status.code(), Some(2), "{}", output.stderr);
    assert!(
        output.stderr.contains("images.txt: line 2: ") && output.stderr.contains("other platforms"),
        "{}",
        output.stderr
    );
}

#[test]
fn two_spellings_of_a_layout_are_one_place() {
    let (scene, _) = three();
    fs::create_dir(scene.at("mirror")).unwrap();
    let (one, other) = (scene.at("mirror"), scene.at("./mirror"));
    let document = format!(
        "images:\n- {{from: 'FROM/team/app@{}', to: 'oci:{one}'}}\n- {{from: FROM/team/app:1, to: 'oci:{other}'}}\n\
         - {{from: FROM/team/app:1, to: 'oci:{one}'}}\n",
        scene.from.tag("team/app", "1").unwrap()
    );
    let document = scene.write("set.yml", &document);
    let output = scene.synced(&[&document]);
    assert!(output.stderr.contains("2 new, 0 changed, 0 same"), "{}", output.stderr);
}

#[test]
fn an_image_that_two_entries_have_is_copied_once() {
    let (scene, _) = three();
    let document =
        "images:\n- {from: FROM/team/app:1, to: TO/x:1}\n- {from: FROM/team/app:1, to: ['TO/x:1', 'TO/y:1']}\n";
    let document = scene.write("set.yml", document);
    let output = scene.synced(&[&document]);
    assert_eq!(output.stdout.lines().count(), 2, "{}", output.stdout);
    assert_eq!(scene.to.count("PUT", "/x/manifests/1"), 1);
}

#[test]
fn a_dry_run_counts_a_blob_that_several_images_share_once() {
    let (scene, list) = three();
    let plan = scene.synced(&[&list, "TO/", "--dry-run", "--json"]);
    let run = scene.synced(&[&list, "TO/", "--json"]);
    let count = |output: &str| serde_json::from_str::<Value>(output).unwrap()["transferred"].clone();
    assert_eq!(count(&plan.stdout), count(&run.stdout));
}

#[test]
fn a_shared_blob_is_read_once_for_several_destinations_too() {
    let scene = Scene::new();
    let shared = noise(1, 3_000_000);
    for nth in 0..6 {
        scene.from.image("team/app", &format!("v{nth}"), &[&shared, &noise(nth + 10, 2000)]);
    }
    let to = format!("[TO/a/app, TO/b/app, 'oci:{}']", scene.at("mirror"));
    let document = format!("images:\n- {{from: FROM/team/app, to: {to}, tags: {{regex: v}}}}\n");
    let document = scene.write("set.yml", &document);
    let output = scene.synced(&[&document]);
    assert!(output.stderr.contains("18 new"), "{}", output.stderr);
    let digest = Digest::of(&shared).to_string();
    let reads = scene.from.requests().iter().filter(|one| one.method == "GET" && one.path.contains(&digest)).count();
    assert_eq!(reads, 1);
}
