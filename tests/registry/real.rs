//! The real docker-registry: what we push it serves, what it holds we pull.

use super::support::registry::{Double, image};
use super::*;
use imgmv::{Reference, Sink, Store as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

/// User `me`, password `secret`, by bcrypt as docker-registry wants it.
const HTPASSWD: &str = "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// A docker-registry on loopback; ends when dropped.
struct DockerRegistry {
    child: Child,
    host: String,
    _dir: tempfile::TempDir,
}

impl DockerRegistry {
    /// `None` where there is none on `PATH`; then the test has nothing to show.
    fn start(more: &str) -> Option<DockerRegistry> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|dir| dir.join("docker-registry").is_file()) {
            assert_ne!(std::env::var("IMGMV_REQUIRE_PEERS").as_deref(), Ok("1"), "no docker-registry on PATH");
            println!("skipped: no docker-registry on PATH");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("htpasswd"), HTPASSWD).unwrap();
        // The port is free now; should another program be quicker, the registry ends and the next port is tried.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let config = dir.path().join("config.yml");
            let text = format!(
                "version: 0.1\nlog: {{level: error}}\nstorage:\n  delete: {{enabled: true}}\n  filesystem: {{rootdirectory: {}}}\n\
                 http: {{addr: 127.0.0.1:{port}}}\n{}",
                dir.path().join("data").display(),
                more.replace("DIR", &dir.path().display().to_string())
            );
            std::fs::write(&config, text).unwrap();
            let mut command = Command::new("docker-registry");
            let command = command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let host = format!("127.0.0.1:{port}");
            for _ in 0..1000 {
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                if std::net::TcpStream::connect(&host).is_ok() {
                    return Some(DockerRegistry { child, host, _dir: dir });
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("docker-registry does not start");
    }

    fn registry(&self) -> Arc<Registry> {
        reach(&self.host, access())
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_image_survives_the_way_through_docker_registry() {
    let Some(docker) = DockerRegistry::start("") else { return };
    let from = Double::start();
    let large = noise(1, 5 << 20);
    let image = from.image("app", "1", &[b"small", &large]);
    send(store(&from, "app"), &docker.registry().sink("team/app"), "1").unwrap();
    let found = super::pull(&docker.registry().repository("team/app"), "1").unwrap();
    assert_eq!(found.bytes, image.bytes);
    // A second time nothing moves; another repository is mounted; a tag is one request.
    assert_eq!(send(store(&from, "app"), &docker.registry().sink("team/app"), "1").unwrap().transferred.blobs, 0);
    let mounted = send(docker.registry().repository("team/app"), &docker.registry().sink("other"), "1").unwrap();
    assert_eq!((mounted.transferred.blobs, mounted.existing.blobs), (0, 3));
    docker.registry().sink("team/app").publish(Some(&Name::new("2").unwrap()), &image).unwrap();
    let names = docker.registry().repository("team/app").names().unwrap();
    let mut tags: Vec<String> = names.iter().filter_map(|name| name.reference()?.tag).collect();
    tags.sort();
    assert_eq!(tags, ["1", "2"]);
    let name: Reference = names[0].as_str().parse().unwrap();
    assert_eq!(name.host, docker.host);
    assert!(docker.registry().repository("team/app").referrers(&image.digest()).unwrap().entries.is_empty());
    let signature = referrer(&image);
    let sink = docker.registry().sink("team/app");
    sink.publish(None, &signature).unwrap();
    sink.finish().unwrap();
    let found = docker.registry().repository("team/app").referrers(&image.digest()).unwrap().entries;
    assert_eq!(found[0].digest, signature.digest());
}

#[test]
fn docker_registry_takes_a_layer_that_is_compressed_on_the_way() {
    let Some(docker) = DockerRegistry::start("") else { return };
    let from = Double::start();
    from.image("app", "1", &[&noise(2, 3 << 20)]);
    let options = Options {
        selectors: vec![Selector::Name("1".into())],
        naming: Naming::Names(vec![Name::new("1").unwrap()]),
        ..Options::default()
    };
    let source = Source::Store(Arc::new(store(&from, "app")));
    copy(source, &docker.registry().sink("app"), &options, None, &Silent, &Cancel::default()).unwrap();
    super::pull(&docker.registry().repository("app"), "1").unwrap();
}

#[test]
fn docker_registry_reads_from_the_middle_of_a_blob() {
    let Some(docker) = DockerRegistry::start("") else { return };
    let from = Double::start();
    let layer = noise(3, 2 << 20);
    let image = from.image("app", "1", &[&layer]);
    send(store(&from, "app"), &docker.registry().sink("app"), "1").unwrap();
    let repository = docker.registry().repository("app");
    assert!(read(&repository, &image.layers()[0], 1_000_001).unwrap() == layer[1_000_001..]);
}

#[test]
fn docker_registry_with_a_password_file_wants_it_and_takes_it() {
    let auth = "auth:\n  htpasswd: {realm: imgmv, path: DIR/htpasswd}\n";
    let Some(docker) = DockerRegistry::start(auth) else { return };
    let image = image(&[]);
    let error = docker
        .registry()
        .sink("app")
        .put_manifest(&image)
        .and_then(|()| docker.registry().sink("app").publish(None, &image));
    assert_eq!(error.unwrap_err().kind(), imgmv::Kind::Denied);
    let password = imgmv::internals::registry::Secret::new("secret");
    let credentials = imgmv::internals::registry::Credentials::Password { user: "me".into(), password };
    let known = Access { credentials, ..access() };
    let from = Double::start();
    from.image("app", "1", &[b"layer"]);
    send(store(&from, "app"), &reach(&docker.host, known.clone()).sink("app"), "1").unwrap();
    super::pull(&reach(&docker.host, known).repository("app"), "1").unwrap();
}
