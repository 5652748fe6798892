//! Images are selected as docker's users select them, and arrive with their configs.

use super::support::docker_dir::{DockerDir, tar_of};
use super::support::registry::Double;
use super::{BOTH, app, app_layers, by_name, imgmv, open, take, try_imgmv};
use imgmv::{Digest, Kind, Manifest, Selector, Store};
use serde_json::Value;
use std::fs;

fn layer(text: &str) -> Vec<u8> {
    tar_of(&[("file", text.as_bytes())])
}

/// The digest of the config of each selected root.
fn ids(docker: &DockerDir, selector: Selector) -> imgmv::Result<Vec<(Option<String>, Digest)>> {
    let store = open(docker.dir.path(), BOTH[0])?;
    let id = |root: imgmv::Root| {
        let manifest = Manifest::parse(store.manifest(&root.descriptor).unwrap(), &root.descriptor).unwrap();
        (root.name.map(|name| name.to_string()), manifest.config().unwrap().digest)
    };
    Ok(store.roots(&[selector])?.into_iter().map(id).collect())
}

#[test]
fn every_driver_and_resolution_gives_the_same_image() {
    let mut digests = Vec::new();
    for driver in ["overlay2", "vfs", "fuse-overlayfs"] {
        for resolution in BOTH {
            let docker = app(driver);
            let (sink, report) = take(open(docker.dir.path(), resolution).unwrap(), &[]).unwrap();
            assert_eq!(report.transferred.blobs, 3, "config and two layers");
            let state = sink.state();
            for layer in app_layers() {
                assert!(state.blobs[&Digest::of(&layer)] == layer, "{driver}");
            }
            digests.push(state.names["docker.io/t/app:1"]);
        }
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "the manifest depends on config and layers only");
}

#[test]
fn an_image_is_found_by_what_users_of_docker_type() {
    let mut docker = DockerDir::new("overlay2");
    let app = docker.add(&["t/app:1", "registry.lan:5000/team/app:2"], &[layer("app")]);
    let other = docker.add(&["nginx:latest"], &[layer("nginx")]);
    let pulled = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    docker.name(&format!("t/app@{pulled}"), &app);
    let hex = app.hex();
    for (asked, name) in [
        ("t/app:1", Some("docker.io/t/app:1")),
        ("docker.io/t/app:1", Some("docker.io/t/app:1")),
        ("registry.lan:5000/team/app:2", Some("registry.lan:5000/team/app:2")),
        ("2", Some("registry.lan:5000/team/app:2")),
        (&hex[..12], None),
        (&hex, None),
        (&format!("sha256:{hex}"), None),
        (&format!("sha256:{}", &hex[..20]), None),
        (&format!("t/app@{pulled}"), None),
        (&format!("t/app:1@{pulled}"), Some("docker.io/t/app:1")),
    ] {
        assert_eq!(ids(&docker, by_name(asked)).unwrap(), [(name.map(str::to_owned), app)], "{asked}");
    }
    for asked in ["nginx", "nginx:latest", "latest", "library/nginx"] {
        let found = ids(&docker, by_name(asked)).unwrap();
        assert_eq!(found, [(Some("docker.io/library/nginx:latest".to_owned()), other)], "{asked}");
    }
    let store = open(docker.dir.path(), BOTH[0]).unwrap();
    let made = store.roots(&[by_name("nginx")]).unwrap().remove(0).descriptor.digest;
    for digest in [other, made] {
        assert_eq!(ids(&docker, Selector::Digest(digest)).unwrap()[0].1, other);
    }
    assert_eq!(ids(&docker, Selector::Digest(pulled.parse().unwrap())).unwrap()[0].1, app);
}

#[test]
fn a_missing_image_is_told_with_those_that_exist() {
    let docker = app("overlay2");
    let zeros = "0".repeat(64);
    for asked in ["t/app:2", "app:1", "0123456789ab", &format!("t/app@sha256:{zeros}"), &format!("sha256:{zeros}")] {
        let error = ids(&docker, by_name(asked)).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{asked}: {error}");
        assert!(error.to_string().contains("was not found"), "{error}");
    }
    let error = ids(&docker, by_name("t/app:2")).unwrap_err().to_string();
    assert!(error.contains("docker.io/t/app:1") && error.contains(docker.dir.path().to_str().unwrap()), "{error}");
}

