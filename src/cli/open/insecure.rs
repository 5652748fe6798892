//! Whether a registry is reached without a certificate that verifies: by the user's word (`--src-insecure[=true|false]`),
//! else by that of this host's engines, which is said.

use crate::cli::Run;
use crate::cli::output::progress::lock;
use imgmv::progress::Watch;
use imgmv::transport::registry::Insecure;
use imgmv::transport::registry::mirrors::insecure;
use std::collections::BTreeSet;
use std::path::Path;
use std::str::FromStr;
use std::sync::Mutex;

/// The value of an option that may stand without one; an empty one, as variables have it, says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct YesOrNo(Option<bool>);

impl YesOrNo {
    pub fn answer(self) -> Option<bool> {
        self.0
    }
}

impl FromStr for YesOrNo {
    type Err = String;

    fn from_str(text: &str) -> Result<YesOrNo, String> {
        match text.to_ascii_lowercase().as_str() {
            "" => Ok(YesOrNo(None)),
            "true" | "yes" | "on" | "1" | "t" | "y" => Ok(YesOrNo(Some(true))),
            "false" | "no" | "off" | "0" | "f" | "n" => Ok(YesOrNo(Some(false))),
            _ => Err("expected true or false".to_owned()),
        }
    }
}

/// Hosts of which it was said.
static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Of `repository` at `host`; `given` is what the user says.
pub fn of(host: &str, repository: &str, given: Option<bool>, run: &Run) -> Insecure {
    match given {
        Some(true) => return Insecure::ByUser,
        Some(false) => return Insecure::No,
        None => {}
    }
    let Some(file) = insecure::by_files(host, repository, Path::new("/")) else { return Insecure::No };
    if lock(&SAID).insert(host.to_owned()) {
        run.screen.say(&format!(
            "{host} is insecure by {}: its certificate is not checked, and plain HTTP is used where it has no TLS",
            file.display()
        ));
    }
    Insecure::ByFiles
}
