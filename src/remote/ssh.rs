//! Choice of the ssh client: the user's own if there is one, otherwise the built-in one.

use super::builtin::Builtin;
use super::{Host, OpenSsh, SshTarget, split_words};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// The value of `--ssh` or `IMGMV_SSH`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Ssh {
    /// `ssh` if it is on `PATH`, otherwise the built-in client.
    #[default]
    Auto,
    Builtin,
    /// A client and its options, as for rsync's `-e`: split into words without a shell.
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

/// Returns a host that runs commands at `target`. It may connect only with the first command.
pub fn connect(target: &SshTarget, ssh: &Ssh, cancel: &Cancel) -> Result<Box<dyn Host>> {
    let command = match ssh {
        Ssh::Command(command) => split_words(command)?,
        Ssh::Auto if on_path("ssh") => vec!["ssh".to_owned()],
        Ssh::Auto | Ssh::Builtin => {
            let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
            return Ok(Box::new(Builtin::connect(target, &home, cancel)?));
        }
    };
    Ok(Box::new(OpenSsh::new(target, command, cancel)?))
}

fn on_path(program: &str) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let runs = |path: &Path| std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| runs(&dir.join(program))))
}
