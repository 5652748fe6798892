//! Between two registries that run for real, where they are here.

use super::scene::Scene;
use crate::support::program::imgmv;
use crate::support::registry::Stumble;
use crate::support::some_registry::Registry;

#[test]
fn a_set_goes_from_one_real_registry_to_another_and_follows_its_tags() {
    let scene = Scene::new();
    for (seed, tag) in ["1.0", "1.1", "2.0"].iter().enumerate() {
        scene.image("team/app", tag, seed as u64 + 11);
        scene.image("team/db", tag, seed as u64 + 21);
    }
    let [from, to] = ["from", "to"].map(|name| {
        std::fs::create_dir(scene.at(name)).unwrap();
        Registry::start_with(&scene.dir.path().join(name), true)
    });
    scene.synced(&["FROM/team/app:/./", &format!("{}/team/app", from.address)]);
    scene.synced(&["FROM/team/db:/./", &format!("{}/team/db", from.address)]);
    let document =
        format!("images:\n- {{from: {0}/team/app, tags: {{semver: 1.x}}}}\n- {0}/team/db:2.0\n", from.address);
    let document = scene.write("set.yml", &document);
    let prefix = format!("docker://{}/mirror/", to.address);
    let first = scene.synced(&[&document, &prefix]);
    assert!(first.stderr.contains("3 new, 0 changed, 0 same"), "{}", first.stderr);
    let again = scene.synced(&[&document, &prefix]);
    assert!(again.stderr.contains("0 new, 0 changed, 3 same"), "{}", again.stderr);
    let listed = imgmv(&["list", &format!("{}/mirror/team/app", to.address)], None).stdout;
    let mut tags: Vec<&str> = listed.lines().filter_map(|name| name.rsplit(':').next()).collect();
    tags.sort_unstable();
    assert_eq!(tags, ["1.0", "1.1"]);
    for (repository, tag) in [("team/app", "1.1"), ("team/db", "2.0")] {
        let digest = imgmv(&["digest", &format!("{}/mirror/{repository}:{tag}", to.address)], None).stdout;
        assert_eq!(digest.trim(), scene.from.tag(repository, tag).unwrap().to_string());
    }
}

#[test]
fn a_registry_that_limits_the_rate_gets_everything_in_the_end() {
    let scene = Scene::new();
    let lines: String = (0..6)
        .map(|nth| {
            scene.image("app", &format!("v{nth}"), nth + 11);
            format!("FROM/app:v{nth}\n")
        })
        .collect();
    let list = scene.write("images.txt", &lines);
    scene.from.faults().stumbles.push(Stumble::new("GET", "/manifests/", 429, 4));
    scene.to.faults().stumbles.push(Stumble::new("POST", "/blobs/uploads/", 503, 4));
    let output = scene.synced(&[&list, "TO/"]);
    assert!(output.stderr.contains("retries"), "{}", output.stderr);
    assert_eq!(scene.to.contents("app").1.len(), 6);
}
