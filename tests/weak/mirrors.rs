//! Several places that have the same image.

use super::support::fault_proxy::{End, Fault, Ill};
use super::*;
use imgmv::Descriptor;
use imgmv::internals::image::media_type;
use serde_json::json;

const MIB: u64 = 1 << 20;

/// The scene's image at a second registry, too.
fn mirror(scene: &Scene) -> (Double, Proxy) {
    let double = Double::start();
    double.image("team/app", "1", &[&noise(scene.size, scene.size as usize)]);
    let line = Proxy::start(&double.host());
    (double, line)
}

/// The registry was asked for what belongs to the image, which a mirror may not know, and for nothing else.
fn only_asked_for_referrers(scene: &Scene) {
    let asked = [("GET", "/referrers/"), ("HEAD", "/manifests/sha256-"), ("GET", "")];
    assert_eq!(asked.map(|(method, part)| scene.line.seen(method, part).len()), [1, 3, 1]);
}

#[test]
fn a_mirror_is_asked_and_the_registry_only_for_referrers() {
    let scene = Scene::new(3 << 20);
    let (_double, line) = mirror(&scene);
    let out = good(scene.pull(&["--mirror", &line.host()]));
    scene.is_there();
    only_asked_for_referrers(&scene);
    assert!(out.stdout.contains(&scene.image.digest().to_string()), "{}", out.stdout);
}

/// Adds a signature to the image in `double`, and another one under cosign's tag; returns their digests.
fn sign(double: &Double, image: &Manifest, text: &str) -> [Digest; 2] {
    let config = Descriptor::of(media_type::OCI_CONFIG, support::registry::config());
    let signature = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": "application/x.signature",
        "config": config, "layers": [], "subject": image.descriptor, "annotations": { "text": text },
    });
    let signature = Manifest::from_bytes(signature.to_string().into_bytes(), media_type::OCI_MANIFEST).unwrap();
    double.put_manifest("team/app", None, &signature);
    let tag = format!("sha256-{}.sig", image.digest().hex());
    [signature.digest(), double.image("team/app", &tag, &[text.as_bytes()]).digest()]
}

/// A mirror may have an image without its signatures, or with older ones.
#[test]
fn what_belongs_to_an_image_is_what_the_mirrors_and_the_registry_list() {
    for (has_api, has_older) in [(true, false), (false, false), (true, true), (false, true)] {
        let scene = Scene::new(3 << 20);
        let (double, line) = mirror(&scene);
        [&double, &scene.double].into_iter().for_each(|one| one.faults().no_referrers = !has_api);
        let older = has_older.then(|| sign(&double, &scene.image, "older"));
        let [referrer, tagged] = sign(&scene.double, &scene.image, "newer");
        if !has_api {
            let list = |double: &Double, entry: Digest| {
                let entry = double.manifest("team/app", &entry).unwrap().1;
                let index = json!({
                    "schemaVersion": 2, "mediaType": media_type::OCI_INDEX,
                    "manifests": [Descriptor::of(media_type::OCI_MANIFEST, &entry)],
                });
                let index = Manifest::from_bytes(index.to_string().into_bytes(), media_type::OCI_INDEX).unwrap();
                double.put_manifest("team/app", Some(&format!("sha256-{}", scene.image.digest().hex())), &index);
            };
            list(&scene.double, referrer);
            older.iter().for_each(|[older, _]| list(&double, *older));
        }
        good(scene.pull(&["--mirror", &line.host()]));
        whole(&scene.layout(), &scene.image);
        let expected = [Some(referrer), Some(tagged), older.map(|[older, _]| older)];
        for digest in expected.into_iter().flatten() {
            assert!(scene.layout().join(digest.blob_path()).exists(), "{digest}: {has_api} {has_older}");
        }
        assert!(scene.line.seen("GET", &scene.layer().to_string()).is_empty());
    }
}

/// Without the registry, the image and what the mirror knows are copied, and a message says that there may be more.
#[test]
fn a_registry_that_cannot_be_reached_may_have_more() {
    let layer = noise(1, 1000);
    let (double, dir) = (Double::start(), TempDir::new().unwrap());
    let image = double.image("team/app", "1", &[&layer]);
    let [referrer, tagged] = sign(&double, &image, "known");
    let home = format!("127.0.0.1:{}", support::program::free_port());
    let (from, to) = (format!("{home}/team/app:1"), format!("oci:{}:1", dir.path().display()));
    let copy = ["copy", "--mirror", &double.host(), &from, &to];
    let out = good(imgmv(&copy, None));
    assert!([referrer, tagged].iter().all(|digest| dir.path().join(digest.blob_path()).exists()), "{}", out.stderr);
    let told = "not all that belongs to the image is copied";
    assert_eq!(out.stderr.matches(told).count(), 1, "{}", out.stderr);
    assert!(out.stderr.contains(&format!("{home} cannot be asked for more referrers")), "{}", out.stderr);
    // Mirrors are used where the registry cannot be reached, so it is asked once.
    assert!(!out.stderr.contains("retry in"), "{}", out.stderr);
    let required = imgmv(&[&copy[..], &["--require-referrers", "signature"]].concat(), None);
    assert_eq!(required.status.code(), Some(3), "{}", required.stderr);
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
    only_asked_for_referrers(&scene);
}

#[test]
fn a_mirror_may_have_the_repository_below_a_path() {
    let scene = Scene::new(3 << 20);
    let double = Double::start();
    double.image("hub/cache/team/app", "1", &[&noise(scene.size, scene.size as usize)]);
    let out = good(scene.pull(&["--mirror", &format!("{}/hub/cache", double.host())]));
    scene.is_there();
    only_asked_for_referrers(&scene);
    assert!(out.stdout.contains(&scene.image.digest().to_string()) && !out.stdout.contains("hub"), "{}", out.stdout);
}
