//! Images that fail: the others are copied, and the list of failures is the next run's input.

use super::scene::Scene;
use crate::support::program::imgmv;
use crate::support::registry::Stumble;

#[test]
fn one_missing_image_does_not_stop_the_others_and_is_the_next_input() {
    let scene = Scene::new();
    scene.image("app", "1", 11);
    scene.image("app", "3", 13);
    let list = scene.write("images.txt", "FROM/app:1\nFROM/app:2\nFROM/app:3\n");
    let failed = scene.at("failed.yml");
    let output = scene.sync(&[&list, "TO/mirror/", "--failed-file", &failed]);
    assert_eq!(output.status.code(), Some(9), "{}", output.stderr);
    assert!(output.stderr.contains("1 of 3 copies failed"), "{}", output.stderr);
    assert!(scene.to.tag("mirror/app", "1").is_some() && scene.to.tag("mirror/app", "3").is_some());

    let digest = scene.image("app", "2", 12);
    scene.to.forget_requests();
    scene.synced(&[&failed, "--failed-file", &failed]);
    assert_eq!(scene.to.tag("mirror/app", "2"), Some(digest));
    assert_eq!(scene.to.count("HEAD", "manifests/1"), 0);
    assert!(scene.read("failed.yml").contains("No image failed"), "{}", scene.read("failed.yml"));
}

#[test]
fn a_list_of_tags_that_fails_keeps_its_filter_in_the_next_input() {
    let scene = Scene::new();
    scene.image("app", "1.0", 11);
    scene.image("app", "2.0", 12);
    let document =
        "images:\n- {from: FROM/app, to: TO/app, tags: {regex: '^1', latest: 3}, platforms: [linux/amd64]}\n";
    let document = scene.write("set.yml", document);
    scene.from.faults().stumbles.push(Stumble::new("GET", "/tags/list", 403, 1));
    let failed = scene.at("failed.yml");
    let output = scene.sync(&[&document, "--failed-file", &failed]);
    assert_eq!(output.status.code(), Some(4), "{}", output.stderr);
    scene.synced(&[&failed]);
    let (_, tags) = scene.to.contents("app");
    assert_eq!(tags.keys().collect::<Vec<_>>(), ["1.0"], "{}", scene.read("failed.yml"));
}

#[test]
fn a_filter_without_a_match_is_an_error() {
    let scene = Scene::new();
    scene.image("app", "1.0", 11);
    let output = scene.sync(&["FROM/app:/^9/", "TO/app"]);
    assert_eq!(output.status.code(), Some(3), "{}", output.stderr);
    assert!(output.stderr.contains("no tag of"), "{}", output.stderr);
}

#[test]
fn a_destination_that_no_entry_uses_is_an_error() {
    let scene = Scene::new();
    scene.image("app", "1", 11);
    let pairs = scene.write("pairs.txt", "FROM/app:1 TO/app:1\n");
    assert_eq!(scene.sync(&[&pairs, "TO/other/"]).status.code(), Some(2));
    let list = scene.write("list.txt", "FROM/app:1\n");
    assert_eq!(scene.sync(&[&list]).status.code(), Some(2));
}

#[test]
fn an_image_by_digest_that_failed_is_the_next_input() {
    let scene = Scene::new();
    let digest = scene.image("app", "1", 11);
    let list = scene.write("images.txt", &format!("FROM/app@{digest}\n"));
    let failed = scene.at("failed.yml");
    scene.to.faults().stumbles.push(Stumble::new("PUT", "/manifests/", 403, 1));
    assert!(!scene.sync(&[&list, "TO/mirror/", "--failed-file", &failed]).status.success());
    scene.synced(&[&failed]);
    assert!(scene.to.manifest("mirror/app", &digest).is_some(), "{}", scene.read("failed.yml"));
}

#[test]
fn the_next_input_of_an_incomplete_archive_has_all_of_its_images() {
    let scene = Scene::new();
    scene.image("app", "1", 11);
    let list = scene.write("images.txt", "FROM/app:1\nFROM/app:2\n");
    let (archive, failed) = (scene.at("bundle.tar"), scene.at("failed.yml"));
    let output = scene.sync(&[&list, &archive, "--failed-file", &failed]);
    assert_eq!(output.status.code(), Some(9), "{}", output.stderr);
    let message = format!("{}/app:2 does not exist", scene.from.host());
    assert!(output.stderr.contains(&message), "{}", output.stderr);
    scene.image("app", "2", 12);
    scene.synced(&[&failed]);
    assert_eq!(imgmv(&["list", &archive], None).stdout.lines().count(), 2, "{}", scene.read("failed.yml"));
}

#[test]
fn a_file_that_cannot_be_written_does_not_hide_the_answer() {
    let scene = Scene::new();
    let digest = scene.image("app", "1", 11);
    for option in ["--failed-file", "--lock-file"] {
        let output = scene.sync(&["FROM/app:1", "TO/", option, &scene.at("missing/file")]);
        assert_eq!(output.status.code(), Some(8), "{}", output.stderr);
        assert!(output.stdout.contains(&digest.to_string()), "{option}: {}", output.stdout);
    }
}

#[test]
fn a_document_without_images_is_an_error_unless_it_is_allowed() {
    let scene = Scene::new();
    let failed = scene.write("failed.yml", "# No image failed.\n");
    let output = scene.sync(&[&failed, "TO/"]);
    assert_eq!(output.status.code(), Some(5), "{}", output.stderr);
    assert!(output.stderr.contains("--allow-empty"), "{}", output.stderr);
    scene.synced(&[&failed, "TO/", "--allow-empty"]);
}

#[test]
fn reserved_pulls_of_a_registry_are_left_and_the_message_says_when_to_run_again() {
    let scene = Scene::new();
    let lines: String = (0..6)
        .map(|nth| {
            scene.image("app", &format!("v{nth}"), nth + 11);
            format!("FROM/app:v{nth}\n")
        })
        .collect();
    let list = scene.write("images.txt", &lines);
    scene.from.faults().pulls = Some(7);
    let failed = scene.at("failed.yml");
    let output = scene.sync(&[
        &list,
        "TO/",
        "--no-referrers",
        "--hub-reserve",
        "4",
        "--parallel",
        "1",
        "--failed-file",
        &failed,
    ]);
    assert_eq!(output.status.code(), Some(9), "{}", output.stderr);
    assert!(output.stderr.contains("6 hours"), "{}", output.stderr);
    assert!(scene.from.faults().pulls.unwrap() >= 4);
    let copied = scene.to.contents("app").1.len();
    assert!(copied > 0 && copied < 6, "{copied} images were copied");
    scene.from.faults().pulls = Some(100);
    scene.synced(&[&failed, "--hub-reserve", "4"]);
    assert_eq!(scene.to.contents("app").1.len(), 6);
}
