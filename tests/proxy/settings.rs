//! What clients are told: settings to paste, and addresses that can be reached.

use super::client::Server;
use super::support::program::{command, imgmv};
use super::*;
use std::fs;

fn printed(client: &str, more: &[&str]) -> support::program::Output {
    imgmv(&[&["serve", "--print-mirror-config", client][..], more].concat(), None)
}

#[test]
fn settings_are_printed_for_the_address_and_nothing_is_served() {
    let listen = ["--listen", "10.1.2.3:5000", "--proxy", "docker.io,quay.io"];
    let containerd = printed("containerd", &listen);
    assert_eq!(containerd.status.code(), Some(0), "{}", containerd.stderr);
    for part in [
        "# /etc/containerd/certs.d/quay.io/hosts.toml",
        "server = \"https://registry-1.docker.io\"",
        "[host.\"http://10.1.2.3:5000\"]",
        "capabilities = [\"pull\", \"resolve\"]",
    ] {
        assert!(containerd.stdout.contains(part), "{part}: {}", containerd.stdout);
    }
    let docker = printed("docker", &listen);
    let settings: Value = serde_json::from_str(&docker.stdout).unwrap();
    assert_eq!(settings["registry-mirrors"], serde_json::json!(["http://10.1.2.3:5000"]));
    assert!(docker.stderr.contains("/etc/docker/daemon.json"));
    let podman = printed("podman", &listen);
    assert!(podman.stdout.contains("location = \"10.1.2.3:5000/docker.io\"\ninsecure = true"), "{}", podman.stdout);
    let json = printed("podman", &[&listen[..], &["--json"]].concat());
    let document: Value = serde_json::from_str(&json.stdout).unwrap();
    assert!(document["files"][0]["content"].as_str().unwrap().contains("[[registry.mirror]]"));
    assert_eq!(printed("docker", &["--listen", "10.1.2.3:0"]).status.code(), Some(2));
    assert_eq!(printed("docker", &["--proxy", "quay.io"]).status.code(), Some(2));
    assert_eq!(printed("podman", &[]).status.code(), Some(2));
}

#[test]
fn a_loopback_server_says_how_virtual_machines_reach_it() {
    let dir = folder();
    fs::create_dir_all(dir.path().join(".docker")).unwrap();
    fs::write(dir.path().join(".docker/config.json"), r#"{"currentContext":"desktop-linux"}"#).unwrap();
    fs::create_dir_all(dir.path().join(".lima/dev")).unwrap();
    fs::write(dir.path().join(".lima/dev/lima.yaml"), "").unwrap();
    let start = |listen: &str| {
        let mut program = command(env!("CARGO_BIN_EXE_imgmv"));
        program.env("HOME", dir.path()).env_remove("DOCKER_CONFIG");
        let store = format!("oci:{}", dir.path().join("store").display());
        Server::spawned(
            dir.clone(),
            program.args(["serve", &store, "--writable", "--anonymous-push", "--listen", listen]),
        )
    };
    let server = start("127.0.0.1:0");
    let port = server.host.rsplit(':').next().unwrap();
    server.says(&format!("from inside Docker Desktop: http://host.docker.internal:{port}"));
    server.says(&format!("from inside Lima: http://host.lima.internal:{port}"));
    // And by that name it answers.
    let host = format!("host.docker.internal:{port}");
    assert_eq!(server.ask("GET", "/v2/", &[("Host", &host)], b"").status, 200);
    let server = start("0.0.0.0:0");
    server.get("/v2/");
    assert!(!server.log().iter().any(|line| line.contains("from inside")), "{:?}", server.log());
    let mut program = command(env!("CARGO_BIN_EXE_imgmv"));
    program.env("HOME", dir.path()).env_remove("DOCKER_CONFIG");
    let printed = program.args(["serve", "--print-mirror-config", "docker"]).output().unwrap();
    assert!(String::from_utf8_lossy(&printed.stdout).contains("http://host.docker.internal:5000"));
}

#[test]
fn options_that_make_no_sense_together_are_refused() {
    for (args, said) in [
        (&["serve", "--proxy", "docker.io"][..], "--cache"),
        (&["serve", "x.tar", "--cache", "oci:x"], "--proxy"),
        (&["serve", "--proxy", "docker io", "--cache", "oci:x"], "HOST"),
        (&["serve", "--proxy", "docker.io", "--cache", "docker-archive:x.tar"], "oci:DIR"),
        (&["serve", "--proxy", "docker.io", "--cache", "oci:x", "--peer", "ftp://x"], "http://HOST"),
        (&["serve", "--proxy", "docker.io", "--cache", "oci:x", "--peer-timeout", "0"], "seconds"),
        (&["serve", "--proxy", "a.io,b.io", "--cache", "oci:x", "--mirror", "m.lan"], "HOST=MIRROR"),
    ] {
        let dir = folder();
        let run = command(env!("CARGO_BIN_EXE_imgmv")).args(args).current_dir(dir.path()).output().unwrap();
        let stderr = String::from_utf8_lossy(&run.stderr).into_owned();
        assert_eq!(run.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(said), "{args:?}: {stderr}");
    }
}
