//! Command lines as a user types them, in a folder of their own: the program and its peers by their plain names.
#![allow(dead_code)]

use super::program::command;
use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
};
use tempfile::TempDir;

/// In seconds. No command of the tests takes a tenth of it; one that hangs is a failure, not a stopped run.
const PATIENCE: &str = "120";

/// bash in a folder that goes with it. `$FIXTURES` leads to the fixtures.
pub struct Shell {
    folder: TempDir,
    environment: Vec<(String, String)>,
    patience: &'static str,
}

impl Shell {
    pub fn new() -> Shell {
        Shell::with(&[])
    }

    /// With what a user of an engine, or of a host, has in the environment.
    pub fn with(environment: &[(String, String)]) -> Shell {
        // A short path: some peers put sockets below it.
        let folder = tempfile::Builder::new().prefix("imgmv-s").tempdir_in("/tmp").unwrap();
        Shell { folder, environment: environment.to_vec(), patience: PATIENCE }
    }

    /// For what takes its time.
    pub fn patient(self) -> Shell {
        Shell { patience: "3600", ..self }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.at(name), text).unwrap();
    }

    /// What `script` prints. Panics, with what it said, where any part of it fails.
    pub fn run(&self, script: &str) -> String {
        let output = self.attempt(script);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}\n{}\n{said}", output.status);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The exit status and what was said, of a script that is to fail.
    pub fn fails(&self, script: &str) -> (i32, String) {
        let output = self.attempt(script);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let status = output.status.code().unwrap_or(-1);
        assert!(!output.status.success() && status != 124, "{script}\n{status}\n{said}");
        (status, said)
    }

    pub fn attempt(&self, script: &str) -> Output {
        let mut bash = command("timeout");
        bash.args([self.patience, "bash", "-euo", "pipefail", "-c", script]).current_dir(self.path());
        bash.env("HOME", self.path()).env_remove("DOCKER_CONFIG").env_remove("XDG_RUNTIME_DIR");
        bash.envs(self.environment.iter().map(|(key, value)| (key, value)));
        bash.env("FIXTURES", concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
        let path = self.environment.iter().rfind(|(key, _)| key == "PATH").map(|(_, path)| path.clone());
        let path = path.unwrap_or_else(|| std::env::var("PATH").unwrap_or_default());
        let program = Path::new(env!("CARGO_BIN_EXE_imgmv")).parent().unwrap();
        bash.env("PATH", format!("{}:{path}", program.display()));
        bash.stdin(Stdio::null()).output().unwrap()
    }
}

/// The digest of the one image to which the layout in `dir` gives a name, or of the only one, read without imgmv.
pub fn root(dir: &Path) -> String {
    let index = std::fs::read(dir.join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let all = index["manifests"].as_array().unwrap();
    let named = |entry: &&serde_json::Value| !entry["annotations"]["org.opencontainers.image.ref.name"].is_null();
    let roots: Vec<_> = all.iter().filter(|entry| all.len() == 1 || named(entry)).collect();
    assert_eq!(roots.len(), 1, "{index}");
    roots[0]["digest"].as_str().unwrap().to_owned()
}

/// The digest of that image's config.
pub fn config(dir: &Path) -> String {
    let manifest = root(dir).replacen(':', "/", 1);
    let manifest = std::fs::read(dir.join("blobs").join(manifest)).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    manifest["config"]["digest"].as_str().unwrap().to_owned()
}
