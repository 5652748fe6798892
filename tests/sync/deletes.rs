//! `--delete`: tags that are gone, and everything that must not lead to a deletion.

use super::scene::Scene;
use crate::support::program::imgmv;
use crate::support::registry::Stumble;

/// A scene in which the destination has the tags of the source, and tags that are gone.
fn scene(gone: &[&str]) -> Scene {
    let scene = Scene::new();
    for (seed, tag) in ["1.0", "1.1", "2.0"].iter().enumerate() {
        scene.image("app", tag, seed as u64 + 11);
    }
    scene.synced(&["FROM/app:/^[0-9]/", "TO/app"]);
    for (seed, tag) in gone.iter().enumerate() {
        scene.to.image("app", tag, &[format!("gone {seed}").as_bytes()]);
    }
    scene
}

fn tags(scene: &Scene) -> Vec<String> {
    scene.to.contents("app").1.into_keys().collect()
}

const ALL: &str = "FROM/app:/^[0-9]/";

#[test]
fn a_tag_that_is_gone_is_deleted_and_its_manifest_stays() {
    let scene = scene(&["0.9"]);
    let digest = scene.to.tag("app", "0.9").unwrap();
    let plan = scene.synced(&[ALL, "TO/app", "--delete", "--dry-run"]);
    assert!(plan.stdout.contains(&format!("gone {}/app:0.9@{digest}\n", scene.to.host())), "{}", plan.stdout);
    assert_eq!(tags(&scene).len(), 4);
    let output = scene.synced(&[ALL, "TO/app", "--delete", "--yes"]);
    assert!(output.stderr.contains("1 deleted"), "{}", output.stderr);
    assert_eq!(tags(&scene), ["1.0", "1.1", "2.0"]);
    assert!(scene.to.manifest("app", &digest).is_some());
    assert_eq!(scene.to.count("DELETE", "sha256"), 0);
}

#[test]
fn entries_that_write_into_one_repository_are_united() {
    let scene = scene(&["0.9"]);
    scene.image("other", "0.9", 50);
    let pairs = scene
        .write("pairs.txt", "FROM/app:1.0 TO/app\nFROM/app:1.1 TO/app\nFROM/app:2.0 TO/app\nFROM/other:0.9 TO/app\n");
    scene.synced(&[&pairs, "--delete", "--yes"]);
    assert_eq!(tags(&scene).len(), 4);
}

#[test]
fn nothing_is_deleted_without_a_terminal_or_yes() {
    let scene = scene(&["0.9"]);
    scene.to.forget_requests();
    let output = scene.sync(&[ALL, "TO/app", "--delete"]);
    assert_eq!(output.status.code(), Some(2), "{}", output.stderr);
    assert!(scene.to.requests().is_empty());
    assert!(output.stderr.contains("--yes"), "{}", output.stderr);
    assert_eq!(tags(&scene).len(), 4);
}

#[test]
fn a_plan_above_the_maximum_deletes_nothing() {
    let scene = scene(&["0.7", "0.8", "0.9"]);
    let output = scene.sync(&[ALL, "TO/app", "--delete", "--yes"]);
    assert_eq!(output.status.code(), Some(1), "{}", output.stderr);
    assert!(output.stderr.contains("--delete-max 10% allows 1"), "{}", output.stderr);
    assert_eq!(tags(&scene).len(), 6);
    scene.synced(&[ALL, "TO/app", "--delete", "--yes", "--delete-max", "3"]);
    assert_eq!(tags(&scene).len(), 3);
}

#[test]
fn one_repository_above_the_maximum_protects_all_repositories() {
    let scene = scene(&["0.9"]);
    for tag in ["1", "2", "3"] {
        scene.to.image("other", tag, &[tag.as_bytes()]);
    }
    scene.image("other", "9", 60);
    let pairs = scene.write(
        "set.yml",
        "images:\n- {from: FROM/app, to: TO/app, tags: {regex: .}}\n- {from: FROM/other:9, to: TO/other}\n",
    );
    let output = scene.sync(&[&pairs, "--delete", "--yes"]);
    assert_eq!(output.status.code(), Some(1), "{}", output.stderr);
    assert_eq!((tags(&scene).len(), scene.to.count("DELETE", "")), (4, 0));
}

/// Breaks the source.
type Break = Box<dyn Fn(&Scene)>;

