//! The blobs and names that another program sees at a destination.

use imgmv::Digest;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;

#[derive(Debug, Default, PartialEq, Eq, Clone)]
pub struct Contents {
    /// Blobs and manifests, under the digests that they are stored as.
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    /// The digest of each tag.
    pub tags: BTreeMap<String, Digest>,
}

impl Contents {
    /// The contents of the files of an OCI layout.
    pub fn of_layout(files: impl Iterator<Item = (String, Vec<u8>)>) -> Contents {
        let mut contents = Contents::default();
        for (name, bytes) in files {
            if let Some(hex) = name.strip_prefix("blobs/sha256/") {
                let digest: Digest = format!("sha256:{hex}").parse().expect("a digest");
                assert!(contents.blobs.insert(digest, bytes).is_none(), "{digest} is stored twice");
            } else if name == "index.json" {
                let index: Value = serde_json::from_slice(&bytes).expect("an index");
                contents.tags.extend(index["manifests"].as_array().unwrap().iter().filter_map(tagged));
            }
        }
        contents
    }

    /// The contents of a tar; an entry that is cut is not a blob.
    pub fn of_tar(bytes: &[u8]) -> Contents {
        let mut tar = tar::Archive::new(bytes);
        let mut files = Vec::new();
        for entry in tar.entries().unwrap() {
            let Ok(mut entry) = entry else { break };
            let (name, mut bytes) = (entry.path().unwrap().display().to_string(), Vec::new());
            match entry.read_to_end(&mut bytes) {
                Ok(read) if read as u64 == entry.header().size().unwrap() => files.push((name, bytes)),
                _ => break,
            }
        }
        Contents::of_layout(files.into_iter())
    }

    /// Every blob has the digest that it is stored as.
    pub fn verify(&self) {
        for (digest, bytes) in &self.blobs {
            assert_eq!(Digest::of(bytes), *digest, "wrong bytes are stored");
        }
    }
}

/// An entry of an index, as its tag and its digest.
fn tagged(entry: &Value) -> Option<(String, Digest)> {
    let annotations = &entry["annotations"];
    let name = [&annotations["io.containerd.image.name"], &annotations["org.opencontainers.image.ref.name"]];
    let name = name.iter().find_map(|name| name.as_str())?;
    let tag = name.rsplit(':').next().unwrap_or(name);
    Some((tag.to_owned(), entry["digest"].as_str()?.parse().unwrap()))
}
