//! A neighbour's containerd served as a registry: by a socket that ssh forwards beforehand, and by one command.

use crate::daemon::{Containerd, NAMESPACE};
use crate::line::Line;
use crate::ssh::{imgmv_of, runtime};
use crate::support::docker_dir::tar_of;
use crate::support::engines::{Kind, Peer};
use crate::support::noise::noise;
use crate::support::odd_layers::archive;
use crate::support::program::{Daemon, command, fixture};
use crate::support::sshd::{Sshd, Way};
use imgmv::Digest;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const NAME: &str = "docker.io/t/hello:1";
/// The manifest of `1` in `fixtures/layout`.
const HELLO: &str = "sha256:602b22ac0877e98491067019bf894774c63bd3f2b4be96809c3c1e9a29cca06c";

/// `imgmv serve` on a port of its own.
pub struct Server {
    pub host: String,
    child: Child,
}

impl Server {
    pub fn spawn(program: &mut Command) -> Server {
        let mut child = program.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let host = loop {
            let start = said.len();
            assert!(lines.read_line(&mut said).unwrap() > 0, "it did not start: {said}");
            if let Some(url) = said[start..].trim_end().strip_prefix("listening on ") {
                break url.rsplit('/').next().unwrap().to_owned();
            }
        };
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Server { host, child }
    }

    /// The status and the body of an answer.
    fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.host).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), answer.split_off(end + 4))
    }

    fn signal(&self, signal: &str) {
        Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes the image into `containerd`.
fn fill(containerd: &Containerd) {
    let from = format!("oci:{}:1", fixture("layout"));
    let mut copy = command(env!("CARGO_BIN_EXE_imgmv"));
    copy.args(["copy", "-q", &from, &format!("containerd:{NAME}"), "--dst-address", &containerd.socket()]);
    assert!(copy.args(["--namespace", NAMESPACE]).status().unwrap().success());
}

/// Gets the manifest by tag and digest, and every blob, as curl would.
fn curl(server: &Server) {
    let (status, manifest) = server.get("/v2/t/hello/manifests/1");
    assert_eq!((status, Digest::of(&manifest).to_string().as_str()), (200, HELLO));
    assert_eq!(server.get(&format!("/v2/t/hello/manifests/{HELLO}")), (200, manifest.clone()));
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let blobs = manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]);
    for blob in blobs.map(|blob| blob["digest"].as_str().unwrap()) {
        let (status, bytes) = server.get(&format!("/v2/t/hello/blobs/{blob}"));
        assert_eq!((status, Digest::of(&bytes).to_string().as_str()), (200, blob));
    }
    assert_eq!(server.get("/v2/t/hello/manifests/2").0, 404);
}