#[test]
fn untagged_images_are_listed_by_their_ids_without_the_steps_of_builds() {
    let mut docker = app("overlay2");
    let untagged = docker.add(&[], &[layer("untagged")]);
    let step = docker.add(&[], &[layer("step")]);
    let metadata = docker.image().join(format!("imagedb/metadata/sha256/{}", untagged.hex()));
    fs::create_dir_all(&metadata).unwrap();
    fs::write(metadata.join("parent"), step.to_string()).unwrap();
    let listed = imgmv(docker.dir.path(), &["list", "docker-dir:"]).stdout;
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["docker.io/t/app:1", &untagged.to_string()]);
    for id in [untagged, step] {
        assert_eq!(ids(&docker, by_name(&id.to_string())).unwrap(), [(None, id)]);
        assert_eq!(ids(&docker, by_name(&id.hex()[..12])).unwrap(), [(None, id)]);
    }
}

#[test]
fn several_images_go_into_one_archive_and_the_new_manifests_are_printed() {
    let mut docker = app("overlay2");
    let id = docker.add(&["t/other:1"], &[layer("other")]);
    let out = docker.dir.path().join("all.tar").display().to_string();
    let done = imgmv(docker.dir.path(), &["copy", "docker-dir:", &out]);
    assert!(
        done.stderr
            .contains("docker.io/t/other:1: the source has no manifest of this image; it gets a new one, sha256:"),
        "{}",
        done.stderr
    );
    assert!(done.stderr.contains(&format!("its config (the image ID), {id}, does not change")), "{}", done.stderr);
    let listed = imgmv(docker.dir.path(), &["list", &out]).stdout;
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["docker.io/t/app:1", "docker.io/t/other:1"]);
    let inspected = imgmv(docker.dir.path(), &["inspect", "docker-dir:t/other:1", "--json"]).stdout;
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    assert!(inspected.to_string().contains(&id.to_string()), "{inspected}");
    let digest = imgmv(docker.dir.path(), &["digest", "docker-dir:t/other:1"]).stdout;
    assert_eq!(imgmv(docker.dir.path(), &["digest", &format!("docker-archive:{out}:t/other:1")]).stdout, digest);
    let saved = docker.dir.path().join("saved.tar").display().to_string();
    imgmv(docker.dir.path(), &["save", "docker-dir:t/app:1", "docker-dir:t/other:1", "-o", &saved]);
    assert_eq!(imgmv(docker.dir.path(), &["list", &saved]).stdout, listed);
}

#[test]
fn the_directory_is_never_written() {
    let docker = app("overlay2");
    let done = try_imgmv(docker.dir.path(), &["copy", "docker-dir:t/app:1", "docker-dir:t/app:2"]);
    assert_eq!(done.status.code(), Some(2), "{}", done.stderr);
    assert!(done.stderr.contains("read only") && done.stderr.contains("docker-daemon:REF"), "{}", done.stderr);
}

#[test]
fn a_second_push_reads_no_layer() {
    let docker = app("overlay2");
    let registry = Double::start();
    let push = |tag: &str| {
        let dst = format!("docker://{}/t/app:{tag}", registry.host());
        imgmv(docker.dir.path(), &["copy", "docker-dir:t/app:1", &dst, "--dst-insecure"])
    };
    push("1");
    // A layer without one of its files cannot be compressed again.
    fs::remove_file(docker.files_of(&Digest::of(&app_layers()[0])).join("etc/conf")).unwrap();
    let broken = try_imgmv(docker.dir.path(), &["copy", "docker-dir:t/app:1", "-"]);
    assert_eq!(broken.status.code(), Some(5), "{}", broken.stderr);
    let again = push("2");
    assert!(again.stderr.contains("0 blobs transferred"), "{}", again.stderr);
}

