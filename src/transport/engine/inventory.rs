//! The layers that a host has, by the key that its engine uses. The wrong key creates images that look complete and are
//! broken, so no layer is skipped if the right key is not known.

use super::kind::{DetectedEngine, ImageStore, Loader};
use super::session::ScriptAnswer;
use super::verify;
use super::verify::ExpectedImage;
use crate::error::Result;
use crate::image::Image;
use crate::image::{Config, Descriptor, Digest, Manifest, media_type};
use crate::source::Store;
use crate::source::documents;
use std::collections::HashSet;

/// The layers and names of a copy that the host may already have.
#[derive(Debug, Default)]
pub(super) struct Query {
    /// Layers, each once.
    blobs: Vec<Digest>,
    stacks: Vec<Stack>,
    /// One for each canonical name.
    pub names: Vec<ExpectedImage>,
}

/// One image's layers, lowest first.
#[derive(Debug)]
struct Stack {
    layers: Vec<Digest>,
    /// The layers' diff IDs; `None` if config and manifest disagree, or for an artifact.
    diff_ids: Option<Vec<Digest>>,
}

/// The key by which an engine identifies a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QueryKey {
    /// The diff IDs of the layer and of all layers below it (image-spec, config.md "Layer ChainID").
    Chain,
    /// The blob's own digest.
    Blob,
}

fn key(loader: Loader) -> QueryKey {
    match loader {
        Loader::Docker(ImageStore::Graph) => QueryKey::Chain,
        _ => QueryKey::Blob,
    }
}

