//! What lies somewhere is served as it lies, also while somebody writes to it.

use super::support::docker_dir::{DockerDir, tar_of};
use super::support::program::{fixture, imgmv};
use super::support::storage_dir::StorageDir;
use super::*;
use std::io::Write;
use tempfile::TempDir;

const HELLO: &str = "library/hello-imgmv";

fn run(args: &[&str]) -> String {
    let done = imgmv(args, None);
    assert!(done.status.success(), "{args:?}: {}", done.stderr);
    done.stdout.trim().to_owned()
}

/// Pulls `name` and says what came.
fn pulled(server: &Server, name: &str) -> String {
    let dir = TempDir::new().unwrap();
    let copied =
        run(&["copy", "-q", &format!("docker://{}/{name}", server.host), &format!("oci:{}", dir.path().display())]);
    run(&["verify", "-q", &format!("oci:{}", dir.path().display())]);
    copied.rsplit('@').next().unwrap().to_owned()
}

#[test]
fn every_form_of_archive_is_served_by_its_own_names() {
    for name in
        ["hello-docker20.tar", "hello-docker28c.tar", "hello-podman-docker.tar", "hello-ctr21.tar", "both-forms.tar"]
    {
        let archive = fixture(name);
        let listed = imgmv(&["inspect", "--json", &archive], None);
        let server = Server::start(&[&archive]);
        let repositories = server.get("/v2/_catalog").json()["repositories"].clone();
        let repository = repositories[0].as_str().unwrap_or_else(|| panic!("{name}: {}", listed.stdout)).to_owned();
        let tags = server.get(&format!("/v2/{repository}/tags/list")).json()["tags"].clone();
        let tag = tags[0].as_str().unwrap_or_else(|| panic!("{name}: no tag in {repository}"));
        let digest = pulled(&server, &format!("{repository}:{tag}"));
        assert!(listed.stdout.contains(&digest) || name.contains("docker20"), "{name}: {digest}");
    }
}

#[test]
fn several_sources_are_served_together() {
    let dir = TempDir::new().unwrap();
    let layout = dir.path().join("mirror").display().to_string();
    run(&[
        "copy",
        "-q",
        &fixture("hello-docker20.tar"),
        &format!("oci:{layout}"),
        "--as",
        "registry.lan:5000/team/app:7",
    ]);
    run(&["copy", "-q", &fixture("hello-docker20.tar"), &format!("oci:{layout}:only-a-tag")]);
    let server = Server::start(&[&fixture("hello-docker20.tar"), &layout]);
    assert_eq!(server.get("/v2/_catalog").json()["repositories"], json!([HELLO, "mirror", "team/app"]));
    let digest = pulled(&server, "hello-imgmv:1");
    for name in ["library/hello-imgmv:1", "docker.io/library/hello-imgmv:1", "team/app:7", "mirror:only-a-tag"] {
        assert_eq!(pulled(&server, name), digest, "{name}");
    }
    // A mirror's client says which registry it means.
    let tagged = |query: &str| server.get(&format!("/v2/team/app/manifests/7{query}")).status;
    assert_eq!((tagged(""), tagged("?ns=registry.lan:5000"), tagged("?ns=docker.io")), (200, 200, 404));
    let hello = server.get(&format!("/v2/{HELLO}/manifests/1?ns=docker.io"));
    assert_eq!(hello.header("docker-content-digest"), digest);
}

