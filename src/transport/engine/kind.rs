//! The engines: their names, and the commands that each one supports.

use crate::error::{Error, Result};
use crate::image::{Coding, Platform};
use crate::sink::Shape;
use std::{fmt, str::FromStr};

/// A program that stores images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// nerdctl, for containerd.
    Nerdctl,
    /// docker, with either image store.
    Docker,
    /// ctr, containerd's own client.
    Ctr,
    /// podman.
    Podman,
}

impl Engine {
    /// All engines, in the order in which they are probed.
    pub const ALL: [Engine; 4] = [Engine::Nerdctl, Engine::Docker, Engine::Ctr, Engine::Podman];
    /// The engines that use containerd.
    pub const CONTAINERD: [Engine; 2] = [Engine::Nerdctl, Engine::Ctr];

    /// Returns the name of the program.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Nerdctl => "nerdctl",
            Engine::Docker => "docker",
            Engine::Ctr => "ctr",
            Engine::Podman => "podman",
        }
    }
}

impl FromStr for Engine {
    type Err = Error;

    fn from_str(text: &str) -> Result<Engine> {
        let engine = Engine::ALL.into_iter().find(|engine| engine.name() == text);
        engine
            .ok_or_else(|| Error::usage(format!("{text:?} is not an engine: expected nerdctl, docker, ctr or podman")))
    }
}

/// docker's image store, which determines an image's ID and the supported forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageStore {
    /// docker's classic store (overlay2 and older): one platform; the image ID is the config's digest.
    Graph,
    /// The containerd store: indexes are stored; the image ID is the root's digest.
    Containerd,
}

/// A kind of command that loads an archive from standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loader {
    /// `nerdctl load`.
    Nerdctl,
    /// `docker load`, into this image store.
    Docker(ImageStore),
    /// `ctr images import -`.
    Ctr,
    /// `podman load`.
    Podman,
    /// `--remote-command`.
    Custom,
}

/// An engine that answered the probe, and how to call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetectedEngine {
    /// The command that loads an archive.
    pub loader: Loader,
    /// The program's full path, after `sudo -n` if that is needed; for `--remote-command` the complete command.
    pub argv: Vec<String>,
    /// containerd's namespace; `None`: the engine's default.
    pub namespace: Option<String>,
    /// The platform of the images that the host runs.
    pub platform: Platform,
    /// The engine's version, if the probe found it.
    pub version: Option<String>,
}

impl DetectedEngine {
    /// The command that loads an archive.
    pub fn load_command(&self) -> Vec<String> {
        match self.loader {
            Loader::Nerdctl | Loader::Docker(_) | Loader::Podman => self.command(&["load"]),
            Loader::Ctr => self.command(&["images", "import", "-"]),
            Loader::Custom => self.argv.clone(),
        }
    }

    /// The command that calls the engine with `arguments` in its namespace.
    pub fn command(&self, arguments: &[&str]) -> Vec<String> {
        let mut argv = self.argv.clone();
        if let Some(namespace) = &self.namespace {
            argv.extend(["--namespace".to_owned(), namespace.clone()]);
        }
        argv.extend(arguments.iter().map(|&word| word.to_owned()));
        argv
    }

    /// The ctr called by `argv`, for the containerd that this engine uses. If `argv` has `--address`, its last word is
    /// the namespace.
    pub(super) fn with_ctr(&self, argv: &[String]) -> Option<DetectedEngine> {
        let mut argv = argv.to_vec();
        let namespace = match argv.iter().any(|word| word == "--address") {
            true => argv.pop(),
            false => self.namespace.clone(),
        };
        (!argv.is_empty()).then(|| DetectedEngine { loader: Loader::Ctr, argv, namespace, ..self.clone() })
    }

    /// Whether the engine stores names by digest; docker and podman store only tags.
    pub(super) fn stores_digest_names(&self) -> bool {
        matches!(self.loader, Loader::Ctr | Loader::Nerdctl)
    }

    /// Whether the engine stores artifacts. docker's classic store and podman read each config as the config of an image.
    /// nerdctl, and ctr before containerd 2, make a snapshot of each image that they load.
    pub(super) fn stores_artifacts(&self) -> bool {
        match self.loader {
            Loader::Docker(ImageStore::Graph) | Loader::Podman | Loader::Nerdctl => false,
            Loader::Ctr => self.version.as_deref().and_then(major).is_none_or(|major| major >= 2),
            Loader::Docker(ImageStore::Containerd) | Loader::Custom => true,
        }
    }

