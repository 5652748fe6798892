//! Several places that have the same image.

use super::support::fault_proxy::{End, Fault, Ill};
use super::*;

const MIB: u64 = 1 << 20;

/// The scene's image at a second registry, too.
fn mirror(scene: &Scene) -> (Double, Proxy) {
    let double = Double::start();
    double.image("team/app", "1", &[&noise(scene.size, scene.size as usize)]);
    let line = Proxy::start(&double.host());
    (double, line)
}

#[test]
fn a_mirror_is_asked_and_the_registry_is_left_alone() {
    let scene = Scene::new(3 << 20);
    let (_double, line) = mirror(&scene);
    let out = good(scene.pull(&["--mirror", &line.host()]));
    scene.is_there();
    assert_eq!(scene.line.traffic().connections, 0);
    assert!(out.stdout.contains(&scene.image.digest().to_string()), "{}", out.stdout);
}

/// A mirror that has no referrers API and lists none may not know them.
#[test]
fn the_registry_is_asked_for_referrers_that_a_mirror_may_not_know() {
    let scene = Scene::new(3 << 20);
    let (double, line) = mirror(&scene);
    double.faults().no_referrers = true;
    good(scene.pull(&["--mirror", &line.host()]));
    scene.is_there();
    let asked = ["/referrers/", "/blobs/"].map(|part| scene.line.seen("GET", part).len());
    assert_eq!((asked, line.seen("GET", "/blobs/").is_empty()), ([1, 0], false));
}

#[test]
fn a_mirror_that_fails_midway_is_left_at_its_byte() {
    let scene = Scene::new(9 << 20);
    let (_double, line) = mirror(&scene);
    line.does(Fault::once("GET", "", Ill::Cut { after: 4 * MIB, end: End::Fin }).of(&scene.layer()));
    line.does(Fault::times(99, "GET", "", Ill::Status { status: 503, retry_after: None }).of(&scene.layer()));
    let out = good(scene.pull(&["--mirror", &line.host()]));
    scene.is_there();
    let asked = scene.asked();
    assert_eq!((asked.len(), asked[0].from()), (1, 4 * MIB), "{asked:?}");
    assert!(out.stderr.contains("failed, using "), "{}", out.stderr);
}

#[test]
fn a_mirror_without_the_image_or_without_anybody_costs_nothing_but_a_question() {
    let scene = Scene::new(3 << 20);
    let empty = Double::start();
    let nobody = super::support::program::free_port();
    good(scene.pull(&["--mirror", &empty.host(), "--mirror", &format!("127.0.0.1:{nobody}")]));
    scene.is_there();
}

#[test]
fn a_mirror_with_other_bytes_is_found_out_and_left() {
    let scene = Scene::new(3 << 20);
    let (_double, line) = mirror(&scene);
    line.does(Fault::times(99, "GET", "", Ill::Flip { at: 1000 }).of(&scene.layer()));
    good(scene.pull(&["--mirror", &line.host()]));
    scene.is_there();
    assert_eq!((line.seen("GET", "/blobs/").is_empty(), scene.asked().len()), (false, 1));
}

#[test]
fn mirrors_are_found_where_podman_keeps_them() {
    let scene = Scene::new(3 << 20);
    let (_double, line) = mirror(&scene);
    let conf = scene.dir.path().join("containers/registries.conf");
    std::fs::create_dir_all(conf.parent().unwrap()).unwrap();
    let (home, mirror) = (scene.line.host(), line.host());
    let text = format!("[[registry]]\nlocation = \"{home}\"\n[[registry.mirror]]\nlocation = \"{mirror}\"\n");
    std::fs::write(&conf, text).unwrap();
    let out = super::support::program::command(env!("CARGO_BIN_EXE_imgmv"))
        .env("XDG_CONFIG_HOME", scene.dir.path())
        .args(["copy", &format!("{home}/team/app:1"), &format!("oci:{}", scene.layout().display())])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    scene.is_there();
    assert_eq!(scene.line.traffic().connections, 0);
}

#[test]
fn a_mirror_may_have_the_repository_below_a_path() {
    let scene = Scene::new(3 << 20);
    let double = Double::start();
    double.image("hub/cache/team/app", "1", &[&noise(scene.size, scene.size as usize)]);
    let out = good(scene.pull(&["--mirror", &format!("{}/hub/cache", double.host())]));
    scene.is_there();
    assert_eq!(scene.line.traffic().connections, 0);
    assert!(out.stdout.contains(&scene.image.digest().to_string()) && !out.stdout.contains("hub"), "{}", out.stdout);
}