impl Query {
    /// Collects the layers of `images` that are among `blobs`. Configs are read from `source`.
    pub fn new(images: &[Image], blobs: &[Descriptor], names: Vec<ExpectedImage>, source: &dyn Store) -> Result<Query> {
        let mut query = Query { names, ..Query::default() };
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
            query.stacks.push(Stack { layers, diff_ids });
        }
        let mut layers: HashSet<Digest> = query.stacks.iter().flat_map(|stack| &stack.layers).copied().collect();
        // A blob that is also a config is always sent: it is small.
        for config in images.iter().flat_map(|image| &image.tree).filter_map(Manifest::config) {
            layers.remove(&config.digest);
        }
        query.blobs = blobs.iter().map(|blob| blob.digest).filter(|blob| layers.contains(blob)).collect();
        Ok(query)
    }

    /// The query for images of which only the diff IDs are known. Uncompressed layers have these digests.
    pub fn expected_diff_ids(stacks: &[Vec<Digest>]) -> Query {
        let mut seen = HashSet::new();
        let blobs = stacks.iter().flatten().copied().filter(|digest| seen.insert(*digest)).collect();
        let stack = |ids: &Vec<Digest>| Stack { layers: ids.clone(), diff_ids: Some(ids.clone()) };
        Query { blobs, stacks: stacks.iter().map(stack).collect(), names: Vec::new() }
    }

    /// The query as lines: one for each name, chain, blob or snapshot.
    pub fn to_lines(&self, found: &DetectedEngine) -> String {
        let mut text = String::new();
        for image in &self.names {
            if let Some(id) = verify::engine_id(found, image) {
                text += &format!("name {} {id}\n", image.name);
            }
        }
        if self.blobs.is_empty() {
            return text;
        }
        match key(found.loader) {
            QueryKey::Chain => {
                for ids in self.stacks.iter().filter_map(|stack| stack.diff_ids.as_ref()) {
                    let ids: Vec<String> = ids.iter().map(Digest::to_string).collect();
                    text += &format!("chain {}\n", ids.join(" "));
                }
            }
            QueryKey::Blob => {
                self.blobs.iter().for_each(|blob| text += &format!("blob {blob}\n"));
                let chain_ids = self.stacks.iter().filter_map(|stack| stack.diff_ids.as_deref()).flat_map(chain_ids);
                chain_ids.for_each(|id| text += &format!("snapshot {id}\n"));
            }
        }
        text
    }

    /// The layers that need not be sent: the host has them at every position in all images.
    pub fn skippable(&self, found: &DetectedEngine, answer: &ScriptAnswer) -> HashSet<Digest> {
        match key(found.loader) {
            QueryKey::Blob => {
                let present: HashSet<Digest> = answer.present.iter().copied().collect();
                self.blobs.iter().copied().filter(|blob| present.contains(blob)).collect()
            }
            QueryKey::Chain => {
                let mut prefixes = answer.prefixes.iter();
                let mut missing = HashSet::new();
                for stack in &self.stacks {
                    let prefix = match stack.diff_ids {
                        Some(_) => prefixes.next().copied().unwrap_or(0),
                        None => 0,
                    };
                    missing.extend(stack.layers.iter().skip(prefix).copied());
                }
                self.blobs.iter().copied().filter(|blob| !missing.contains(blob)).collect()
            }
        }
    }

    /// Counts the layers of which the host has only the snapshot, not this blob.
    pub fn count_snapshot_only(&self, answer: &ScriptAnswer, present: &HashSet<Digest>) -> usize {
        let snapshots: HashSet<&Digest> = answer.snapshots.iter().collect();
        let mut only = HashSet::new();
        for stack in &self.stacks {
            let Some(ids) = &stack.diff_ids else { continue };
            let layers = stack.layers.iter().zip(chain_ids(ids));
            only.extend(
                layers.filter(|(blob, id)| snapshots.contains(id) && !present.contains(*blob)).map(|(blob, _)| *blob),
            );
        }
        only.retain(|blob| self.blobs.contains(blob));
        only.len()
    }

    /// The names that already point at the right and complete image on the host.
    pub fn current(&self, found: &DetectedEngine, answer: &ScriptAnswer) -> Vec<&ExpectedImage> {
        self.names.iter().filter(|image| verify::is_present(found, image, answer)).collect()
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

    fn query(stacks: &[(&str, Option<&str>)]) -> Query {
        let stacks: Vec<Stack> =
            stacks.iter().map(|(layers, ids)| Stack { layers: digests(layers), diff_ids: ids.map(digests) }).collect();
        let mut blobs: Vec<Digest> = stacks.iter().flat_map(|stack| stack.layers.clone()).collect();
        blobs.sort();
        blobs.dedup();
        Query { blobs, stacks, names: Vec::new() }
    }

    fn found(loader: Loader) -> DetectedEngine {
        let platform = Platform::new("linux", "amd64", None);
        DetectedEngine { loader, argv: vec!["e".into()], namespace: None, platform, version: None }
    }

    fn held(query: &Query, loader: Loader, answer: ScriptAnswer) -> Vec<Digest> {
        let mut held: Vec<Digest> = query.skippable(&found(loader), &answer).into_iter().collect();
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
        let prefixes = |prefixes: &[usize]| ScriptAnswer { prefixes: prefixes.to_vec(), ..ScriptAnswer::default() };
        let one = query(&[("abc", Some("ABC"))]);
        assert_eq!(held(&one, graph, prefixes(&[2])), sorted("ab"));
        assert_eq!(held(&one, graph, prefixes(&[])), []);
        // b is in both images, but the host has it in one only; c is twice in one image.
        let two = query(&[("abc", Some("ABC")), ("xb", Some("XB")), ("cdc", Some("CDC"))]);
        assert_eq!(held(&two, graph, prefixes(&[2, 1, 2])), sorted("adx"));
        // Config and manifest disagree: the answer's first line is the second image's.
        let odd = query(&[("ab", None), ("xy", Some("XY"))]);
        assert_eq!(held(&odd, graph, prefixes(&[2])), sorted("xy"));
        assert_eq!(one.to_lines(&found(graph)).lines().count(), 1);
    }

    #[test]
    fn the_others_hold_what_they_name_and_nothing_else() {
        let one = query(&[("abc", Some("ABC"))]);
        let answer = || ScriptAnswer { present: digests("bzA"), prefixes: vec![3], ..ScriptAnswer::default() };
        for loader in [Loader::Ctr, Loader::Nerdctl, Loader::Podman, Loader::Docker(ImageStore::Containerd)] {
            assert_eq!(held(&one, loader, answer()), sorted("b"), "{loader:?}");
        }
    }

    #[test]
    fn what_is_unpacked_but_not_in_this_packing_is_counted() {
        let one = query(&[("abc", Some("ABC"))]);
        let answer =
            ScriptAnswer { snapshots: chain_ids(&digests("AB")), present: digests("a"), ..ScriptAnswer::default() };
        assert_eq!(one.count_snapshot_only(&answer, &digests("a").into_iter().collect()), 1);
    }

    #[test]
    fn chain_ids_are_those_of_the_specification() {
        let ids = digests("ab");
        let both = format!("{} {}", ids[0], ids[1]);
        assert_eq!(chain_ids(&ids), [ids[0], Digest::of(both.as_bytes())]);
    }
}
