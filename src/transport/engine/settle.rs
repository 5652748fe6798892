//! Giving images their names. An engine that names an image before it is whole (containerd's family does) is sent it
//! under a name of imgmv's own; only what was proved to be there gets the names it is to have.

use super::{
    found::{Found, ImageStore, Loader},
    proof::{self, Expected},
    scripts::{LOADING, Mark},
};
use crate::{
    error::{Error, Result},
    image::{Digest, Name},
    remote::{Host, ask, quote},
};

/// Names in one command: a command line is bounded.
const AT_ONCE: usize = 40;

/// The names under which images are loaded, each for the root it stands for.
#[derive(Debug, Default)]
pub(super) struct Temporary(Vec<(Digest, Name)>);

/// Whether an image in `found` may have a name without being whole.
pub(super) fn names_early(found: &Found) -> bool {
    matches!(found.loader, Loader::Ctr | Loader::Nerdctl | Loader::Docker(ImageStore::Containerd))
}

impl Temporary {
    /// The name for `root`, the same each time.
    pub fn name(&mut self, root: Digest, mark: &Mark) -> Result<Name> {
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

    /// Proves what was loaded, gives it the names of `lasting`, proves those, and takes the temporary names away,
    /// whatever happens.
    pub fn settle(&self, host: &dyn Host, found: &Found, lasting: &[Expected]) -> Result<()> {
        proof::verify(host, found, &self.expected(lasting)).inspect_err(|_| self.remove(host, found))?;
        let pairs: Vec<(&str, &str)> = lasting
            .iter()
            .filter_map(|one| {
                let (_, name) = self.0.iter().find(|(root, _)| one.root == Some(*root))?;
                Some((name.as_str(), one.name.as_str()))
            })
            .collect();
        let named = pairs.chunks(AT_ONCE).try_for_each(|some| retag(host, found, some));
        self.remove(host, found);
        named?;
        proof::verify(host, found, lasting)
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

/// One exchange for all of `pairs`, from name to name. The names are arguments, which no shell looks at.
fn retag(host: &dyn Host, found: &Found, pairs: &[(&str, &str)]) -> Result<()> {
    let tag = match found.loader {
        Loader::Ctr => found.command(&["images", "tag", "--force"]),
        _ => found.command(&["tag"]),
    };
    let tag = quote(&tag.iter().map(String::as_str).collect::<Vec<_>>())?;
    let script = format!("while test $# -gt 1; do {tag} \"$1\" \"$2\" </dev/null || exit 1; shift 2; done");
    let mut words = vec!["sh", "-c", &script, "imgmv"];
    words.extend(pairs.iter().flat_map(|(from, to)| [*from, *to]));
    let answer = ask(host, &words)?;
    match answer.exit.success() {
        true => Ok(()),
        false => Err(Error::far_side(format!(
            "{}: the image is there but could not be given its name: the command {}",
            host.name(),
            answer.exit.describe()
        ))),
    }
}
