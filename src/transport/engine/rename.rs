//! Giving images their names. An engine that names an image before it is whole (containerd's family does) is sent it
//! under a name of imgmv's own; only what was proved to be there gets the names it is to have.

use super::kind::{Found, ImageStore, Loader};
use super::scripts::{LOADING, RunId};
use super::verify;
use super::verify::Expected;
use crate::error::{Error, Result};
use crate::image::{Digest, Name};
use crate::remote::{Host, ask, quote};

/// Names in one command: a command line is bounded.
const AT_ONCE: usize = 40;

/// The names under which images are loaded, each for the root it stands for.
#[derive(Debug, Default)]
pub(super) struct Temporary(Vec<(Digest, Name)>);

/// Whether images are loaded into `found` under temporary names. docker's own store and podman name an image once it is
/// whole, and a command of the user's own is left to itself; but podman takes an image without its held layers only with
/// a single name.
pub(super) fn renames(found: &Found, one_name: bool) -> bool {
    match found.loader {
        Loader::Docker(ImageStore::Graph) | Loader::Custom => false,
        Loader::Podman => !one_name,
        Loader::Docker(ImageStore::Containerd) | Loader::Ctr | Loader::Nerdctl => true,
    }
}

impl Temporary {
    /// The name for `root`, the same each time.
    pub fn name(&mut self, root: Digest, mark: &RunId) -> Result<Name> {
        if let Some((_, name)) = self.0.iter().find(|(other, _)| *other == root) {
            return Ok(name.clone());
        }
        let name = Name::new(format!("{LOADING}:{}-{}-{}", mark.now, mark.id, self.0.len()))?;
        self.0.push((root, name.clone()));
        Ok(name)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the temporary names are to be, of what the lasting ones are to be.
    fn expected(&self, lasting: &[Expected]) -> Vec<Expected> {
        let of = |(root, name): &(Digest, Name)| {
            let one = lasting.iter().find(|one| one.root == Some(*root))?;
            Some(Expected { name: name.clone(), ..one.clone() })
        };
        self.0.iter().filter_map(of).collect()
    }

    /// Proves what was loaded, gives it the names of `lasting`, takes the temporary ones away, whatever happens, and
    /// proves the lasting ones. `namer` names, `clerk` knows what is there.
    pub fn settle(&self, host: &dyn Host, namer: &Found, clerk: &Found, lasting: &[Expected]) -> Result<()> {
        verify::verify(host, clerk, &self.expected(lasting)).inspect_err(|_| self.remove(host, namer))?;
        let mut pairs: Vec<(&Name, &Name)> = Vec::new();
        for one in lasting {
            let loaded = self.0.iter().find(|(root, _)| one.root == Some(*root));
            pairs.extend(loaded.map(|(_, name)| (name, &one.name)));
        }
        for (at, some) in pairs.chunks(AT_ONCE).enumerate() {
            let last = (at + 1) * AT_ONCE >= pairs.len();
            let drop: &[(Digest, Name)] = if last { &self.0 } else { &[] };
            rename(host, namer, some, drop).inspect_err(|_| self.remove(host, namer))?;
        }
        verify::verify(host, clerk, lasting)
    }

    /// Takes the temporary names away; what cannot be reached now the next run sweeps.
    pub fn remove(&self, host: &dyn Host, found: &Found) {
        let mut words = match found.loader {
            Loader::Ctr => found.command(&["images", "rm"]),
            _ => found.command(&["rmi"]),
        };
        words.extend(self.0.iter().map(|(_, name)| name.to_string()));
        if !self.is_empty() {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let _ = ask(host, &words);
        }
    }
}

/// Gives the second name of each of `pairs` to what the first one is, then takes the names of `drop` away: one exchange.
/// The names are arguments, which no shell looks at.
fn rename(host: &dyn Host, found: &Found, pairs: &[(&Name, &Name)], drop: &[(Digest, Name)]) -> Result<()> {
    let (tag, remove) = match found.loader {
        Loader::Ctr => (found.command(&["images", "tag", "--force"]), found.command(&["images", "rm"])),
        _ => (found.command(&["tag"]), found.command(&["rmi"])),
    };
    let line = |words: Vec<String>| quote(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let (tag, remove) = (line(tag)?, line(remove)?);
    let script = format!(
        "while test \"$1\" = tag; do {tag} \"$2\" \"$3\" </dev/null || exit 1; shift 3; done; \
         test $# -eq 0 || {remove} \"$@\" >/dev/null 2>&1 </dev/null; exit 0"
    );
    let mut words = vec!["sh", "-c", &script, "imgmv"];
    words.extend(pairs.iter().flat_map(|(from, to)| ["tag", from.as_str(), to.as_str()]));
    words.extend(drop.iter().map(|(_, name)| name.as_str()));
    let answer = ask(host, &words)?;
    match answer.exit.success() {
        true => Ok(()),
        false => Err(Error::remote_host(format!(
            "{}: the image is there but could not be given its name: the command {}",
            host.name(),
            answer.exit.describe()
        ))),
    }
}