    /// The part of an index that the engine stores.
    pub(super) fn shape(&self) -> Shape {
        match self.loader {
            Loader::Docker(ImageStore::Graph) | Loader::Podman => Shape::One(self.platform.clone()),
            _ => Shape::Sparse(self.platform.clone()),
        }
    }

    /// The layer codings that the engine cannot read. docker before 23 reads no zstd layers (seen on 20.10; 23 added it
    /// according to its release notes).
    pub fn refuses(&self) -> &'static [Coding] {
        let old = |version: &str| major(version).is_some_and(|major| major < 23);
        match self.loader {
            Loader::Docker(ImageStore::Graph) if self.version.as_deref().is_none_or(old) => &[Coding::Zstd],
            _ => &[],
        }
    }
}

/// The first number of a version.
fn major(version: &str) -> Option<u32> {
    version.split(|c: char| !c.is_ascii_digit()).next().and_then(|number| number.parse().ok())
}

impl fmt::Display for DetectedEngine {
    /// Prints `docker 20.10.24` or `ctr 1.6.20, namespace k8s.io, by sudo`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.loader {
            Loader::Nerdctl => "nerdctl",
            Loader::Docker(ImageStore::Graph) => "docker",
            Loader::Docker(ImageStore::Containerd) => "docker (containerd image store)",
            Loader::Ctr => "ctr",
            Loader::Podman => "podman",
            Loader::Custom => return write!(f, "the command {:?}", self.argv.last().map_or("", String::as_str)),
        };
        f.write_str(name)?;
        if let Some(version) = &self.version {
            write!(f, " {version}")?;
        }
        if let Some(namespace) = &self.namespace {
            write!(f, ", namespace {namespace}")?;
        }
        if self.argv.first().is_some_and(|word| word == "sudo") {
            f.write_str(", by sudo")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(loader: Loader, version: &str) -> DetectedEngine {
        DetectedEngine {
            loader,
            argv: vec!["sudo".into(), "-n".into(), "/bin/e".into()],
            namespace: matches!(loader, Loader::Ctr | Loader::Nerdctl).then(|| "k8s.io".into()),
            platform: Platform::new("linux", "amd64", None),
            version: Some(version.into()),
        }
    }

    #[test]
    fn each_engine_is_called_as_it_expects() {
        for (loader, command) in [
            (Loader::Nerdctl, "sudo -n /bin/e --namespace k8s.io load"),
            (Loader::Docker(ImageStore::Graph), "sudo -n /bin/e load"),
            (Loader::Ctr, "sudo -n /bin/e --namespace k8s.io images import -"),
            (Loader::Podman, "sudo -n /bin/e load"),
        ] {
            assert_eq!(found(loader, "1").load_command().join(" "), command);
        }
        assert_eq!(found(Loader::Ctr, "1.6").to_string(), "ctr 1.6, namespace k8s.io, by sudo");
    }

    #[test]
    fn only_some_engines_store_artifacts() {
        for (loader, version, stores) in [
            (Loader::Docker(ImageStore::Graph), "28.5.2", false),
            (Loader::Docker(ImageStore::Containerd), "28.5.2", true),
            (Loader::Podman, "5.8.0", false),
            (Loader::Nerdctl, "2.0.0", false),
            (Loader::Ctr, "1.6.20~ds1", false),
            (Loader::Ctr, "1.7.28", false),
            (Loader::Ctr, "2.1.4", true),
            (Loader::Custom, "1", true),
        ] {
            assert_eq!(found(loader, version).stores_artifacts(), stores, "{loader:?} {version}");
        }
    }

    #[test]
    fn only_an_old_docker_refuses_zstd() {
        let graph = Loader::Docker(ImageStore::Graph);
        assert_eq!(found(graph, "20.10.24+dfsg1").refuses(), [Coding::Zstd]);
        assert!(found(graph, "28.5.2").refuses().is_empty());
        assert!(found(Loader::Ctr, "1.6").refuses().is_empty());
    }
}