#[test]
fn dockers_directory_is_served_and_new_names_appear() {
    let mut docker = DockerDir::new("overlay2");
    let noise: Vec<u8> = (0..3_000_000).map(|i: usize| (i * 31 + i / 251) as u8).collect();
    let id = docker.add(&["t/app:1"], &[tar_of(&[("noise", &noise), ("small", b"small")]), tar_of(&[("f", b"f")])]);
    let root = docker.dir.path().display().to_string();
    let server = Server::start(&["docker-dir:", "--src-root", &root]);
    let digest = pulled(&server, "t/app:1");
    assert_eq!(run(&["digest", "docker-dir:t/app:1", "--src-root", &root]), digest);
    docker.name("t/app:2", &id);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while server.head("/v2/t/app/manifests/2").status != 200 {
        assert!(std::time::Instant::now() < until, "the new name does not appear");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(pulled(&server, "t/app:2"), digest);
}

#[test]
fn containers_storage_is_served_and_new_names_appear() {
    let mut storage = StorageDir::new("overlay");
    let noise: Vec<u8> = (0..3_000_000).map(|i: usize| (i * 31 + i / 251) as u8).collect();
    storage.add(&["docker.io/t/app:1"], &[tar_of(&[("noise", &noise), ("small", b"small")]), tar_of(&[("f", b"f")])]);
    let root = storage.dir.path().display().to_string();
    let server = Server::start(&["containers-storage:", "--src-root", &root]);
    let digest = pulled(&server, "t/app:1");
    storage.images[0]["names"] = json!(["docker.io/t/app:1", "docker.io/t/app:2"]);
    storage.write();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while server.head("/v2/t/app/manifests/2").status != 200 {
        assert!(std::time::Instant::now() < until, "the new name does not appear");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(pulled(&server, "t/app:2"), digest);
}

#[test]
fn a_registrys_tree_is_served_while_it_is_written_to() {
    let dir = TempDir::new().unwrap();
    let tree = format!("registry-dir:{}", dir.path().join("registry").display());
    let (archive, layout) = (fixture("hello-docker28c.tar"), format!("oci:{}:1", fixture("multi")));
    let hello = run(&["copy", "-q", &archive, &format!("{tree}:hello:1")]);
    let hello = hello.rsplit('@').next().unwrap();
    let server = Server::start(&[&tree]);
    let catalog = || server.get("/v2/_catalog").json()["repositories"].clone();
    assert_eq!(catalog(), json!(["hello"]));
    assert_eq!(pulled(&server, "hello:1"), hello);
    // What is written is served at once: a tag, a repository, a tag that moves.
    run(&["tag", "-q", &format!("{tree}:hello:1"), "stable"]);
    run(&["copy", "-q", &layout, &format!("{tree}:quay.io/org/multi:1")]);
    assert_eq!(server.get("/v2/hello/tags/list").json()["tags"], json!(["1", "stable"]));
    assert_eq!(catalog(), json!(["hello", "quay.io/org/multi"]));
    let multi = pulled(&server, "quay.io/org/multi:1");
    run(&["copy", "-q", &layout, &format!("{tree}:hello:1")]);
    assert_eq!((pulled(&server, "hello:1"), pulled(&server, "hello:stable")), (multi.clone(), hello.to_owned()));
    // A mirror's client names the registry; a path with its name is preferred.
    let status = |path: &str| server.get(path).status;
    assert_eq!(status("/v2/org/multi/manifests/1?ns=quay.io"), 200);
    assert_eq!(status("/v2/hello/manifests/1?ns=quay.io"), 200);
    assert_eq!(status("/v2/org/multi/manifests/1"), 404);
    // As in the registry itself, a repository has the blobs that it has links to.
    run(&["copy", "-q", &format!("{tree}:hello:stable"), &format!("{tree}:other:1")]);
    assert_eq!(status(&format!("/v2/other/manifests/{hello}")), 200);
    assert_eq!(status(&format!("/v2/other/manifests/{multi}")), 404);
    assert_eq!(status(&format!("/v2/other/blobs/{multi}")), 404);
    assert_eq!(status("/v2/absent/tags/list"), 404);
    let refused = imgmv(&["serve", "--writable", &tree], None);
    assert!(refused.stderr.contains("expected oci:DIR"), "{}", refused.stderr);
}

/// The size of the body that `server` sends. The connection may end before the head does.
fn received(server: &Server, path: &str, headers: &[(&str, &str)]) -> u64 {
    let mut stream = server.connect();
    stream.write_all(&client::request(&server.host, "GET", path, headers, None)).unwrap();
    Reply::read(&mut stream, "GET").map_or(0, |reply| reply.body.len() as u64)
}

/// A registry sends whatever its disk has.
#[test]
fn the_end_of_a_damaged_blob_of_a_registrys_tree_is_not_sent() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("registry");
    let tree = format!("registry-dir:{}", root.display());
    run(&["copy", "-q", &fixture("hello-docker28c.tar"), &format!("{tree}:hello:1")]);
    let server = Server::start(&[&tree]);
    let manifest = server.get("/v2/hello/manifests/1").json();
    for blob in [&manifest["layers"][0], &manifest["config"]] {
        let (digest, size) = (blob["digest"].as_str().unwrap(), blob["size"].as_u64().unwrap());
        let path = format!("/v2/hello/blobs/{digest}");
        assert_eq!(server.get(&path).body.len() as u64, size);
        let hex = digest.strip_prefix("sha256:").unwrap();
        let data = root.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data");
        let mut bytes = std::fs::read(&data).unwrap();
        bytes[7] ^= 1;
        std::fs::write(&data, bytes).unwrap();
        assert!(received(&server, &path, &[]) < size, "{path}");
        assert!(received(&server, &path, &[("Range", "bytes=20-")]) < size - 20, "{path}");
    }
}

#[test]
fn a_layout_is_served_while_it_is_written_to() {
    let dir = TempDir::new().unwrap();
    let layout = dir.path().join("mirror").display().to_string();
    let archive = fixture("hello-docker20.tar");
    run(&["copy", "-q", &archive, &format!("oci:{layout}:v0")]);
    let server = Server::start(&[&layout]);
    for n in 1..10 {
        run(&["tag", "-q", &format!("oci:{layout}:v0"), &format!("v{n}")]);
        assert_eq!(server.head(&format!("/v2/mirror/manifests/v{n}")).status, 200, "{n}");
    }
    assert_eq!(server.get("/v2/mirror/tags/list").json()["tags"].as_array().unwrap().len(), 10);
}

#[test]
fn an_archive_that_took_anothers_place_is_served() {
    let dir = TempDir::new().unwrap();
    let (archive, other) = (dir.path().join("app.tar"), dir.path().join("other.tar"));
    std::fs::copy(fixture("hello-docker20.tar"), &archive).unwrap();
    let server = Server::start(&[archive.to_str().unwrap()]);
    assert_eq!(server.get("/v2/hello-imgmv/tags/list").json()["tags"], json!(["1"]));
    run(&["save", "-q", "-o", other.to_str().unwrap(), &fixture("hello-docker20.tar"), "--as", "hello-imgmv:2"]);
    std::fs::rename(other, archive).unwrap();
    assert_eq!(server.get("/v2/hello-imgmv/tags/list").json()["tags"], json!(["2"]));
    pulled(&server, "hello-imgmv:2");
}

#[test]
fn a_layout_that_is_pushed_below_keeps_its_own_images() {
    let dir = std::sync::Arc::new(TempDir::new().unwrap());
    let store = dir.path().join("store").display().to_string();
    run(&["copy", "-q", &fixture("hello-docker20.tar"), &format!("oci:{store}")]);
    let server = Server::writable_in(dir, &[]);
    server.push_image("team/app", "v1", 1000);
    assert_eq!(server.get("/v2/_catalog").json()["repositories"], json!([HELLO, "team/app"]));
    pulled(&server, "hello-imgmv:1");
    run(&["verify", "-q", &format!("oci:{store}")]);
}

#[test]
fn a_layouts_referrers_are_served() {
    let pushed = Server::writable();
    let [_, _, image] = pushed.push_image("app", "v1", 100);
    let subject = Descriptor::of(media_type::OCI_MANIFEST, &image);
    pushed.push_blob("app", b"{}");
    let about = manifest(b"{}", &[], json!({ "subject": subject, "artifactType": "application/sbom" }));
    pushed.push_manifest("app", &Digest::of(&about).to_string(), &about);
    let server = Server::start(&[&format!("oci:{}", pushed.store().join("app").display())]);
    let listed = server.get(&format!("/v2/app/referrers/{}", subject.digest)).json();
    assert_eq!(listed["manifests"][0]["artifactType"], "application/sbom");
    let upstream = Server::start(&[&format!("docker://{}/app", pushed.host)]);
    let listed = upstream.get(&format!("/v2/app/referrers/{}", subject.digest)).json();
    assert_eq!(listed["manifests"][0]["digest"], Digest::of(&about).to_string());
}

#[test]
fn an_image_without_a_name_is_served_by_its_digest() {
    let dir = TempDir::new().unwrap();
    let layout = dir.path().join("My Mirror").display().to_string();
    let copied = run(&["copy", "-q", &fixture("hello-skopeo-oci.tar"), &format!("oci:{layout}")]);
    let digest = copied.rsplit('@').next().unwrap();
    let file = std::path::Path::new(&layout).join("index.json");
    let mut listed: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    listed["manifests"][0].as_object_mut().unwrap().remove("annotations");
    std::fs::write(&file, listed.to_string()).unwrap();
    let server = Server::start(&[&format!("oci:{layout}")]);
    assert_eq!(server.get("/v2/_catalog").json()["repositories"], json!(["my-mirror"]));
    assert_eq!(pulled(&server, &format!("my-mirror@{digest}")), digest);
}

#[test]
fn another_registry_is_served_with_all_its_repositories_or_one() {
    let upstream = Server::writable();
    let [_, layer, manifest] = upstream.push_image("team/app", "v1", 600_000);
    upstream.push_image("other", "v1", 10);
    let blob = Digest::of(&layer);
    let whole = Server::start(&[&format!("docker://{}/", upstream.host)]);
    let below = Server::start(&[&format!("docker://{}/team/", upstream.host)]);
    let one = Server::start(&[&format!("docker://{}/team/app", upstream.host)]);
    for (server, name) in [(&whole, "team/app"), (&below, "app"), (&one, "team/app")] {
        assert!(server.get(&format!("/v2/{name}/manifests/v1")).body == manifest, "{name}");
        assert_eq!(server.get(&format!("/v2/{name}/tags/list")).json()["tags"], json!(["v1"]));
        let path = format!("/v2/{name}/blobs/{blob}");
        assert!(server.get(&path).body == layer, "{name}");
        let part = server.ask("GET", &path, &[("Range", "bytes=300000-300009")], b"");
        assert!(part.status == 206 && part.body == layer[300_000..300_010], "{name}");
        assert_eq!(server.get(&format!("/v2/{name}/manifests/absent")).code(), "MANIFEST_UNKNOWN");
    }
    assert_eq!((one.get("/v2/other/manifests/v1").status, whole.get("/v2/other/manifests/v1").status), (404, 200));
    assert_eq!(below.get("/v2/other/manifests/v1").status, 404);
}

#[test]
fn a_registry_that_is_gone_is_not_a_missing_image() {
    let port = super::support::program::free_port();
    let server = Server::start(&[&format!("docker://127.0.0.1:{port}/"), "--retry", "0"]);
    assert_eq!(server.get("/v2/app/manifests/v1").status, 502);
}