/// Each source breaks in another way; none leads to a deletion.
#[test]
fn a_broken_source_deletes_nothing() {
    let listing = "/v2/app/tags/list";
    let broken: [(&str, Break); 7] = [
        ("forbidden", Box::new(move |scene| scene.from.faults().stumbles.push(Stumble::new("GET", listing, 403, 99)))),
        (
            "unavailable",
            Box::new(move |scene| scene.from.faults().stumbles.push(Stumble::new("GET", listing, 503, 99))),
        ),
        ("cut", Box::new(move |scene| scene.from.faults().stumbles.push(Stumble::new("GET", listing, 0, 99)))),
        (
            "half a list",
            Box::new(|scene| {
                scene.from.faults().page = Some(2);
                let forget = scene.from.forgetter();
                scene.from.after_requests(1, move || forget("app"));
            }),
        ),
        ("no tags", Box::new(|scene| scene.from.faults().unlisted = Some("."))),
        ("gone", Box::new(|scene| scene.from.forget("app"))),
        (
            "no match",
            Box::new(|scene| {
                scene.from.faults().unlisted = Some(".");
                scene.from.image("app", "edge", &[b"edge"]);
            }),
        ),
    ];
    for (how, break_it) in broken {
        let scene = scene(&["0.9"]);
        break_it(&scene);
        let output = scene.sync(&[ALL, "TO/app", "--delete", "--yes", "--delete-max", "100%", "--retry", "0"]);
        assert!(!output.status.success(), "{how}: {}", output.stderr);
        assert_eq!((tags(&scene).len(), scene.to.count("DELETE", "")), (4, 0), "{how}: {}", output.stderr);
    }
}

#[test]
fn one_broken_source_protects_all_repositories() {
    let scene = scene(&["0.9"]);
    let document = "images:\n- {from: FROM/app, to: TO/app, tags: {regex: .}}\n- {from: FROM/none, to: TO/none, tags: {regex: .}}\n";
    let document = scene.write("set.yml", document);
    let output = scene.sync(&[&document, "--delete", "--yes"]);
    assert!(!output.status.success() && output.stderr.contains("nothing was deleted"), "{}", output.stderr);
    assert_eq!(tags(&scene).len(), 4);
}

#[test]
fn a_registry_that_keeps_tags_loses_no_manifest() {
    let scene = scene(&["0.9"]);
    scene.to.faults().keeps_tags = true;
    let output = scene.sync(&[ALL, "TO/app", "--delete", "--yes"]);
    assert!(output.stderr.contains("cannot delete tags"), "{}", output.stderr);
    assert_eq!(output.status.code(), Some(9));
    assert_eq!((tags(&scene).len(), scene.to.count("DELETE", "sha256")), (4, 0));
}

#[test]
fn a_tag_that_moves_before_its_deletion_is_spared() {
    // The requests of a run in which it does not move: the second question about the tag is the one before its deletion.
    let still = scene(&["0.9"]);
    still.to.forget_requests();
    still.synced(&[ALL, "TO/app", "--delete", "--yes"]);
    let requests = still.to.requests();
    let asked = requests.iter().enumerate().filter(|(_, one)| one.path.ends_with("/manifests/0.9"));
    let (again, _) = asked.map(|(at, one)| (at, one.method.clone())).nth(1).unwrap();

    let scene = scene(&["0.9"]);
    let new = scene.to.tag("app", "2.0").unwrap();
    let move_tag = scene.to.tagger();
    scene.to.after_requests(again, move || move_tag("app", "0.9", new));
    let output = scene.sync(&[ALL, "TO/app", "--delete", "--yes"]);
    assert!(output.stderr.contains("moved during the run"), "{}", output.stderr);
    assert_eq!(scene.to.tag("app", "0.9"), Some(new));
}

#[test]
fn signatures_stay_with_their_image() {
    let scene = scene(&["0.9"]);
    let digest = scene.to.tag("app", "1.0").unwrap();
    let signature = format!("sha256-{}.sig", digest.hex());
    scene.to.image("app", &signature, &[b"signature"]);
    scene.synced(&[ALL, "TO/app", "--delete", "--yes"]);
    assert_eq!(tags(&scene), ["1.0", "1.1", "2.0", &signature]);
}

