//! The lock file: digests of one run that a later run copies.

use super::scene::Scene;

#[test]
fn a_locked_run_copies_the_digests_of_the_lock_file() {
    let scene = Scene::new();
    let old = scene.image("app", "1", 11);
    scene.image("app", "2", 12);
    let document = scene.write("set.yml", "images:\n- {from: FROM/app, tags: {regex: '^[12]$'}}\n");
    let lock = scene.at("set.yml.lock");
    scene.synced(&[&document, "TO/a/", "--lock-file", &lock]);
    assert!(scene.read("set.yml.lock").contains(&format!("{}/app:1@{old}\n", scene.from.host())));

    let new = scene.image("app", "1", 99);
    scene.from.forget_requests();
    scene.synced(&[&document, "TO/b/", "--locked", "--no-referrers"]);
    assert_eq!(scene.to.tag("b/app", "1"), Some(old));
    assert_eq!(scene.from.count("GET", "/tags/list"), 0);
    scene.synced(&[&document, "TO/b/"]);
    assert_eq!(scene.to.tag("b/app", "1"), Some(new));
}

#[test]
fn a_lock_file_is_a_list_of_images() {
    let scene = Scene::new();
    let digest = scene.image("app", "1", 11);
    let list = scene.write("images.txt", "FROM/app:1\n");
    let lock = scene.at("lock.txt");
    scene.synced(&[&list, "TO/a/", "--lock-file", &lock]);
    scene.synced(&[&lock, "TO/b/"]);
    assert_eq!(scene.to.tag("b/app", "1"), Some(digest));
}

#[test]
fn an_image_that_is_not_locked_fails() {
    let scene = Scene::new();
    scene.image("app", "1", 11);
    let list = scene.write("images.txt", "FROM/app:1\nFROM/app:2\n");
    let missing = scene.sync(&[&list, "TO/", "--locked"]);
    assert_eq!(missing.status.code(), Some(3), "{}", missing.stderr);
    assert!(missing.stderr.contains("images.txt.lock"), "{}", missing.stderr);
    let lock = scene.at("images.txt.lock");
    // A run in which an image failed has no complete lock.
    scene.sync(&[&list, "TO/", "--lock-file", &lock]);
    assert!(!std::fs::exists(&lock).unwrap());
    scene.synced(&["FROM/app:1", "TO/", "--lock-file", &lock]);
    let output = scene.sync(&[&list, "TO/", "--locked"]);
    assert_eq!(output.status.code(), Some(9), "{}", output.stderr);
    assert!(output.stderr.contains("app:2 is not in the lock file"), "{}", output.stderr);
}

#[test]
fn a_lock_file_leads_to_no_deletion() {
    let scene = Scene::new();
    scene.image("app", "1", 11);
    let list = scene.write("images.txt", "FROM/app:1\n");
    scene.synced(&[&list, "TO/", "--lock-file", &scene.at("images.txt.lock")]);
    scene.to.image("app", "0", &[b"gone"]);
    let output = scene.sync(&[&list, "TO/", "--locked", "--delete", "--yes"]);
    assert_eq!(output.status.code(), Some(2), "{}", output.stderr);
    assert!(scene.to.tag("app", "0").is_some());
}
