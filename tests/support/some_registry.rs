//! A registry on loopback for tests of the whole program.
#![allow(dead_code)]

use super::program::{Daemon, free_port, listens, peer};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

/// A registry on loopback: docker's own where it is installed, else the double.
pub struct Registry {
    /// `127.0.0.1:PORT`.
    pub address: String,
    _runs: Runs,
}

impl Registry {
    /// Whether it is docker's own.
    pub fn is_real(&self) -> bool {
        matches!(self._runs, Runs::Real(_))
    }
}

enum Runs {
    Real(Daemon),
    Double(super::registry::Double),
}

impl Registry {
    /// Starts one that keeps its files in `dir`.
    pub fn start(dir: &Path) -> Registry {
        Registry::start_with(dir, true)
    }

    /// One that allows deletions or not; the double knows none.
    pub fn start_with(dir: &Path, deletions: bool) -> Registry {
        if peer("docker-registry").is_none() {
            let double = super::registry::Double::start();
            return Registry { address: double.host(), _runs: Runs::Double(double) };
        }
        for attempt in 0..5 {
            let port = free_port();
            let config = dir.join(format!("registry-{attempt}.yml"));
            let root = dir.join("registry");
            let text = format!(
                "version: 0.1\nlog: {{accesslog: {{disabled: true}}, level: error}}\nstorage:\n  filesystem: \
                 {{rootdirectory: {}}}\n  delete: {{enabled: {deletions}}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n",
                root.display()
            );
            fs::write(&config, text).unwrap();
            let child = Command::new("docker-registry")
                .arg("serve")
                .arg(&config)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut daemon = Daemon(child);
            if listens(port) && matches!(daemon.0.try_wait(), Ok(None)) {
                return Registry { address: format!("127.0.0.1:{port}"), _runs: Runs::Real(daemon) };
            }
        }
        panic!("docker-registry does not start");
    }
}
