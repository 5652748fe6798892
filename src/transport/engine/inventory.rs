//! Which layers a host has, by the one key that its engine goes by. The wrong key makes images that look well and are
//! broken, so where the right one cannot be had, nothing is left out.

use super::kind::{DetectedEngine, ImageStore, Loader};
use super::session::Answer;
use super::verify;
use super::verify::Expected;
use crate::error::Result;
use crate::image::Image;
use crate::image::{Config, Descriptor, Digest, Manifest, media_type};
use crate::source::Store;
use crate::source::documents;
use std::collections::HashSet;

/// What a copy is going to send, as far as it may be there already.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Layers, each once.
    blobs: Vec<Digest>,
    stacks: Vec<Stack>,
    /// One for each name, in full.
    pub names: Vec<Expected>,
}

/// One image's layers, lowest first.
#[derive(Debug)]
struct Stack {
    layers: Vec<Digest>,
    /// The same unpacked; none where config and manifest do not agree, or it is no image.
    diff_ids: Option<Vec<Digest>>,
}

/// What an engine goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    /// The layer and everything below it, unpacked (image-spec, config.md "Layer ChainID").
    Chain,
    /// The blob's own digest.
    Blob,
}

fn key(loader: Loader) -> Key {
    match loader {
        Loader::Docker(ImageStore::Graph) => Key::Chain,
        _ => Key::Blob,
    }
}

impl Wanted {
    /// Of `images`, the layers among `blobs`. Configs are read from `source`.
    pub fn new(images: &[Image], blobs: &[Descriptor], names: Vec<Expected>, source: &dyn Store) -> Result<Wanted> {
        let mut wanted = Wanted { names, ..Wanted::default() };
        let mut seen = HashSet::new();
        for manifest in images.iter().flat_map(|image| &image.tree) {
            if manifest.layers().is_empty() || !seen.insert(manifest.digest()) {
                continue;
            }
            let layers: Vec<Digest> = manifest.layers().iter().map(|layer| layer.digest).collect();
            let diff_ids = match manifest.config().filter(|config| is_config(config)) {
                Some(config) => Some(documents::document(source, config)?),
                None => None,
            };
            let diff_ids = diff_ids.and_then(|bytes| Config::parse(&bytes).ok());
            let diff_ids = diff_ids.map(|config| config.diff_ids().to_vec()).filter(|ids| ids.len() == layers.len());
            wanted.stacks.push(Stack { layers, diff_ids });
        }
        let mut layers: HashSet<Digest> = wanted.stacks.iter().flat_map(|stack| &stack.layers).copied().collect();
        // A blob that is also a config always goes: it is small.
        for config in images.iter().flat_map(|image| &image.tree).filter_map(Manifest::config) {
            layers.remove(&config.digest);
        }
        wanted.blobs = blobs.iter().map(|blob| blob.digest).filter(|blob| layers.contains(blob)).collect();
        Ok(wanted)
    }

    /// Of images of which only the diff IDs are known. Their layers may pass raw, under these digests.
    pub fn expected_diff_ids(stacks: &[Vec<Digest>]) -> Wanted {
        let mut seen = HashSet::new();
        let blobs = stacks.iter().flatten().copied().filter(|digest| seen.insert(*digest)).collect();
        let stack = |ids: &Vec<Digest>| Stack { layers: ids.clone(), diff_ids: Some(ids.clone()) };
        Wanted { blobs, stacks: stacks.iter().map(stack).collect(), names: Vec::new() }
    }

    /// The question, a line for each thing.
    pub fn question(&self, found: &DetectedEngine) -> String {
        let mut text = String::new();
        for one in &self.names {
            if let Some(id) = verify::id(found, one) {
                text += &format!("name {} {id}\n", one.name);
            }
        }
        if self.blobs.is_empty() {
            return text;
        }
        match key(found.loader) {
            Key::Chain => {
                for ids in self.stacks.iter().filter_map(|stack| stack.diff_ids.as_ref()) {
                    let ids: Vec<String> = ids.iter().map(Digest::to_string).collect();
                    text += &format!("chain {}\n", ids.join(" "));
                }
            }
            Key::Blob => {
                self.blobs.iter().for_each(|blob| text += &format!("blob {blob}\n"));
                let snapshots = self.stacks.iter().filter_map(|stack| stack.diff_ids.as_deref()).flat_map(chain_ids);
                snapshots.for_each(|id| text += &format!("snapshot {id}\n"));
            }
        }
        text
    }

    /// The layers that need not be sent: held wherever they lie in any of the images.
    pub fn held(&self, found: &DetectedEngine, answer: &Answer) -> HashSet<Digest> {
        match key(found.loader) {
            Key::Blob => {
                let held: HashSet<Digest> = answer.held.iter().copied().collect();
                self.blobs.iter().copied().filter(|blob| held.contains(blob)).collect()
            }
            Key::Chain => {
                let mut prefixes = answer.prefixes.iter();
                let mut lacking = HashSet::new();
                for stack in &self.stacks {
                    let prefix = match stack.diff_ids {
                        Some(_) => prefixes.next().copied().unwrap_or(0),
                        None => 0,
                    };
                    lacking.extend(stack.layers.iter().skip(prefix).copied());
                }
                self.blobs.iter().copied().filter(|blob| !lacking.contains(blob)).collect()
            }
        }
    }

