//! `layerdb`: the record of each layer. Every content is checked by its pattern before it enters a path.

use super::data_root::with_root_hint;
use super::driver::Driver;
use crate::error::{Error, Result};
use crate::image::Digest;
use crate::source::rebuilt::missing_part;
use crate::tarsplit::{Recorded, StoredLayer};

/// The maximum size of a file of a record: a digest, an ID or a number.
const MAX_FIELD_BYTES: u64 = 200;

/// A layer of an image: its diff ID, and its chain ID, which also identifies all layers below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layer {
    pub diff_id: Digest,
    pub chain_id: Digest,
    pub parent: Option<Digest>,
}

/// The layers of the diff IDs `diff_ids`, lowest first (image-spec, config.md, "Layer ChainID").
pub(super) fn chain(diff_ids: &[Digest]) -> Vec<Layer> {
    let mut parent: Option<Digest> = None;
    let mut layers = Vec::with_capacity(diff_ids.len());
    for &diff_id in diff_ids {
        let chain_id = match parent {
            None => diff_id,
            Some(parent) => Digest::of(format!("{parent} {diff_id}").as_bytes()),
        };
        layers.push(Layer { diff_id, chain_id, parent });
        parent = Some(chain_id);
    }
    layers
}

/// Opens the record, the tar-split and the files of `layer`.
///
/// # Errors
/// - `NotFound`: one of them does not exist.
/// - `Invalid`: the record is damaged.
pub(super) fn open(driver: &Driver, layer: &Layer) -> Result<StoredLayer> {
    let record = Record { driver, layer };
    let cache_id = record.cache_id()?;
    record.check_links()?;
    let size = record.field("size")?;
    let size = size.parse().map_err(|_| record.wrong("size", &size, "a number of bytes"))?;
    let files_path = driver.files_path(&cache_id);
    let missing = |path: &str| missing_part(&layer.diff_id, driver.root(), path);
    let files = driver.files(&cache_id)?.ok_or_else(|| missing(&files_path))?;
    let tar_split = driver.path(&record.path("tar-split.json.gz"));
    let opened = driver.root().file(&tar_split).map_err(with_root_hint)?;
    Ok(StoredLayer {
        label: format!("layer {} in {}", layer.diff_id, driver.root().display(files_path)),
        recorded: Recorded::Contents(size),
        tar_split: opened.ok_or_else(|| missing(&tar_split))?,
        tar_split_path: driver.root().display(&tar_split),
        files,
    })
}

/// The files of `layerdb/sha256/CHAIN`.
struct Record<'a> {
    driver: &'a Driver,
    layer: &'a Layer,
}

impl Record<'_> {
    fn path(&self, name: &str) -> String {
        let chain_id = self.layer.chain_id;
        format!("layerdb/{}/{}/{name}", chain_id.algorithm().name(), chain_id.hex())
    }

    fn read(&self, name: &str) -> Result<Option<String>> {
        let bytes = self.driver.read(&self.path(name), MAX_FIELD_BYTES)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()))
    }

    fn field(&self, name: &str) -> Result<String> {
        let path = || self.driver.path(&self.path(name));
        self.read(name)?.ok_or_else(|| missing_part(&self.layer.diff_id, self.driver.root(), &path()))
    }

    /// The directory of the layer's files: 64 hexadecimal characters, or BuildKit's 25 letters and digits.
    fn cache_id(&self) -> Result<String> {
        let text = self.field("cache-id")?;
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = text.len() == 64 && text.bytes().all(is_hex) || text.len() == 25 && text.bytes().all(is_word);
        if fits {
            Ok(text)
        } else {
            Err(self.wrong("cache-id", &text, "64 hexadecimal characters or 25 letters and digits"))
        }
    }

    /// Checks that the record is that of this layer above this parent, so that no chain forms a cycle.
    fn check_links(&self) -> Result<()> {
        let diff = self.field("diff")?;
        if diff.parse::<Digest>().ok() != Some(self.layer.diff_id) {
            return Err(self.wrong("diff", &diff, &self.layer.diff_id.to_string()));
        }
        let parent = self.read("parent")?;
        if parent.as_deref().map(|text| text.parse::<Digest>().ok()) != self.layer.parent.map(Some) {
            let expected = self.layer.parent.map_or_else(|| "none".to_owned(), |parent| parent.to_string());
            return Err(self.wrong("parent", &parent.unwrap_or_else(|| "none".to_owned()), &expected));
        }
        Ok(())
    }

    fn wrong(&self, name: &str, found: &str, expected: &str) -> Error {
        let path = self.driver.display(&self.path(name));
        Error::invalid(format!("{path} is damaged: expected {expected}, found {found:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_are_those_of_the_image_spec() {
        let [a, b] = [Digest::of(b"a"), Digest::of(b"b")];
        let layers = chain(&[a, b, b]);
        assert_eq!((layers[0].chain_id, layers[0].parent), (a, None));
        assert_eq!(layers[1].chain_id, Digest::of(format!("{a} {b}").as_bytes()));
        assert_eq!(layers[2].parent, Some(layers[1].chain_id));
        assert_ne!(layers[2].chain_id, layers[1].chain_id);
    }
}
