//! Renaming after the load. An engine that names an image before it is complete (containerd's family) loads it under a
//! temporary name; only verified images get their final names.

use super::kind::{DetectedEngine, ImageStore, Loader};
use super::scripts::{LOADING, RunId};
use super::verify;
use super::verify::ExpectedImage;
use crate::error::{Error, Result};
use crate::image::{Digest, Name};
use crate::remote::{Host, capture, quote};

/// Names per command, since the length of a command line is limited.
const NAMES_PER_COMMAND: usize = 40;

/// The temporary names under which images are loaded, each with its root.
#[derive(Debug, Default)]
pub(super) struct TemporaryNames(Vec<(Digest, Name)>);

/// Whether images are loaded into `found` under temporary names. docker's classic store and podman name only complete
/// images, and a custom command is not renamed. podman loads an image without its skipped layers only with one name.
pub(super) fn uses_temporary_names(found: &DetectedEngine, one_name: bool) -> bool {
    match found.loader {
        Loader::Docker(ImageStore::Graph) | Loader::Custom => false,
        Loader::Podman => !one_name,
        Loader::Docker(ImageStore::Containerd) | Loader::Ctr | Loader::Nerdctl => true,
    }
}

impl TemporaryNames {
    /// Returns the temporary name for `root`, the same at each call.
    pub fn name(&mut self, root: Digest, run_id: &RunId) -> Result<Name> {
        if let Some((_, name)) = self.0.iter().find(|(other, _)| *other == root) {
            return Ok(name.clone());
        }
        let name = Name::new(format!("{LOADING}:{}-{}-{}", run_id.now, run_id.id, self.0.len()))?;
        self.0.push((root, name.clone()));
        Ok(name)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The expected images under their temporary names.
    fn expected(&self, images: &[ExpectedImage]) -> Vec<ExpectedImage> {
        let expected = |(root, name): &(Digest, Name)| {
            let image = images.iter().find(|image| image.root == Some(*root))?;
            Some(ExpectedImage { name: name.clone(), ..image.clone() })
        };
        self.0.iter().filter_map(expected).collect()
    }

    /// Verifies the loaded images, gives them their final names, and verifies these. The temporary names are always
    /// removed. `tagger` tags, `inspector` reports the images.
    pub fn verify_and_rename(
        &self,
        host: &dyn Host,
        tagger: &DetectedEngine,
        inspector: &DetectedEngine,
        images: &[ExpectedImage],
    ) -> Result<()> {
        verify::verify(host, inspector, &self.expected(images)).inspect_err(|_| self.remove(host, tagger))?;
        let mut pairs: Vec<(&Name, &Name)> = Vec::new();
        for image in images {
            let loaded = self.0.iter().find(|(root, _)| image.root == Some(*root));
            pairs.extend(loaded.map(|(_, name)| (name, &image.name)));
        }
        for (at, batch) in pairs.chunks(NAMES_PER_COMMAND).enumerate() {
            let last = (at + 1) * NAMES_PER_COMMAND >= pairs.len();
            let drop: &[(Digest, Name)] = if last { &self.0 } else { &[] };
            tag(host, tagger, batch, drop).inspect_err(|_| self.remove(host, tagger))?;
        }
        verify::verify(host, inspector, images)
    }

    /// Removes the temporary names. The next run sweeps those that cannot be removed now.
    pub fn remove(&self, host: &dyn Host, found: &DetectedEngine) {
        let mut argv = match found.loader {
            Loader::Ctr => found.command(&["images", "rm"]),
            _ => found.command(&["rmi"]),
        };
        argv.extend(self.0.iter().map(|(_, name)| name.to_string()));
        if !self.is_empty() {
            let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
            let _ = capture(host, &argv);
        }
    }
}

/// Tags the first name of each of `pairs` as the second, then removes the names of `drop`, in one exchange. The names
/// are arguments, which no shell interprets.
fn tag(host: &dyn Host, found: &DetectedEngine, pairs: &[(&Name, &Name)], drop: &[(Digest, Name)]) -> Result<()> {
    let (tag, remove) = match found.loader {
        Loader::Ctr => (found.command(&["images", "tag", "--force"]), found.command(&["images", "rm"])),
        _ => (found.command(&["tag"]), found.command(&["rmi"])),
    };
    let line = |argv: Vec<String>| quote(&argv.iter().map(String::as_str).collect::<Vec<_>>());
    let (tag, remove) = (line(tag)?, line(remove)?);
    let script = format!(
        "while test \"$1\" = tag; do {tag} \"$2\" \"$3\" </dev/null || exit 1; shift 3; done; \
         test $# -eq 0 || {remove} \"$@\" >/dev/null 2>&1 </dev/null; exit 0"
    );
    let mut argv = vec!["sh", "-c", &script, "imgmv"];
    argv.extend(pairs.iter().flat_map(|(from, to)| ["tag", from.as_str(), to.as_str()]));
    argv.extend(drop.iter().map(|(_, name)| name.as_str()));
    let answer = capture(host, &argv)?;
    match answer.exit.success() {
        true => Ok(()),
        false => Err(Error::remote_host(format!(
            "{}: the image was loaded but could not be tagged: the command {}",
            host.name(),
            answer.exit.describe()
        ))),
    }
}