#[test]
fn the_damaged_file_is_named_and_its_layer_is_not_stored() {
    let docker = app("overlay2");
    let [first, _] = app_layers();
    let file = docker.files_of(&Digest::of(&first)).join("etc/conf");
    fs::write(&file, "conf = 2\n").unwrap();
    let error = take(open(docker.dir.path(), BOTH[0]).unwrap(), &[]).err().unwrap();
    assert_eq!(error.kind(), Kind::Invalid);
    for word in ["docker.io/t/app:1", &Digest::of(&first).to_string(), "etc/conf is damaged", "overlay2"] {
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
    let out = docker.dir.path().join("layout").display().to_string();
    let done = try_imgmv(docker.dir.path(), &["copy", "docker-dir:t/app:1", &format!("oci:{out}")]);
    assert_eq!(done.status.code(), Some(5), "{}", done.stderr);
    let blob = docker.dir.path().join("layout").join(Digest::of(&first).blob_path());
    assert!(!blob.exists(), "a wrong layer was stored");
}

#[test]
fn an_image_that_is_removed_or_replaced_while_it_is_read_is_told_so() {
    let gone = |docker: &mut DockerDir| {
        docker.unname("t/app");
        fs::remove_dir_all(docker.dir.path().join("overlay2")).unwrap();
    };
    let replaced = |docker: &mut DockerDir| {
        docker.add(&["t/app:1"], &[layer("new")]);
        let files = docker.files_of(&Digest::of(&app_layers()[0]));
        fs::remove_dir_all(files).unwrap();
    };
    let damaged = |docker: &mut DockerDir| fs::remove_dir_all(docker.dir.path().join("overlay2")).unwrap();
    type Change<'a> = &'a dyn Fn(&mut DockerDir);
    let cases: [(Change<'_>, Kind, &str); 3] = [
        (&gone, Kind::NotFound, "t/app:1 was removed from docker while it was read"),
        (&replaced, Kind::NotFound, "t/app:1 was replaced by another image of the same name while it was read"),
        (&damaged, Kind::Invalid, "t/app:1 is damaged: a part of layer"),
    ];
    for (change, kind, told) in cases {
        let mut docker = app("overlay2");
        let store = open(docker.dir.path(), BOTH[0]).unwrap();
        let root = store.roots(&[by_name("t/app:1")]).unwrap().remove(0);
        let manifest = root.read(&store).unwrap();
        change(&mut docker);
        let error = store.open(&manifest.layers()[0], 0).err().unwrap();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(told), "{error}");
    }
}

#[test]
fn an_image_that_is_removed_inside_a_layer_is_told_so() {
    let mut docker = app("overlay2");
    let store = open(docker.dir.path(), BOTH[0]).unwrap();
    let root = store.roots(&[by_name("t/app:1")]).unwrap().remove(0);
    let manifest = root.read(&store).unwrap();
    let mut reader = store.open(&manifest.layers()[0], 0).unwrap();
    reader.read_exact(&mut [0; 100]).unwrap();
    docker.unname("t/app");
    fs::remove_dir_all(docker.files_of(&manifest.layers()[0].digest)).unwrap();
    let error = imgmv::Error::from(reader.read_to_end(&mut Vec::new()).unwrap_err());
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains("was removed from docker while it was read"), "{error}");
}

#[test]
fn an_image_without_a_name_that_is_removed_while_it_is_read_is_told_so() {
    let mut docker = app("overlay2");
    let id = docker.add(&[], &[layer("unnamed")]);
    let store = open(docker.dir.path(), BOTH[0]).unwrap();
    let manifest = store.roots(&[by_name(&id.to_string())]).unwrap().remove(0).read(&store).unwrap();
    fs::remove_file(docker.config(&id)).unwrap();
    fs::remove_dir_all(docker.files_of(&manifest.layers()[0].digest)).unwrap();
    let error = store.open(&manifest.layers()[0], 0).err().unwrap();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    assert!(error.to_string().contains("was removed from docker while it was read"), "{error}");
}

#[test]
fn a_missing_config_is_damage_where_the_image_has_its_name() {
    let mut docker = app("overlay2");
    let id = docker.add(&["t/other:1"], &[layer("other")]);
    docker.name(&format!("t/third@{}", Digest::of(b"third")), &id);
    fs::remove_file(docker.config(&id)).unwrap();
    for asked in ["t/other:1", &format!("t/third@{}", Digest::of(b"third"))] {
        let done = try_imgmv(docker.dir.path(), &["copy", &format!("docker-dir:{asked}"), "-"]);
        assert_eq!(done.status.code(), Some(5), "{}", done.stderr);
        assert!(done.stderr.contains("is damaged: the config of image"), "{}", done.stderr);
        assert!(done.stderr.contains(docker.config(&id).to_str().unwrap()), "{}", done.stderr);
    }
}

#[test]
fn each_blob_is_written_by_its_digest() {
    let docker = app("overlay2");
    let store = open(docker.dir.path(), BOTH[0]).unwrap();
    let manifest = store.roots(&[by_name("t/app:1")]).unwrap().remove(0).read(&store).unwrap();
    let blobs = manifest.blobs().into_iter().map(|blob| blob.digest);
    for digest in blobs.chain([manifest.digest()]) {
        for src in ["docker-dir:t/app:1", "docker-dir:"] {
            let blob = imgmv(docker.dir.path(), &["blob", src, &digest.to_string()]).bytes;
            assert_eq!(Digest::of(&blob), digest, "{src}");
        }
    }
    let none = try_imgmv(docker.dir.path(), &["blob", "docker-dir:", &Digest::of(b"none").to_string()]);
    assert_eq!(none.status.code(), Some(3), "{}", none.stderr);
}

