//! A containerd that can be killed and started again on the same directory.

use crate::support::engines::folder;
use crate::support::program::{Daemon, peer};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The namespace of the tests.
pub const NAMESPACE: &str = "imgmv-test";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    Containerd16,
    Containerd21,
}

pub const RELEASES: [Release; 2] = [Release::Containerd16, Release::Containerd21];

/// The NRI plugin has one socket on the whole host, on which two daemons that start together fail.
const CONFIG: &str = "version = 2\ndisabled_plugins = [\"io.containerd.nri.v1.nri\"]\n";

pub struct Containerd {
    pub release: Release,
    folder: tempfile::TempDir,
    daemon: Option<Daemon>,
    server: PathBuf,
    client: PathBuf,
}

impl Containerd {
    /// `None` where its programs are not here, which is said.
    pub fn start(release: Release) -> Option<Containerd> {
        let (server, client) = match release {
            Release::Containerd16 => ("containerd", "ctr"),
            Release::Containerd21 => ("containerd-new", "ctr-new"),
        };
        let (server, client) = (peer(server)?, peer(client)?);
        let mut containerd = Containerd { release, folder: folder(), daemon: None, server, client };
        containerd.run();
        Some(containerd)
    }

    /// Each of the releases that are here.
    pub fn each() -> impl Iterator<Item = Containerd> {
        RELEASES.into_iter().filter_map(Containerd::start)
    }

    pub fn at(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The socket.
    pub fn socket(&self) -> String {
        self.at("sock")
    }

    /// Its ctr.
    pub fn client(&self) -> &Path {
        &self.client
    }

    /// Lets other users enter the directory of the socket.
    pub fn let_others_see(&self) {
        fs::set_permissions(self.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Starts it, again after a kill.
    pub fn run(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.at("log")).unwrap();
        let mut command = Command::new(&self.server);
        fs::write(self.at("config.toml"), CONFIG).unwrap();
        command.args(["--config", &self.at("config.toml"), "--root", &self.at("data"), "--state", &self.at("state")]);
        command.args(["--address", &self.socket()]).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.daemon = Some(Daemon(command.spawn().unwrap()));
        let until = Instant::now() + Duration::from_secs(60);
        while self.try_ctr(&["version"]).is_none() {
            let log = fs::read_to_string(self.at("log")).unwrap_or_default();
            assert!(Instant::now() < until, "{:?} did not come up:\n{log}", self.release);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills it, so that it cannot end anything itself.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.0.kill().unwrap();
            daemon.0.wait().unwrap();
            // Its id is free.
            std::mem::forget(daemon);
        }
    }

    /// What a user of it has in the environment.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut path = std::env::var("PATH").unwrap_or_default();
        if self.release == Release::Containerd21 {
            // The newer ctr under its plain name.
            let real = fs::canonicalize(&self.client).unwrap();
            let new = real.parent().and_then(Path::parent).unwrap().join("new");
            path = format!("{}:{path}", new.display());
        }
        vec![("CONTAINERD_ADDRESS".to_owned(), self.socket()), ("PATH".to_owned(), path)]
    }

    /// What ctr prints in the namespace of the tests; panics where it fails.
    pub fn ctr(&self, arguments: &[&str]) -> String {
        self.try_ctr(arguments).unwrap_or_else(|| panic!("{:?}: ctr {arguments:?} failed", self.release))
    }

    pub fn try_ctr(&self, arguments: &[&str]) -> Option<String> {
        self.client_of(arguments)()
    }

    /// Calls ctr, from any thread.
    pub fn client_of(&self, arguments: &[&str]) -> impl Fn() -> Option<String> + Send + Sync + 'static {
        let global = ["--address".to_owned(), self.socket(), "--namespace".to_owned(), NAMESPACE.to_owned()];
        let arguments: Vec<String> = global.into_iter().chain(arguments.iter().map(|&word| word.to_owned())).collect();
        let client = self.client.clone();
        move || {
            let output = Command::new(&client).args(&arguments).stdin(Stdio::null()).output().unwrap();
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
    }

    /// Runs the garbage collection and waits for it.
    pub fn collect_garbage(&self) {
        self.ctr(&["leases", "create", "--id", "collect"]);
        self.ctr(&["leases", "delete", "--sync", "collect"]);
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.daemon = None;
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let mine: Vec<&str> = places.filter(|place| place.starts_with(&self.at(""))).collect();
        for place in mine.into_iter().rev() {
            let _ = Command::new("umount").arg(place).stderr(Stdio::null()).status();
        }
    }
}
