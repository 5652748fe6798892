//! Which way to another host is taken: the user's own ssh client where there is one, ssh built in otherwise.

use super::builtin::Builtin;
use super::{Host, OpenSsh, SshTarget, split_words};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// What `--ssh` and `IMGMV_SSH` choose.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Ssh {
    /// `ssh` where it is on `PATH`, else built in.
    #[default]
    Auto,
    Builtin,
    /// A client and its options, as rsync's `-e` takes it: split into words, seen by no shell.
    Command(String),
}

impl std::str::FromStr for Ssh {
    type Err = Error;

    fn from_str(text: &str) -> Result<Ssh> {
        Ok(match text.trim() {
            "" | "auto" => Ssh::Auto,
            "builtin" => Ssh::Builtin,
            command => {
                split_words(command)?;
                Ssh::Command(command.to_owned())
            }
        })
    }
}

/// A way to run commands at `target`. The connection itself may be made only with the first command.
pub fn connect(target: &SshTarget, ssh: &Ssh, cancel: &Cancel) -> Result<Box<dyn Host>> {
    let words = match ssh {
        Ssh::Command(command) => split_words(command)?,
        Ssh::Auto if on_path("ssh") => vec!["ssh".to_owned()],
        Ssh::Auto | Ssh::Builtin => {
            let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
            return Ok(Box::new(Builtin::connect(target, &home, cancel)?));
        }
    };
    Ok(Box::new(OpenSsh::new(target, words, cancel)?))
}

fn on_path(program: &str) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let runs = |path: &Path| std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| runs(&dir.join(program))))
}