/// The most memory that the server had, in KiB.
fn peak_memory(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn docker_pulls(server: &Server) {
    for kind in [Kind::Docker20, Kind::Docker28] {
        let settings = format!("{{\"registry-mirrors\":[\"http://{}\"]}}", server.host);
        let Some(docker) = Peer::start_told(kind, &settings) else { continue };
        docker.client(&["pull", "-q", "t/hello:1"]);
        assert!(docker.id("t/hello:1").is_some(), "{kind:?}");
    }
}

fn containerd_pulls(server: &Server) {
    for kind in [Kind::Containerd16, Kind::Containerd21] {
        let Some(containerd) = Peer::start(kind) else { continue };
        let hosts = containerd.folder.path().join("hosts/docker.io");
        fs::create_dir_all(&hosts).unwrap();
        let told = format!("[host.\"http://{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n", server.host);
        fs::write(hosts.join("hosts.toml"), told).unwrap();
        let dir = hosts.parent().unwrap().display().to_string();
        let local: &[&str] = if kind == Kind::Containerd21 { &["--local"] } else { &[] };
        let pull = [&["images", "pull", "--snapshotter", "native", "--hosts-dir", &dir], local, &[NAME]].concat();
        containerd.client(&pull);
        assert_eq!(containerd.id(NAME).as_deref(), Some(HELLO), "{kind:?}");
    }
}

/// A reader that is opened again for each buffer would let containerd send megabytes ahead each time.
#[test]
fn a_served_blob_is_read_once() {
    const LAYER_BYTES: usize = 16 << 20;
    let dir = TempDir::new_in("/tmp").unwrap();
    let layer = tar_of(&[("noise", &noise(7, LAYER_BYTES))]);
    let digest = Digest::of(&layer);
    let file = archive(dir.path(), "docker.io/t/big:1", &[layer]).display().to_string();
    for containerd in Containerd::each() {
        let to = ["containerd:docker.io/t/big:1", "--namespace", NAMESPACE, "--dst-address", &containerd.socket()];
        let copied = command(env!("CARGO_BIN_EXE_imgmv")).args(["copy", "-q", &file]).args(to).output().unwrap();
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        let socket = dir.path().join("line");
        let line = Line::new(&socket, containerd.socket().as_ref(), u64::MAX, || {});
        let mut serve = command(env!("CARGO_BIN_EXE_imgmv"));
        serve.args(["serve", "containerd:", "--listen", "127.0.0.1:0", "--src-address"]).arg(&socket);
        let server = Server::spawn(&mut serve);
        let (status, bytes) = server.get(&format!("/v2/t/big/blobs/{digest}"));
        assert_eq!((status, Digest::of(&bytes)), (200, digest), "{:?}", containerd.release);
        let down = line.down();
        assert!(down < (LAYER_BYTES + (1 << 20)) as u64, "{:?}: {down}", containerd.release);
    }
}

/// The recipe: `ssh -N -L LOCAL:REMOTE HOST`, then `imgmv serve containerd: --src-address LOCAL`.
#[test]
fn a_forwarded_socket_is_served_to_curl_docker_and_containerd() {
    let Some(containerd) = Containerd::each().next() else { return };
    let Some(sshd) = Sshd::start("", &containerd.environment()) else { return };
    fill(&containerd);
    let dir = TempDir::new_in("/tmp").unwrap();
    let socket = dir.path().join("containerd.sock");
    sshd.client_config("");
    let forward = format!("{}:{}", socket.display(), containerd.socket());
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", &sshd.at("home/.ssh/config"), "-o", "BatchMode=yes", "-N", "-L", &forward, "node1"]);
    let _ssh = Daemon(ssh.stdin(Stdio::null()).spawn().unwrap());
    appears(&socket);
    let mut serve = command(env!("CARGO_BIN_EXE_imgmv"));
    serve.args(["serve", "containerd:", "--src-address", socket.to_str().unwrap(), "--src-namespace", NAMESPACE]);
    let server = Server::spawn(serve.args(["--listen", "127.0.0.1:0"]));
    curl(&server);
    docker_pulls(&server);
    containerd_pulls(&server);
    // An image that comes later is served soon.
    containerd.ctr(&["images", "tag", NAME, "docker.io/t/late:2"]);
    let until = Instant::now() + Duration::from_secs(30);
    while server.get("/v2/t/late/manifests/2").0 != 200 {
        assert!(Instant::now() < until, "it was not seen");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn large_blobs_are_served_in_little_memory() {
    let Some(containerd) = Containerd::each().next() else { return };
    let dir = TempDir::new().unwrap();
    let layers: Vec<Vec<u8>> = (0..4).map(|seed| tar_of(&[("noise", &noise(seed, 24 << 20))])).collect();
    let file = archive(dir.path(), "docker.io/t/large:1", &layers);
    let mut copy = command(env!("CARGO_BIN_EXE_imgmv"));
    copy.args(["copy", "-q", file.to_str().unwrap(), "containerd:", "--dst-address", &containerd.socket()]);
    assert!(copy.args(["--namespace", NAMESPACE]).status().unwrap().success());
    let mut serve = command(env!("CARGO_BIN_EXE_imgmv"));
    serve.args(["serve", "containerd:", "--src-address", &containerd.socket(), "--listen", "127.0.0.1:0"]);
    let server = Server::spawn(&mut serve);
    std::thread::scope(|scope| {
        for layer in &layers {
            let (server, digest) = (&server, Digest::of(layer));
            scope.spawn(move || {
                let (status, bytes) = server.get(&format!("/v2/t/large/blobs/{digest}"));
                assert_eq!((status, Digest::of(&bytes)), (200, digest));
            });
        }
    });
    assert!(peak_memory(&server) < 64 << 10, "{} KiB", peak_memory(&server));
}

fn appears(path: &Path) {
    let until = Instant::now() + Duration::from_secs(30);
    while !path.exists() {
        assert!(Instant::now() < until, "{} did not appear", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until no process has all `words` in its command line.
fn nothing_runs_with(words: &[&str]) {
    let until = Instant::now() + Duration::from_secs(30);
    let runs = || {
        let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path().join("cmdline"));
        let lines = processes.filter_map(|file| fs::read(file).ok());
        lines.map(|line| String::from_utf8_lossy(&line).into_owned()).any(|line| words.iter().all(|w| line.contains(w)))
    };
    while runs() {
        assert!(Instant::now() < until, "a process with {words:?} still runs");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn one_command_serves_a_host_and_leaves_no_socket_behind() {
    let Some(containerd) = Containerd::each().next() else { return };
    let Some(sshd) = Sshd::start("", &containerd.environment()) else { return };
    fill(&containerd);
    for way in Way::BOTH {
        let runtime = runtime();
        let entries = || fs::read_dir(runtime.path()).unwrap().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
        let arguments = ["serve", "ssh://node1", "--src-namespace", NAMESPACE, "--listen", "127.0.0.1:0"];
        let start = || Server::spawn(&mut imgmv_of(&sshd, way, runtime.path(), &arguments));
        let mut server = start();
        curl(&server);
        // The socket, and that of the shared connection, are in directories that only this user can enter.
        assert_eq!(entries().len(), if way == Way::Client { 2 } else { 0 }, "{way:?}: {:?}", entries());
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert!(entries().into_iter().all(|directory| mode(directory) == 0o700), "{way:?}");
        server.signal("-TERM");
        server.child.wait().unwrap();
        assert!(entries().is_empty(), "{way:?}: {:?}", entries());
        let mut server = start();
        server.child.kill().unwrap();
        server.child.wait().unwrap();
        // Only a shared connection outlives it, for a while, and without a socket to containerd.
        nothing_runs_with(&[&runtime.path().display().to_string(), "/c:/"]);
        let left = entries();
        let list = imgmv_of(&sshd, way, runtime.path(), &["list", "ssh://node1"]).output().unwrap();
        assert!(list.status.success(), "{}", String::from_utf8_lossy(&list.stderr));
        assert!(entries().is_empty(), "{way:?}: {left:?} became {:?}", entries());
    }
}
