//! Real clients, in the releases that people have.

use super::support::engines::{Kind, Peer};
use super::support::program::{fixture, imgmv, peer};
use super::*;
use std::path::Path;
use std::process::Command;

/// Runs `program` with `args`; what it printed.
fn run(program: &str, args: &[&str], home: &Path) -> String {
    let done = Command::new(program).args(args).env("HOME", home).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{program} {args:?}: {out}{err}");
    out.trim().to_owned()
}

fn hello(server: &Server, name: &str) -> String {
    let there = format!("docker://{}/{name}", server.host);
    let copied = imgmv(&["copy", "-q", &fixture("hello-docker20.tar"), &there], None);
    assert!(copied.status.success(), "{}", copied.stderr);
    copied.stdout.trim().rsplit('@').next().unwrap().to_owned()
}

#[test]
fn docker_pushes_and_pulls() {
    for kind in [Kind::Docker20, Kind::Docker28, Kind::Docker28c] {
        let Some(docker) = Peer::start(kind) else { continue };
        let server = Server::writable();
        let name = format!("{}/team/hello:1", server.host);
        docker.client(&["load", "-q", "-i", &fixture("hello-docker20.tar")]);
        docker.client(&["tag", "hello-imgmv:1", &name]);
        let id = docker.id("hello-imgmv:1");
        let pushed = docker.client(&["push", &name]);
        let digest = server.head("/v2/team/hello/manifests/1").header("docker-content-digest").to_owned();
        assert!(pushed.contains(&digest), "{kind:?}: {pushed}");
        // A second repository: mounted, or there already.
        let other = format!("{}/other/hello:2", server.host);
        docker.client(&["tag", &name, &other]);
        docker.client(&["push", &other]);
        docker.client(&["rmi", "-f", &name, &other, "hello-imgmv:1"]);
        docker.client(&["pull", "-q", &name]);
        docker.client(&["pull", "-q", &format!("{}/team/hello@{digest}", server.host)]);
        if kind != Kind::Docker28c {
            assert_eq!(docker.id(&name), id, "{kind:?}");
        }
    }
}

#[test]
fn docker_logs_in_and_pulls_without_a_login_what_anybody_may() {
    let Some(docker) = Peer::start(Kind::Docker20) else { return };
    let dir = tempfile::TempDir::new().unwrap();
    let users = dir.path().join("users");
    std::fs::write(&users, "ann:$2y$04$abcdefghijklmnopqrstuuinwY/tkBVrn3xrxQI/TgnMHhkvl85RW\n").unwrap();
    let options = ["--htpasswd", users.to_str().unwrap(), "--anonymous-pull"];
    let server = Server::writable_in(dir.into(), &options);
    let name = format!("{}/team/hello:1", server.host);
    docker.client(&["load", "-q", "-i", &fixture("hello-docker20.tar")]);
    docker.client(&["tag", "hello-imgmv:1", &name]);
    let config = docker.folder.path().join("config").display().to_string();
    let with = |args: &[&str]| docker.try_client(&[&["--config", &config], args].concat());
    assert!(with(&["push", &name]).is_none());
    assert!(with(&["login", "-u", "ann", "-p", "wrong", &server.host]).is_none());
    assert!(with(&["login", "-u", "ann", "-p", "sesame", &server.host]).is_some());
    assert!(with(&["push", &name]).is_some());
    assert!(with(&["logout", &server.host]).is_some());
    docker.client(&["rmi", "-f", &name, "hello-imgmv:1"]);
    assert!(with(&["pull", &name]).is_some());
}

