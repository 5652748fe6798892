//! Whether a registry is reached without a certificate that verifies: by the user's word (`--src-insecure[=true|false]`),
//! else by that of this host's engines, which is said.

use crate::cli::context::Run;
use crate::cli::output::terminal::lock;
use crate::progress::Watch;
use crate::transport::registry::Insecure;
use crate::transport::registry::mirrors::insecure;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;

/// Hosts of which it was said.
static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Of `repository` at `host`; `given` is what the user says.
pub fn of(host: &str, repository: &str, given: Option<bool>, run: &Run) -> Insecure {
    match given {
        Some(true) => return Insecure::ByUser,
        Some(false) => return Insecure::No,
        None => {}
    }
    let Some(file) = insecure::declaring_file(host, repository, Path::new("/")) else { return Insecure::No };
    if lock(&SAID).insert(host.to_owned()) {
        run.screen.say(&format!(
            "{host} is insecure by {}: its certificate is not checked, and plain HTTP is used where it has no TLS",
            file.display()
        ));
    }
    Insecure::ByFiles
}
