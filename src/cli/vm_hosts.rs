//! Virtual machines on this host that container engines run in, and the name of this host inside each. Inside such a
//! machine, `127.0.0.1` is the machine itself.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Maximum size of docker's config.json.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// A product that runs container engines in a virtual machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtualMachine {
    pub name: &'static str,
    /// The name of this host inside the virtual machine.
    pub host: &'static str,
    /// Substrings of docker's context names and socket paths that identify it.
    markers: &'static [&'static str],
    /// Its files below the home directory; one of them exists if it is in use.
    paths: &'static [&'static str],
}

const VIRTUAL_MACHINES: [VirtualMachine; 6] = [
    VirtualMachine {
        name: "Docker Desktop",
        host: "host.docker.internal",
        markers: &["desktop-linux", ".docker/desktop", ".docker/run"],
        paths: &[".docker/desktop/docker.sock", ".docker/run/docker.sock"],
    },
    VirtualMachine {
        name: "Rancher Desktop",
        host: "host.rancher-desktop.internal",
        markers: &["rancher-desktop", ".rd/"],
        paths: &[".rd/docker.sock"],
    },
    VirtualMachine {
        name: "OrbStack",
        host: "host.docker.internal",
        markers: &["orbstack"],
        paths: &[".orbstack/run"],
    },
    VirtualMachine { name: "Colima", host: "host.lima.internal", markers: &["colima"], paths: &[".colima/default"] },
    VirtualMachine {
        name: "Lima",
        host: "host.lima.internal",
        markers: &["lima-", ".lima/"],
        paths: &[".lima/default"],
    },
    VirtualMachine {
        name: "Podman machine",
        host: "host.containers.internal",
        markers: &["podman-machine"],
        paths: &[".config/containers/podman/machine", ".local/share/containers/podman/machine"],
    },
];

/// The environment variables that identify a virtual machine.
#[derive(Debug, Default)]
pub struct Environment {
    pub home: Option<PathBuf>,
    /// `DOCKER_CONFIG`
    pub docker_config: Option<PathBuf>,
    /// `DOCKER_CONTEXT` and `DOCKER_HOST`
    pub docker_targets: Vec<String>,
}

impl Environment {
    pub fn of_process() -> Environment {
        let text = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        Environment {
            home: text("HOME").map(PathBuf::from),
            docker_config: text("DOCKER_CONFIG").map(PathBuf::from),
            docker_targets: ["DOCKER_CONTEXT", "DOCKER_HOST"].into_iter().filter_map(text).collect(),
        }
    }
}

/// Returns the virtual machines that are likely in use.
pub fn detect(environment: &Environment) -> Vec<VirtualMachine> {
    let Environment { home, docker_config, docker_targets } = environment;
    let mut targets = docker_targets.clone();
    let docker = docker_config.clone().or_else(|| Some(home.as_ref()?.join(".docker")));
    targets.extend(docker.and_then(|directory| current_context(&directory.join("config.json"))));
    let in_use = |machine: &VirtualMachine| {
        let named = targets.iter().any(|target| machine.markers.iter().any(|marker| target.contains(marker)));
        let installed = |home: &PathBuf| machine.paths.iter().any(|path| home.join(path).exists());
        named
            || home.as_ref().is_some_and(installed)
            || machine.name == "Lima" && home.as_ref().is_some_and(|home| has_lima_instance(home))
    };
    VIRTUAL_MACHINES.into_iter().filter(in_use).collect()
}

/// Whether Lima has an instance, of any name.
fn has_lima_instance(home: &Path) -> bool {
    let found = fs::read_dir(home.join(".lima")).into_iter().flatten().flatten();
    found.into_iter().any(|entry| entry.path().join("lima.yaml").exists())
}

/// The current context in docker's config.json.
fn current_context(file: &Path) -> Option<String> {
    if fs::metadata(file).ok()?.len() > MAX_CONFIG_BYTES {
        return None;
    }
    let settings: Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    settings.get("currentContext")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_known_by_their_contexts_sockets_and_files() {
        let home = tempfile::tempdir().unwrap();
        let at = |path: &str| {
            let path = home.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        };
        let names = |targets: &[&str]| {
            let docker_targets = targets.iter().map(|target| (*target).to_owned()).collect();
            let environment = Environment { home: Some(home.path().to_owned()), docker_config: None, docker_targets };
            detect(&environment).into_iter().map(|machine| machine.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&[]), Vec::<&str>::new());
        assert_eq!(names(&["default", "unix:///var/run/docker.sock"]), Vec::<&str>::new());
        assert_eq!(names(&["unix:///home/me/.rd/docker.sock"]), ["Rancher Desktop"]);
        fs::write(at(".docker/config.json"), r#"{"currentContext": "desktop-linux"}"#).unwrap();
        assert_eq!(names(&[]), ["Docker Desktop"]);
        fs::write(at(".docker/config.json"), r#"{"currentContext": 7}"#).unwrap();
        fs::write(at(".lima/dev/lima.yaml"), "").unwrap();
        assert_eq!(names(&[]), ["Lima"]);
        assert_eq!(names(&["colima"]), ["Colima", "Lima"]);
    }
}