#[test]
fn containerd_pulls_and_pushes_and_is_served_while_it_runs() {
    for kind in [Kind::Containerd16, Kind::Containerd21] {
        let Some(containerd) = Peer::start(kind) else { continue };
        let server = Server::writable();
        let digest = hello(&server, "team/hello:1");
        let name = format!("{}/team/hello:1", server.host);
        let data = containerd.folder.path().join("data").display().to_string();
        // The newer client has a server pull that can only unpack into overlayfs.
        let pull: &[&str] = match kind {
            Kind::Containerd16 => &["images", "pull", "--snapshotter", "native"],
            _ => &["images", "pull", "--local", "--snapshotter", "native"],
        };
        containerd.client(&[pull, &["--plain-http", &name]].concat());
        // The same image as docker.io's, by a mirror that is told in hosts.toml.
        let hosts = containerd.folder.path().join("hosts/docker.io");
        std::fs::create_dir_all(&hosts).unwrap();
        let archive = Server::start(&[&fixture("hello-docker20.tar")]);
        let told = format!("[host.\"http://{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n", archive.host);
        std::fs::write(hosts.join("hosts.toml"), told).unwrap();
        let dir = hosts.parent().unwrap().display().to_string();
        containerd.client(&[pull, &["--hosts-dir", &dir, "docker.io/library/hello-imgmv:1"]].concat());
        assert!(archive.log().iter().any(|line| line.contains("?ns=docker.io") && line.contains(" 200 ")), "{kind:?}");
        let node = Server::start(&["containerd:", "--src-root", &data]);
        let served = |path: &str| node.head(path).find("docker-content-digest").map(str::to_owned);
        assert_eq!(served("/v2/team/hello/manifests/1"), Some(digest.clone()), "{kind:?}");
        // A neighbour pulls from the node.
        let there = node.dir.path().join("there").display().to_string();
        let copied =
            imgmv(&["copy", "-q", &format!("docker://{}/team/hello:1", node.host), &format!("oci:{there}")], None);
        assert!(copied.stdout.contains(&digest), "{kind:?}: {}", copied.stderr);
        // What comes later is served as well, soon.
        containerd.client(&["images", "tag", &name, "docker.io/library/late:2"]);
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while served("/v2/library/late/manifests/2?ns=docker.io") != Some(digest.clone()) {
            assert!(std::time::Instant::now() < until, "{kind:?}: it was not seen");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        containerd.client(&["images", "tag", &name, &format!("{}/pushed:1", server.host)]);
        containerd.client(&["images", "push", "--plain-http", &format!("{}/pushed:1", server.host)]);
        assert_eq!(server.head("/v2/pushed/manifests/1").header("docker-content-digest"), digest, "{kind:?}");
    }
}

#[test]
fn podman_pulls_and_pushes() {
    for kind in [Kind::Podman4, Kind::Podman5] {
        let Some(podman) = Peer::start(kind) else { continue };
        let server = Server::writable();
        hello(&server, "team/hello:1");
        let name = format!("{}/team/hello:1", server.host);
        podman.client(&["pull", "-q", "--tls-verify=false", &name]);
        let pushed = format!("{}/pushed/hello:2", server.host);
        podman.client(&["push", "-q", "--tls-verify=false", &name, &pushed]);
        assert_eq!(server.get("/v2/pushed/hello/tags/list").json()["tags"], json!(["2"]), "{kind:?}");
    }
}

#[test]
fn skopeo_copies_lists_and_deletes() {
    for program in ["skopeo", "skopeo-new"] {
        if peer(program).is_none() {
            continue;
        }
        let server = Server::writable();
        let home = server.dir.path();
        let there = format!("docker://{}/team/hello:1", server.host);
        let insecure = ["--src-tls-verify=false", "--dest-tls-verify=false"];
        let copy = |from: &str, to: &str| run(program, &[&["copy", "-q"], &insecure[..], &[from, to]].concat(), home);
        copy(&format!("oci-archive:{}", fixture("hello-skopeo-oci.tar")), &there);
        copy(&there, &format!("docker://{}/mounted/hello:1", server.host));
        copy(&there, &format!("dir:{}", home.join("back").display()));
        let listed =
            run(program, &["list-tags", "--tls-verify=false", &format!("docker://{}/team/hello", server.host)], home);
        assert!(listed.contains("\"1\""), "{program}: {listed}");
        let digest = server.head("/v2/team/hello/manifests/1").header("docker-content-digest").to_owned();
        let inspected = run(program, &["inspect", "--tls-verify=false", &there], home);
        assert!(inspected.contains(&digest), "{program}: {inspected}");
        // The layout below is skopeo's as well.
        let layout = format!("oci:{}:1", server.store().join("team/hello").display());
        assert!(run(program, &["inspect", &layout], home).contains(&digest), "{program}");
        run(program, &["delete", "--tls-verify=false", &there], home);
        assert_eq!(server.get("/v2/team/hello/manifests/1").status, 404, "{program}");
    }
}

#[test]
fn crane_copies_and_lists() {
    if peer("crane").is_none() {
        return;
    }
    let server = Server::writable();
    let home = server.dir.path();
    let digest = hello(&server, "team/hello:1");
    let at = |name: &str| format!("{}/{name}", server.host);
    let crane = |args: &[&str]| run("crane", &[&["--insecure"], args].concat(), home);
    assert_eq!(crane(&["digest", &at("team/hello:1")]), digest);
    crane(&["copy", &at("team/hello:1"), &at("copied/hello:2")]);
    assert_eq!(crane(&["ls", &at("copied/hello")]), "2");
    assert_eq!(crane(&["catalog", &server.host]), "copied/hello\nteam/hello");
    let tar = home.join("out.tar").display().to_string();
    crane(&["pull", &at("copied/hello:2"), &tar]);
    crane(&["push", &tar, &at("pushed/hello:3")]);
    crane(&["validate", "--remote", &at("pushed/hello:3")]);
    crane(&["tag", &at("copied/hello:2"), "stable"]);
    crane(&["delete", &at(&format!("copied/hello@{digest}"))]);
    assert_eq!(server.get("/v2/copied/hello/tags/list").json()["tags"], json!([]));
}

#[test]
fn oras_attaches_and_discovers() {
    if peer("oras").is_none() {
        return;
    }
    let server = Server::writable();
    let home = server.dir.path();
    hello(&server, "team/hello:1");
    std::fs::write(home.join("sbom.json"), "{\"sbom\":true}").unwrap();
    let name = format!("{}/team/hello:1", server.host);
    let oras = |args: &[&str]| {
        let done = Command::new("oras").args(args).env("HOME", home).current_dir(home).output().unwrap();
        let err = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{args:?}: {err}");
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    oras(&["attach", "--plain-http", "--artifact-type", "application/sbom", &name, "sbom.json"]);
    let found = oras(&["discover", "--plain-http", "--format", "json", &name]);
    assert!(found.contains("application/sbom"), "{found}");
    oras(&["push", "--plain-http", &format!("{}/files:1", server.host), "sbom.json"]);
    std::fs::remove_file(home.join("sbom.json")).unwrap();
    oras(&["pull", "--plain-http", &format!("{}/files:1", server.host)]);
    assert_eq!(std::fs::read(home.join("sbom.json")).unwrap(), b"{\"sbom\":true}");
    // The referrer goes along to another registry of the same kind.
    let other = Server::writable();
    let (from, to) = (name, format!("{}/copied:1", other.host));
    oras(&["cp", "-r", "--from-plain-http", "--to-plain-http", &from, &to]);
    let digest = other.head("/v2/copied/manifests/1").header("docker-content-digest").to_owned();
    let listed = other.get(&format!("/v2/copied/referrers/{digest}")).json();
    assert_eq!(listed["manifests"][0]["artifactType"], "application/sbom");
}

#[test]
fn imgmv_itself_pushes_pulls_and_copies_referrers() {
    let server = Server::writable();
    let digest = hello(&server, "team/hello:1");
    let again = hello(&server, "team/hello:1");
    assert_eq!(digest, again);
    let verified = imgmv(&["verify", "-q", &format!("docker://{}/team/hello:1", server.host)], None);
    assert!(verified.status.success(), "{}", verified.stderr);
    let listed = imgmv(&["list", &format!("docker://{}/team/hello", server.host)], None);
    assert_eq!(listed.stdout.trim(), format!("{}/team/hello:1", server.host));
}
