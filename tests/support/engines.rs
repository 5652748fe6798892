//! Real engines in folders of their own, found by environment variables as a user's would be.
#![allow(dead_code)]

use super::program::{Daemon, peer};
use imgmv::internals::engine::Engine;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// A short path: engines put sockets below it.
pub fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("imgmv-t").tempdir_in("/tmp").unwrap()
}

/// Which of the engines that the tests know, in which release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Docker20,
    Docker28,
    /// With containerd's image store.
    Docker28c,
    Containerd16,
    Containerd21,
    Podman4,
    Podman5,
}

impl Kind {
    pub const ALL: [Kind; 7] = [
        Kind::Docker20,
        Kind::Docker28,
        Kind::Docker28c,
        Kind::Containerd16,
        Kind::Containerd21,
        Kind::Podman4,
        Kind::Podman5,
    ];

    pub fn engine(self) -> Engine {
        match self {
            Kind::Docker20 | Kind::Docker28 | Kind::Docker28c => Engine::Docker,
            Kind::Containerd16 | Kind::Containerd21 => Engine::Ctr,
            Kind::Podman4 | Kind::Podman5 => Engine::Podman,
        }
    }

    fn is_new(self) -> bool {
        !matches!(self, Kind::Docker20 | Kind::Containerd16 | Kind::Podman4)
    }

    /// The daemon, then the client; podman has no daemon.
    fn programs(self) -> (&'static str, &'static str) {
        match self {
            Kind::Docker20 => ("dockerd", "docker"),
            Kind::Docker28 | Kind::Docker28c => ("dockerd-new", "docker-new"),
            Kind::Containerd16 => ("containerd", "ctr"),
            Kind::Containerd21 => ("containerd-new", "ctr-new"),
            Kind::Podman4 => ("podman", "podman"),
            Kind::Podman5 => ("podman-new", "podman-new"),
        }
    }
}

/// An engine that runs until this is dropped.
pub struct Peer {
    pub kind: Kind,
    pub folder: tempfile::TempDir,
    /// What a user of it would have in the environment.
    pub environment: Vec<(String, String)>,
    client: PathBuf,
    daemon: Option<Daemon>,
}

impl Peer {
    /// `None` where its programs are not here, which is said.
    pub fn start(kind: Kind) -> Option<Peer> {
        Peer::start_in(kind, folder(), "{}")
    }

    /// With `settings`, as docker has them in its daemon.json; of podman `storage-driver`, and `storage-options` as lines
    /// of its storage.conf.
    pub fn start_told(kind: Kind, settings: &str) -> Option<Peer> {
        Peer::start_in(kind, folder(), settings)
    }

