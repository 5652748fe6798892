//! The credential files of docker, podman and imgmv (docker's config.json, containers-auth.json(5)).

use std::env;
use std::path::{Path, PathBuf};

fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Returns `XDG_CONFIG_HOME`, or `~/.config`.
pub(crate) fn config_home() -> Option<PathBuf> {
    variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")))
}

/// Returns docker's `config.json`, which `imgmv login` writes by default.
pub(crate) fn docker_config() -> Option<PathBuf> {
    let dir = variable("DOCKER_CONFIG").or_else(|| Some(variable("HOME")?.join(".docker")))?;
    Some(dir.join("config.json"))
}

/// Returns the files to search; the first with an entry for the registry wins. `authfile` (`--authfile`) or
/// `REGISTRY_AUTH_FILE` is the only file; otherwise docker's file, then podman's in `XDG_RUNTIME_DIR` and of the user.
pub(crate) fn search_paths(authfile: Option<&Path>) -> Vec<PathBuf> {
    if let Some(only) = authfile.map(Path::to_owned).or_else(|| variable("REGISTRY_AUTH_FILE")) {
        return vec![only];
    }
    let runtime = variable("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json"));
    let user = config_home().map(|dir| dir.join("containers/auth.json"));
    [docker_config(), runtime, user].into_iter().flatten().collect()
}

/// Returns the file that `login` and `logout` change.
pub(crate) fn login_path(authfile: Option<&Path>) -> Option<PathBuf> {
    authfile.map(Path::to_owned).or_else(|| variable("REGISTRY_AUTH_FILE")).or_else(docker_config)
}
