//! Whether a registry may be insecure: by the user's option (`--src-insecure[=true|false]`), else by the configuration of
//! this host's engines, which is reported.

use crate::cli::context::CliRun;
use crate::cli::output::terminal::lock;
use crate::progress::Watch;
use crate::transport::registry::Insecure;
use crate::transport::registry::mirrors::insecure;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;

/// The hosts that were reported.
static REPORTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Decides for `repository` at `host`; `given` is the value of the option.
pub fn decide(host: &str, repository: &str, given: Option<bool>, run: &CliRun) -> Insecure {
    match given {
        Some(true) => return Insecure::ByUser,
        Some(false) => return Insecure::No,
        None => {}
    }
    let Some(file) = insecure::declaring_file(host, repository, Path::new("/")) else { return Insecure::No };
    if lock(&REPORTED).insert(host.to_owned()) {
        run.screen.say(&format!(
            "{host} is insecure by {}: its certificate is not checked, and plain HTTP is used if it has no TLS",
            file.display()
        ));
    }
    Insecure::ByFiles
}