    /// On a disk of `size` MB.
    pub fn start_on_small_disk(kind: Kind, size: u32) -> Option<Peer> {
        // Before anything is mounted that only a peer unmounts.
        let (server, client) = kind.programs();
        peer(server).and(peer(client))?;
        let folder = folder();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        let options = format!("size={size}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "imgmv-test"]).arg(&data).status();
        if !mounted.is_ok_and(|status| status.success()) {
            println!("skipped: no right to mount a small disk");
            return None;
        }
        Peer::start_in(kind, folder, "{}")
    }

    fn start_in(kind: Kind, folder: tempfile::TempDir, settings: &str) -> Option<Peer> {
        let (server, client) = kind.programs();
        let (server, client) = (peer(server)?, peer(client)?);
        let at = |name: &str| folder.path().join(name).display().to_string();
        let mut environment = vec![("HOME".to_owned(), at(""))];
        let mut set = |key: &str, value: String| environment.push((key.to_owned(), value));
        let mut command = Command::new(&server);
        match kind.engine() {
            Engine::Docker => {
                let mut config: serde_json::Value = serde_json::from_str(settings).unwrap();
                if kind == Kind::Docker28c {
                    config["features"] = serde_json::json!({ "containerd-snapshotter": true });
                }
                fs::write(at("daemon.json"), config.to_string()).unwrap();
                command.args(["--config-file", &at("daemon.json"), "--data-root", &at("data")]);
                command.args(["--exec-root", &at("exec"), "--pidfile", &at("pid")]);
                command.args(["-H", &format!("unix://{}", at("sock")), "--bridge=none", "--iptables=false"]);
                // dockerd refuses a driver that both say.
                if kind != Kind::Docker28c && config["storage-driver"].is_null() {
                    command.args(["--storage-driver", "overlay2"]);
                }
                set("DOCKER_HOST", format!("unix://{}", at("sock")));
            }
            Engine::Ctr | Engine::Nerdctl => {
                // The NRI plugin has one socket on the whole host, on which two daemons that start together fail.
                let config = "version = 2\ndisabled_plugins = [\"io.containerd.nri.v1.nri\"]\n";
                fs::write(at("config.toml"), config).unwrap();
                command.args(["--config", &at("config.toml"), "--root", &at("data"), "--state", &at("state")]);
                command.args(["--address", &at("sock")]);
                set("CONTAINERD_ADDRESS", at("sock"));
            }
            Engine::Podman => {
                let config: serde_json::Value = serde_json::from_str(settings).unwrap();
                let driver = config["storage-driver"].as_str().unwrap_or("vfs");
                let options = config["storage-options"].as_str().unwrap_or_default();
                let storage = format!(
                    "[storage]\ndriver = \"{driver}\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n{options}",
                    at("data"),
                    at("run")
                );
                fs::write(at("storage.conf"), storage).unwrap();
                set("CONTAINERS_STORAGE_CONF", at("storage.conf"));
                set("PODMAN_IGNORE_CGROUPSV1_WARNING", "1".to_owned());
            }
        }
        // The newer programs under their plain names.
        let mut path = std::env::var("PATH").unwrap_or_default();
        if kind.is_new() {
            let real = fs::canonicalize(&client).unwrap();
            let new = real.parent().and_then(Path::parent).unwrap().join("new");
            path = format!("{}:{path}", new.display());
        }
        set("PATH", path);
        let daemon = (kind.engine() != Engine::Podman).then(|| {
            let log = fs::File::create(at("log")).unwrap();
            Daemon(command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap())
        });
        let peer = Peer { kind, folder, environment, client, daemon };
        peer.ready().then_some(peer)
    }

    fn ready(&self) -> bool {
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            if self.daemon.is_none() || self.try_client(&["version"]).is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        panic!("{:?} did not come up:\n{log}", self.kind);
    }

    /// What the engine's client prints; panics where it fails.
    pub fn client(&self, arguments: &[&str]) -> String {
        self.try_client(arguments).unwrap_or_else(|| panic!("{:?}: {arguments:?} failed", self.kind))
    }

    pub fn try_client(&self, arguments: &[&str]) -> Option<String> {
        self.caller()(arguments)
    }

    /// The same, for whoever outlives this borrow.
    pub fn caller(&self) -> impl Fn(&[&str]) -> Option<String> + Send + Sync + 'static {
        let environment: Vec<_> = self.environment.iter().filter(|(key, _)| key != "PATH").cloned().collect();
        let client = self.client.clone();
        move |arguments| {
            let mut command = Command::new(&client);
            let output = command.args(arguments).envs(environment.clone()).stdin(Stdio::null()).output().unwrap();
            if !output.status.success() {
                eprintln!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
            }
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
    }

    /// The digest or id under which the engine itself lists `name`; of docker and podman the config's unless they keep
    /// manifests.
    pub fn id(&self, name: &str) -> Option<String> {
        match self.kind.engine() {
            Engine::Docker => self.try_client(&["image", "inspect", "--format", "{{.Id}}", name]),
            Engine::Podman => {
                self.try_client(&["image", "inspect", "--format", "{{.Id}}", name]).map(|id| format!("sha256:{id}"))
            }
            Engine::Ctr | Engine::Nerdctl => {
                let table = self.client(&["images", "ls", &format!("name=={name}")]);
                let row = table.lines().nth(1)?;
                row.split_whitespace().nth(2).map(str::to_owned)
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.daemon = None;
        // Engines may leave mounts, podman also below a disk that was mounted for it; they keep the folder busy.
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let places = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
        let mine: Vec<&Path> = places.filter(|place| place.starts_with(self.folder.path())).collect();
        for place in mine.into_iter().rev() {
            let _ = Command::new("umount").arg(place).stderr(Stdio::null()).status();
        }
    }
}
