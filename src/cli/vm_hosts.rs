//! Virtual machines on this host that engines run in: what they call this host, since `127.0.0.1` over there is not here.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// In bytes, of docker's settings.
const MAX_FILE: u64 = 1 << 20;

/// A kind of virtual machine that is likely in use here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    pub name: &'static str,
    /// How this host is called in there.
    pub host: &'static str,
    /// What of its name docker's contexts and sockets have.
    marks: &'static [&'static str],
    /// Where it keeps its things, below the home directory.
    places: &'static [&'static str],
}

const MACHINES: [Machine; 6] = [
    Machine {
        name: "Docker Desktop",
        host: "host.docker.internal",
        marks: &["desktop-linux", ".docker/desktop", ".docker/run"],
        places: &[".docker/desktop/docker.sock", ".docker/run/docker.sock"],
    },
    Machine {
        name: "Rancher Desktop",
        host: "host.rancher-desktop.internal",
        marks: &["rancher-desktop", ".rd/"],
        places: &[".rd/docker.sock"],
    },
    Machine { name: "OrbStack", host: "host.docker.internal", marks: &["orbstack"], places: &[".orbstack/run"] },
    Machine { name: "Colima", host: "host.lima.internal", marks: &["colima"], places: &[".colima/default"] },
    Machine { name: "Lima", host: "host.lima.internal", marks: &["lima-", ".lima/"], places: &[".lima/default"] },
    Machine {
        name: "Podman's machine",
        host: "host.containers.internal",
        marks: &["podman-machine"],
        places: &[".config/containers/podman/machine", ".local/share/containers/podman/machine"],
    },
];

/// What the environment says, as far as it matters here.
#[derive(Debug, Default)]
pub struct Surroundings {
    pub home: Option<PathBuf>,
    /// `DOCKER_CONFIG`
    pub docker_config: Option<PathBuf>,
    /// `DOCKER_CONTEXT` and `DOCKER_HOST`
    pub words: Vec<String>,
}

impl Surroundings {
    pub fn here() -> Surroundings {
        let text = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        Surroundings {
            home: text("HOME").map(PathBuf::from),
            docker_config: text("DOCKER_CONFIG").map(PathBuf::from),
            words: ["DOCKER_CONTEXT", "DOCKER_HOST"].into_iter().filter_map(text).collect(),
        }
    }
}

/// The machines that are likely in use, each once.
pub fn likely(around: &Surroundings) -> Vec<Machine> {
    let mut words = around.words.clone();
    let docker = around.docker_config.clone().or_else(|| Some(around.home.as_ref()?.join(".docker")));
    words.extend(docker.and_then(|folder| context(&folder.join("config.json"))));
    let is_likely = |machine: &Machine| {
        let named = words.iter().any(|word| machine.marks.iter().any(|mark| word.contains(mark)));
        let there = |home: &PathBuf| machine.places.iter().any(|place| home.join(place).exists());
        named
            || around.home.as_ref().is_some_and(there)
            || machine.name == "Lima" && around.home.as_ref().is_some_and(|home| lima(home))
    };
    MACHINES.into_iter().filter(is_likely).collect()
}

/// Any machine of Lima's, whatever it is called.
fn lima(home: &Path) -> bool {
    let found = fs::read_dir(home.join(".lima")).into_iter().flatten().flatten();
    found.into_iter().any(|entry| entry.path().join("lima.yaml").exists())
}

/// The context that docker uses, by its settings.
fn context(file: &Path) -> Option<String> {
    if fs::metadata(file).ok()?.len() > MAX_FILE {
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
        let at = |place: &str| {
            let path = home.path().join(place);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        };
        let names = |words: &[&str]| {
            let words = words.iter().map(|word| (*word).to_owned()).collect();
            let around = Surroundings { home: Some(home.path().to_owned()), docker_config: None, words };
            likely(&around).into_iter().map(|machine| machine.name).collect::<Vec<_>>()
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
