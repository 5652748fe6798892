//! Real clients through the mirror, told of it by what `--print-mirror-config` prints.

use super::support::engines::{Kind, Peer};
use super::support::program::{fixture, imgmv};
use super::*;
use std::fs;

/// An upstream with `library/hello:1` and `org/hello:1`, and a mirror of it as docker.io and as quay.io.
fn mirrored() -> (Double, Arc<TempDir>, Server) {
    let double = Double::start();
    for name in ["library/hello:1", "org/hello:1"] {
        let there = format!("docker://{}/{name}", double.host());
        let copied = imgmv(&["copy", "-q", &fixture("hello-docker20.tar"), &there], None);
        assert!(copied.status.success(), "{}", copied.stderr);
    }
    let dir = folder();
    let server = mirror_in(&dir, &format!("{0},quay.io={0}", double.host()), &[]);
    double.forget_requests();
    (double, dir, server)
}

/// The text of the `at`th file that `client` is told to have.
fn settings(client: &str, server: &Server, at: usize) -> String {
    let options = ["--proxy", "docker.io,quay.io", "--listen", &server.host, "--json"];
    let printed = imgmv(&[&["serve", "--print-mirror-config", client][..], &options].concat(), None);
    let document: Value = serde_json::from_str(&printed.stdout).unwrap();
    document["files"][at]["content"].as_str().unwrap().to_owned()
}

/// That a second pull, after `forget`, moved nothing from upstream.
fn pulls_twice(kind: Kind, double: &Double, pull: impl Fn(), forget: impl Fn()) {
    pull();
    assert!(double.count("GET", "/blobs/") > 0, "{kind:?}");
    forget();
    double.forget_requests();
    pull();
    assert_eq!(double.count("GET", "/"), 0, "{kind:?}: {:?}", double.requests());
    assert!(double.count("HEAD", "/manifests/1") > 0, "{kind:?}");
}

#[test]
fn containerd_pulls_through_hosts_toml() {
    for kind in [Kind::Containerd16, Kind::Containerd21] {
        let Some(containerd) = Peer::start(kind) else { continue };
        let (double, _dir, server) = mirrored();
        let hosts = containerd.folder.path().join("hosts");
        for (at, registry) in ["docker.io", "quay.io"].iter().enumerate() {
            fs::create_dir_all(hosts.join(registry)).unwrap();
            fs::write(hosts.join(registry).join("hosts.toml"), settings("containerd", &server, at)).unwrap();
        }
        let hosts = hosts.display().to_string();
        // The newer client has a server pull that can only unpack into overlayfs.
        let local: &[&str] = if kind == Kind::Containerd16 { &[] } else { &["--local"] };
        for name in ["docker.io/library/hello:1", "quay.io/org/hello:1"] {
            let pull = [&["images", "pull"], local, &["--snapshotter", "native", "--hosts-dir", &hosts, name]].concat();
            double.forget_requests();
            if name.starts_with("docker.io") {
                let forget = || {
                    containerd.client(&["images", "rm", "--sync", name]);
                };
                pulls_twice(kind, &double, || drop(containerd.client(&pull)), forget);
            } else {
                containerd.client(&pull);
            }
        }
        let log = server.log().join("\n");
        assert!(log.contains("ns=docker.io") && log.contains("ns=quay.io"), "{kind:?}");
    }
}

#[test]
fn docker_pulls_through_registry_mirrors() {
    for kind in [Kind::Docker20, Kind::Docker28, Kind::Docker28c] {
        let (double, _dir, server) = mirrored();
        let Some(docker) = Peer::start_told(kind, &settings("docker", &server, 0)) else { continue };
        let pull = || drop(docker.client(&["pull", "-q", "hello:1"]));
        let forget = || drop(docker.client(&["rmi", "-f", "hello:1"]));
        pulls_twice(kind, &double, pull, forget);
        // Others by the mirror's own name.
        docker.client(&["pull", "-q", &format!("{}/quay.io/org/hello:1", server.host)]);
    }
}

#[test]
fn podman_pulls_through_registries_conf() {
    for kind in [Kind::Podman4, Kind::Podman5] {
        let Some(mut podman) = Peer::start(kind) else { continue };
        let (double, _dir, server) = mirrored();
        let file = podman.folder.path().join("registries.conf");
        fs::write(&file, settings("podman", &server, 0)).unwrap();
        podman.environment.push(("CONTAINERS_REGISTRIES_CONF".to_owned(), file.display().to_string()));
        let pull = || drop(podman.client(&["pull", "-q", "docker.io/library/hello:1"]));
        let forget = || drop(podman.client(&["rmi", "-f", "docker.io/library/hello:1"]));
        pulls_twice(kind, &double, pull, forget);
        podman.client(&["pull", "-q", "quay.io/org/hello:1"]);
        assert!(server.log().iter().any(|line| line.contains("/v2/quay.io/org/hello/")), "{kind:?}");
    }
}
