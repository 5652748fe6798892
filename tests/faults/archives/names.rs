//! A reference's repository, tag and digest, on their way through archives, prefixes and engines.

use super::make::*;
use crate::support::engines::{Kind, Peer};
use crate::support::registry::Double;
use crate::support::shell::Shell;
use imgmv::Digest;
use serde_json::{Value, json};

const LAYERS: [&[u8]; 1] = [b"layer"];

/// The names in the `index.json` of an archive.
fn names(shell: &Shell, file: &str) -> Vec<String> {
    let index = document(&shell.at(file), "index.json");
    let name = |entry: &Value| entry["annotations"]["io.containerd.image.name"].as_str().unwrap_or("-").to_owned();
    index["manifests"].as_array().unwrap().iter().map(name).collect()
}

#[test]
fn repository_tag_and_digest_travel_into_an_archive_and_on() {
    let (double, shell) = (Double::start(), Shell::new());
    let digest = double.image("team/ctl", "1", &LAYERS).digest();
    let own = format!("{}/team/ctl", double.host());
    let (tag, by_digest) = (format!("{own}:1"), format!("{own}@{digest}"));
    for (nth, (src, expected, tags)) in [
        (by_digest.clone(), vec![by_digest.clone()], json!(null)),
        (format!("{own}:1@{digest}"), vec![tag.clone(), by_digest.clone()], json!([tag])),
    ]
    .into_iter()
    .enumerate()
    {
        let printed = good(&shell, &format!("imgmv save {src} -o {nth}.tar; imgmv list {nth}.tar"));
        assert_eq!(names(&shell, &format!("{nth}.tar")), expected);
        assert_eq!(printed.lines().skip(1).collect::<Vec<_>>(), expected);
        assert!(printed.starts_with(&format!("{}@{digest}", expected[0].split('@').next().unwrap())), "{printed}");
        assert_eq!(document(&shell.at(&format!("{nth}.tar")), "manifest.json")[0]["RepoTags"], tags);
        // Out of the archive its own name is what it goes by.
        good(&shell, &format!("imgmv copy oci-archive:{nth}.tar:{by_digest} oci:l{nth}:v1"));
        good(&shell, &format!("imgmv copy {nth}.tar docker://{}/from{nth}/ --compress keep", double.host()));
        let there = format!("from{nth}/team/ctl");
        assert!(double.manifest(&there, &digest).is_some());
        assert_eq!(double.tag(&there, "latest"), None);
        assert_eq!(double.tag(&there, "1").is_some(), tags != json!(null));
    }
}

#[test]
fn a_prefix_keeps_what_the_reference_said() {
    let (double, shell) = (Double::start(), Shell::new());
    let digest = double.image("library/alpine", "3", &LAYERS).digest();
    let own = format!("{}/library/alpine", double.host());
    let prefix = |name: &str| format!("docker://{}/{name}/", double.host());
    good(&shell, &format!("imgmv copy {own}:3@{digest} {} --compress keep", prefix("both")));
    assert_eq!(double.tag("both/library/alpine", "3"), Some(digest));
    good(&shell, &format!("imgmv copy {own}@{digest} {} --compress keep", prefix("digest")));
    assert!(double.manifest("digest/library/alpine", &digest).is_some());
    assert_eq!(double.tag("digest/library/alpine", "latest"), None);
    // What another digest comes of is not called by the old one.
    let ran = run(&shell, &format!("imgmv copy {own}@{digest} {} --compress gzip", prefix("packed")));
    assert_eq!(ran.status, 0, "{}", ran.said);
    assert!(double.manifest("packed/library/alpine", &digest).is_none());
    assert!(!ran.out.contains(&digest.to_string()), "{}", ran.out);
}

#[test]
fn a_name_by_a_digest_that_is_not_the_images_is_not_believed() {
    let (double, shell) = (Double::start(), Shell::new());
    let mut files = Files::default();
    let image = files.image("linux/amd64", "layer");
    let lie = format!("docker.io/library/app@{}", Digest::of(b"another image"));
    let files = files.listed(json!([entry(&image, Some(&lie), None)]));
    std::fs::write(shell.at("lie.tar"), files.tar()).unwrap();
    for (dst, told) in [("oci:l", "is refused"), ("b.tar", "is refused"), ("docker://HOST/pre/", "is refused")] {
        let dst = dst.replace("HOST", &double.host());
        let ran = run(&shell, &format!("imgmv copy lie.tar {dst} --compress keep"));
        assert_eq!(ran.status, 0, "{}", ran.said);
        assert!(ran.said.contains(told), "{dst}: {}", ran.said);
        assert!(!ran.out.contains("another") && ran.out.contains(&image.digest().to_string()), "{}", ran.out);
    }
    assert_eq!(names(&shell, "b.tar"), ["-"]);
    assert!(double.manifest("pre/library/app", &image.digest()).is_some());
    let ran = run(&shell, "imgmv load -i lie.tar --remote-command cat");
    assert_eq!(ran.status, 2, "{}", ran.said);
    assert!(ran.said.contains("--as"), "{}", ran.said);
}

#[test]
fn engines_get_the_names_that_they_keep() {
    let double = Double::start();
    // A layer that unpacks: an empty tar.
    let (layer, platform) = (vec![0; 1024], format!("linux/{}", std::env::consts::ARCH));
    let layer = String::from_utf8(layer).unwrap();
    let image = image(&platform, &layer);
    double.put_blob("team/ctl", layer.as_bytes());
    double.put_blob("team/ctl", &config(&platform, &layer));
    double.put_manifest("team/ctl", Some("1"), &image);
    let own = format!("{}/team/ctl", double.host());
    let (tag, by_digest) = (format!("{own}:1"), format!("{own}@{}", image.digest()));
    for kind in Kind::ALL {
        let Some(peer) = Peer::start(kind) else { continue };
        let shell = Shell::with(&peer.environment);
        let engine = kind.engine().name();
        let place = if engine == "docker" { "docker-daemon:" } else { "containerd:" };
        good(
            &shell,
            &format!("imgmv save {own}:1@{} -o both.tar; imgmv save {by_digest} -o digest.tar", image.digest()),
        );
        let load = |file: &str| run(&shell, &format!("imgmv load -i {file} --engine {engine}"));
        let digest_alone = load("digest.tar");
        let containerd = engine == "ctr";
        assert_eq!(digest_alone.status, if containerd { 0 } else { 2 }, "{kind:?}: {}", digest_alone.said);
        assert!(containerd == peer.id(&by_digest).is_some(), "{kind:?}");
        for again in [false, true] {
            let both = load("both.tar");
            assert_eq!(both.status, 0, "{kind:?}: {}", both.said);
            assert_eq!(both.out, format!("{tag}@{}", image.digest()), "{kind:?}");
            assert!(containerd != both.said.contains("stores only tags"), "{kind:?} {again}: {}", both.said);
        }
        assert!(peer.id(&tag).is_some(), "{kind:?}");
        if engine != "podman" {
            good(&shell, &format!("imgmv copy {own}:1@{} {place}", image.digest()));
        }
        // The archive as the engine itself reads it.
        let direct = match engine {
            "ctr" => {
                "ctr images rm $(ctr images ls -q) >&2; ctr images import both.tar >&2; ctr images ls -q".to_owned()
            }
            _ => format!("{engine} rmi -f {tag} >&2; {engine} load -i both.tar >&2; {engine} image inspect {tag} >&2"),
        };
        let listed = good(&shell, &direct);
        if containerd {
            assert_eq!(listed.lines().collect::<Vec<_>>(), [&*tag, &*by_digest], "{kind:?}");
        }
    }
}