    /// How many layers are unpacked there without being there in the packing that is sent.
    pub fn only_unpacked(&self, answer: &Answer, held: &HashSet<Digest>) -> usize {
        let unpacked: HashSet<&Digest> = answer.unpacked.iter().collect();
        let mut only = HashSet::new();
        for stack in &self.stacks {
            let Some(ids) = &stack.diff_ids else { continue };
            let layers = stack.layers.iter().zip(chain_ids(ids));
            only.extend(
                layers.filter(|(blob, id)| unpacked.contains(id) && !held.contains(*blob)).map(|(blob, _)| *blob),
            );
        }
        only.retain(|blob| self.blobs.contains(blob));
        only.len()
    }

    /// The names that point at the right image there already, whole.
    pub fn current(&self, found: &DetectedEngine, answer: &Answer) -> Vec<&Expected> {
        self.names.iter().filter(|one| verify::is_there(found, one, answer)).collect()
    }
}

pub(super) fn is_config(config: &Descriptor) -> bool {
    [media_type::OCI_CONFIG, media_type::DOCKER_CONFIG].contains(&&*config.media_type)
}

/// The chain ID of each layer (image-spec, config.md "Layer ChainID").
fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for id in diff_ids {
        chain.push(match chain.last() {
            None => *id,
            Some(below) => Digest::of(format!("{below} {id}").as_bytes()),
        });
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Platform;

    fn digests(names: &str) -> Vec<Digest> {
        names.chars().map(|c| Digest::of(c.to_string().as_bytes())).collect()
    }

    fn wanted(stacks: &[(&str, Option<&str>)]) -> Wanted {
        let stacks: Vec<Stack> =
            stacks.iter().map(|(layers, ids)| Stack { layers: digests(layers), diff_ids: ids.map(digests) }).collect();
        let mut blobs: Vec<Digest> = stacks.iter().flat_map(|stack| stack.layers.clone()).collect();
        blobs.sort();
        blobs.dedup();
        Wanted { blobs, stacks, names: Vec::new() }
    }

    fn found(loader: Loader) -> DetectedEngine {
        let platform = Platform::new("linux", "amd64", None);
        DetectedEngine { loader, argv: vec!["e".into()], namespace: None, platform, version: None }
    }

    fn held(wanted: &Wanted, loader: Loader, answer: Answer) -> Vec<Digest> {
        let mut held: Vec<Digest> = wanted.held(&found(loader), &answer).into_iter().collect();
        held.sort();
        held
    }

    fn sorted(names: &str) -> Vec<Digest> {
        let mut digests = digests(names);
        digests.sort();
        digests
    }

    #[test]
    fn docker_holds_a_layer_only_on_top_of_the_same_layers() {
        let graph = Loader::Docker(ImageStore::Graph);
        let prefixes = |prefixes: &[usize]| Answer { prefixes: prefixes.to_vec(), ..Answer::default() };
        let one = wanted(&[("abc", Some("ABC"))]);
        assert_eq!(held(&one, graph, prefixes(&[2])), sorted("ab"));
        assert_eq!(held(&one, graph, prefixes(&[])), []);
        // b lies in both images, and is held in one of them only; c lies twice in one.
        let two = wanted(&[("abc", Some("ABC")), ("xb", Some("XB")), ("cdc", Some("CDC"))]);
        assert_eq!(held(&two, graph, prefixes(&[2, 1, 2])), sorted("adx"));
        // Config and manifest do not agree: the answer's first line is the second image's.
        let odd = wanted(&[("ab", None), ("xy", Some("XY"))]);
        assert_eq!(held(&odd, graph, prefixes(&[2])), sorted("xy"));
        assert_eq!(one.question(&found(graph)).lines().count(), 1);
    }

    #[test]
    fn the_others_hold_what_they_name_and_nothing_else() {
        let one = wanted(&[("abc", Some("ABC"))]);
        let answer = || Answer { held: digests("bzA"), prefixes: vec![3], ..Answer::default() };
        for loader in [Loader::Ctr, Loader::Nerdctl, Loader::Podman, Loader::Docker(ImageStore::Containerd)] {
            assert_eq!(held(&one, loader, answer()), sorted("b"), "{loader:?}");
        }
    }

    #[test]
    fn what_is_unpacked_but_not_in_this_packing_is_counted() {
        let one = wanted(&[("abc", Some("ABC"))]);
        let answer = Answer { unpacked: chain_ids(&digests("AB")), held: digests("a"), ..Answer::default() };
        assert_eq!(one.only_unpacked(&answer, &digests("a").into_iter().collect()), 1);
    }

    #[test]
    fn chain_ids_are_those_of_the_specification() {
        let ids = digests("ab");
        let both = format!("{} {}", ids[0], ids[1]);
        assert_eq!(chain_ids(&ids), [ids[0], Digest::of(both.as_bytes())]);
    }
}