#[test]
fn a_layout_loses_the_names_that_are_gone() {
    let scene = scene(&[]);
    let layout = format!("oci:{}", scene.at("mirror"));
    scene.synced(&[ALL, &layout]);
    let document = scene.write("set.yml", "images:\n- {from: FROM/app, tags: {regex: ^1}}\n");
    scene.synced(&[&document, &layout, "--delete", "--yes"]);
    let host = scene.from.host();
    let listed = imgmv(&["list", &layout], None).stdout;
    let mut names: Vec<&str> = listed.lines().collect();
    names.sort_unstable();
    assert_eq!(names, [format!("{host}/app:1.0"), format!("{host}/app:1.1")]);
}

#[test]
fn other_destinations_are_refused_before_anything_moves() {
    let scene = scene(&[]);
    for to in ["out.tar", "docker-daemon:", "registry-dir:tree"] {
        let output = scene.sync(&[ALL, to, "--delete", "--yes"]);
        assert_eq!(output.status.code(), Some(2), "{to}: {}", output.stderr);
        assert!(output.stderr.contains("--delete"), "{}", output.stderr);
    }
}

#[test]
fn an_image_that_is_not_copied_deletes_nothing() {
    for (how, stumble) in
        [("missing", None), ("unavailable", Some(Stumble::new("HEAD", "/v2/app/manifests/2.0", 503, 99)))]
    {
        let scene = scene(&["0.9"]);
        match stumble {
            Some(stumble) => scene.from.faults().stumbles.push(stumble),
            None => scene.from.forget("app"),
        }
        let words =
            ["FROM/app:2.0", "TO/app", "--delete", "--yes", "--delete-max", "100%", "--retry", "0", "--no-referrers"];
        let output = scene.sync(&words);
        assert!(!output.status.success() && output.stderr.contains("was not copied"), "{how}: {}", output.stderr);
        assert_eq!((tags(&scene).len(), scene.to.count("DELETE", "")), (4, 0), "{how}: {}", output.stderr);
    }
}

#[test]
fn a_dry_run_lists_a_plan_above_the_maximum() {
    let scene = scene(&["0.7", "0.8", "0.9"]);
    let plan = scene.sync(&[ALL, "TO/app", "--delete", "--dry-run"]);
    assert_eq!(plan.status.code(), Some(1), "{}", plan.stderr);
    assert_eq!(plan.stdout.lines().filter(|line| line.starts_with("gone ")).count(), 3, "{}", plan.stdout);
    for (option, listed) in [("--dry-run", 3), ("--yes", 0)] {
        let output = scene.sync(&[ALL, "TO/app", "--delete", option, "--json"]);
        let answer: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!(answer["deleted"].as_array().map(Vec::len), Some(listed), "{answer}");
        let error = &answer["errors"][0];
        assert!(error["to"].is_null() && error["message"].as_str().unwrap().contains("--delete-max"), "{answer}");
    }
}

#[test]
fn a_destination_that_is_a_source_is_refused() {
    let scene = scene(&[]);
    for to in ["FROM/app", "FROM/"] {
        let output = scene.sync(&["FROM/app:/^1/", to, "--delete", "--yes"]);
        assert_eq!(output.status.code(), Some(2), "{to}: {}", output.stderr);
        assert!(output.stderr.contains("is a source and a destination"), "{}", output.stderr);
    }
    assert!(scene.from.tag("app", "2.0").is_some());
}

#[test]
fn an_image_without_a_tag_deletes_no_tags() {
    let scene = scene(&["0.9"]);
    let digest = scene.from.tag("app", "1.0").unwrap();
    let output = scene.sync(&[&format!("FROM/app@{digest}"), "TO/app", "--delete", "--yes", "--delete-max", "100%"]);
    assert_eq!(output.status.code(), Some(1), "{}", output.stderr);
    assert_eq!((tags(&scene).len(), scene.to.count("DELETE", "")), (4, 0), "{}", output.stderr);
}

#[test]
fn a_filter_without_a_match_deletes_nothing_though_it_has_literal_tags() {
    let scene = scene(&["0.9"]);
    let document = "images:\n- {from: FROM/app, to: TO/app, tags: {regex: nothing, with: ['1.0']}}\n";
    let document = scene.write("set.yml", document);
    let output = scene.sync(&[&document, "--delete", "--yes", "--delete-max", "100%"]);
    assert!(output.stderr.contains("no tag of"), "{}", output.stderr);
    assert_eq!((tags(&scene).len(), scene.to.count("DELETE", "")), (4, 0), "{}", output.stderr);
}
