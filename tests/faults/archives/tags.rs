//! Names that point there already, and hints that the answer gives no reason for.

use super::make::*;
use crate::support::registry::Double;
use crate::support::shell::Shell;
use imgmv::internals::image::media_type;
use std::fs;

#[test]
fn a_tag_that_points_there_already_is_done_where_tags_are_immutable() {
    let (double, shell) = (Double::start(), Shell::new());
    let image = double.image("app", "1", &[b"layer"]);
    double.image("app", "2", &[b"another"]);
    let host = double.host();
    for words in [
        "the image tag '1' already exists and cannot be overwritten because the repository is immutable",
        "manifest invalid: the repository has enabled tag immutability",
    ] {
        double.faults().immutable = Some(words.to_owned());
        good(&shell, &format!("imgmv tag {host}/app:1 1"));
        let digest = image.digest();
        good(&shell, &format!("imgmv copy {host}/app@{digest} {host}/app:1 --compress keep"));
        good(&shell, &format!("imgmv copy {host}/app:1 l.tar; imgmv copy l.tar {host}/app:1 --compress keep"));
        // What is compressed anew is known by its digest only once it is.
        let ran = run(&shell, &format!("imgmv tag {host}/app:2 1"));
        assert_eq!(ran.status, 1, "{}", ran.said);
        assert!(ran.said.contains("immutab") && !ran.said.contains("--format docker"), "{}", ran.said);
        assert_eq!(double.tag("app", "1"), Some(digest));
    }
    double.faults().immutable = None;
    double.faults().refused_types = vec![media_type::OCI_MANIFEST];
    let ran = run(&shell, &format!("imgmv tag {host}/app:2 3"));
    assert!(ran.said.contains("--format docker"), "{}", ran.said);
}

#[test]
fn a_second_gzip_on_the_way_to_an_immutable_tag_ends_well() {
    let (double, shell) = (Double::start(), Shell::new());
    let mut files = Files::default();
    let image = files.image("linux/amd64", "layer");
    files.listed(serde_json::json!([entry(&image, Some("v1"), None)])).write(&shell.at("l"));
    let copy = format!("XDG_CACHE_HOME=$PWD/$RANDOM imgmv copy oci:l {}/app:1", double.host());
    good(&shell, &copy);
    double.faults().immutable = Some("tag is immutable".into());
    good(&shell, &copy);
}

#[test]
fn a_name_that_is_there_rewrites_nothing() {
    let shell = Shell::new();
    let mut files = Files::default();
    let image = files.image("linux/amd64", "layer");
    let name = "docker.io/library/app:1";
    let files = files.listed(serde_json::json!([entry(&image, Some(name), None)]));
    files.write(&shell.at("l"));
    fs::write(shell.at("a.tar"), files.tar()).unwrap();
    let stamp = |name: &str| fs::metadata(shell.at(name)).map(|at| std::os::unix::fs::MetadataExt::ino(&at)).unwrap();
    for (place, file) in [("a.tar", "a.tar"), ("oci:l", "l/index.json")] {
        good(&shell, &format!("imgmv tag {place} app:1"));
        let before = (stamp(file), fs::read(shell.at(file)).unwrap());
        let answer = good(&shell, &format!("imgmv tag {place} app:1"));
        assert_eq!(answer, format!("{name}@{}", image.digest()));
        assert!((stamp(file), fs::read(shell.at(file)).unwrap()) == before, "{place}");
        good(&shell, &format!("imgmv tag {place} app:2"));
        assert_ne!(stamp(file), before.0, "{place}");
    }
}