/// A registry's storage tree, and a destination with a repository for each image.
#[test]
fn images_without_a_name_are_left_out_with_a_message_where_a_name_is_needed() {
    let mut docker = app("overlay2");
    let dangling = docker.add(&[], &[layer("dangling")]);
    let pulled = docker.add(&[], &[layer("pulled")]);
    let reference = format!("t/pulled@{}", Digest::of(b"pulled"));
    docker.name(&reference, &pulled);
    let root = docker.dir.path().display().to_string();
    let (archive, registry) = (format!("{root}/all.tar"), Double::start());
    let saved = imgmv(docker.dir.path(), &["copy", "docker-dir:", &archive]);
    let told = format!("image {pulled} was pulled as docker.io/{reference}, but that manifest is not stored");
    assert!(saved.stderr.contains(&told), "{told}\n{}", saved.stderr);
    assert!(saved.stderr.contains(&format!("{dangling}: the source has no manifest")), "{}", saved.stderr);
    let below = format!("docker://{}/pre/", registry.host());
    for (nth, src) in [["docker-dir:", "--src-root", &root].as_slice(), &[&*archive]].into_iter().enumerate() {
        let tree = format!("registry-dir:{root}/tree{nth}");
        for dst in [[&*tree].as_slice(), &[&below, "--dst-insecure"]] {
            let done = super::support::program::imgmv(&[&["copy"], src, dst].concat(), None);
            assert!(done.status.success(), "{src:?} {dst:?}: {}", done.stderr);
            assert!(done.stderr.contains("2 images without a name are left out"), "{}", done.stderr);
            let ids = [dangling, pulled].map(|id| done.stderr.contains(&id.to_string()));
            assert!(nth == 1 || ids == [true; 2], "{}", done.stderr);
        }
        let listed = super::support::program::imgmv(&["list", &tree], None).stdout;
        assert!(listed.trim().ends_with("t/app:1") && listed.lines().count() == 1, "{listed}");
        // Asked for itself, it is not left out.
        let asked = format!("docker-dir:{dangling}");
        let refused = try_imgmv(docker.dir.path(), &["copy", &asked, &tree]);
        assert_eq!(refused.status.code(), Some(2), "{}", refused.stderr);
        assert!(refused.stderr.contains(&format!("image {dangling} has no name")), "{}", refused.stderr);
    }
}

#[test]
fn a_damaged_name_hides_no_other_image() {
    let mut docker = app("overlay2");
    let id = docker.add(&["t/other:1"], &[layer("other")]);
    let file = docker.image().join("repositories.json");
    let text = fs::read_to_string(&file).unwrap();
    let with = |entry: &str| text.replacen("{\"Repositories\":{", &format!("{{\"Repositories\":{{{entry},"), 1);
    let root = docker.dir.path();
    for (wrong, why) in [
        (r#""x":{"x:1":"sha256:zz"}"#, "the image ID of x:1 is not a digest"),
        (r#""x":{"x:1":5}"#, "the image ID of x:1 is not a digest"),
        (r#""x":"foo""#, "the repository x has no list of names"),
        (r#""x":{"a b":"sha256:zz"}"#, "is not a"),
    ] {
        fs::write(&file, with(wrong)).unwrap();
        let listed = imgmv(root, &["list", "docker-dir:"]);
        assert_eq!(listed.stdout, "docker.io/t/app:1\ndocker.io/t/other:1\n", "{wrong}");
        assert!(listed.stderr.contains(why) && listed.stderr.contains(file.to_str().unwrap()), "{}", listed.stderr);
        for src in ["docker-dir:t/other:1", &format!("docker-dir:{id}"), "docker-dir:"] {
            imgmv(root, &["verify", src]);
        }
        let missing = try_imgmv(root, &["verify", "docker-dir:x:1"]);
        assert_eq!(missing.status.code(), Some(5), "{}", missing.stderr);
        assert!(missing.stderr.contains(why), "{}", missing.stderr);
    }
    // Without any name, the IDs are left.
    for damaged in ["", &text[..text.len() - 20]] {
        fs::write(&file, damaged).unwrap();
        let listed = imgmv(root, &["list", "docker-dir:"]);
        assert!(listed.stdout.contains(&id.to_string()) && listed.stdout.lines().count() == 2, "{}", listed.stdout);
        assert!(listed.stderr.contains("it is not JSON"), "{}", listed.stderr);
        imgmv(root, &["verify", &format!("docker-dir:{id}")]);
        assert_eq!(try_imgmv(root, &["verify", "docker-dir:t/other:1"]).status.code(), Some(5));
    }
}
