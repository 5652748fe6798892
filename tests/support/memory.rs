//! Images, a store, a stream and a sink in memory: what the engine's own tests copy between.
#![allow(dead_code)]

use imgmv::image::Image;
use imgmv::image::{Coding, Descriptor, Digest, Manifest, Name, Platform, media_type};
use imgmv::sink::{Begin, Finish, Order, Shape, Sink, SinkCapabilities};
use imgmv::source::{Blob, Claim, Origin, Relay, Root, Selector, Store, Stream, StreamSummary, select};
use imgmv::transfer::BlobWriter;
use imgmv::transfer::Verified;
use imgmv::{Error, Result};
use std::{
    collections::{BTreeMap, HashMap},
    io::{Cursor, Read},
    sync::Mutex,
};

/// A layer: a tar of one file with `size` bytes that depend on `seed`.
pub fn layer(seed: u8, size: usize) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let content: Vec<u8> = (0..size).map(|i| (i / 7) as u8 ^ seed).collect();
    let mut header = tar::Header::new_ustar();
    header.set_size(size as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, format!("file-{seed}"), &content[..]).unwrap();
    tar.into_inner().unwrap()
}

/// Everything content-addressed that images consist of, and the images.
#[derive(Default, Clone)]
pub struct Memory {
    pub blobs: HashMap<Digest, Vec<u8>>,
    pub roots: Vec<Root>,
    pub origin: Option<Origin>,
    pub lacks: bool,
}

impl Memory {
    pub fn keep(&mut self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let descriptor = Descriptor::of(media_type, &bytes);
        self.blobs.insert(descriptor.digest, bytes);
        descriptor
    }

    /// An image for `platform` of raw layers; its manifest's descriptor.
    pub fn image(&mut self, platform: &str, layers: &[Vec<u8>]) -> Descriptor {
        let platform: Platform = platform.parse().unwrap();
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
        let config = serde_json::json!({
            "os": platform.os, "architecture": platform.architecture, "variant": platform.variant,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = self.keep(media_type::OCI_CONFIG, config.to_string().into_bytes());
        let layers: Vec<Descriptor> =
            layers.iter().map(|layer| self.keep(media_type::OCI_LAYER, layer.clone())).collect();
        let manifest = Manifest::synthesise(&config, &layers);
        self.blobs.insert(manifest.digest(), manifest.bytes.clone());
        Descriptor { platform: Some(platform), ..manifest.descriptor }
    }

    /// An index over `children`.
    pub fn index(&mut self, children: &[Descriptor]) -> Descriptor {
        let text = serde_json::json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": children });
        self.keep(media_type::OCI_INDEX, text.to_string().into_bytes())
    }

    pub fn name(&mut self, name: &str, root: &Descriptor) {
        let root = Descriptor { platform: None, ..root.clone() };
        self.roots.push(Root::new(Some(Name::new(name).unwrap()), root));
    }
}

impl Store for Memory {
    fn roots(&self, picks: &[Selector]) -> Result<Vec<Root>> {
        select(&self.roots, picks)
    }
    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        self.blobs.get(&at.digest).cloned().ok_or_else(|| Error::not_found(format!("no manifest {}", at.digest)))
    }
    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        let bytes = self.blobs.get(&blob.digest).ok_or_else(|| Error::not_found(format!("no blob {}", blob.digest)))?;
        Ok(Box::new(&bytes[from as usize..]))
    }
    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        Ok(self.blobs.get(digest).map(|bytes| Descriptor::new("", *digest, bytes.len() as u64)))
    }
    fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }
    fn is_sparse(&self) -> bool {
        self.lacks
    }
}

/// The same as a stream: blobs in the order of their digests, documents apart.
pub struct Passing {
    pub memory: Memory,
    pub known: bool,
    left: Vec<(Digest, Vec<u8>)>,
}

impl Passing {
    pub fn new(memory: Memory, known: bool) -> Passing {
        let mut left: Vec<_> = memory.blobs.clone().into_iter().filter(|(_, bytes)| bytes[0] != b'{').collect();
        left.sort();
        Passing { memory, known, left }
    }
}

impl Stream for Passing {
    fn digests_known(&mut self) -> Result<bool> {
        Ok(self.known)
    }
    fn next_blob(&mut self) -> Result<Option<Blob<'_>>> {
        Ok(self.left.pop().map(|(digest, bytes)| Blob {
            claim: Claim { digest: self.known.then_some(digest), size: Some(bytes.len() as u64) },
            bytes: Box::new(Cursor::new(bytes)),
        }))
    }
    fn finish(self: Box<Self>) -> Result<StreamSummary> {
        let documents = self.memory.blobs.into_iter().filter(|(_, bytes)| bytes[0] == b'{').collect();
        Ok(StreamSummary { roots: self.memory.roots, documents, nothing: String::new() })
    }
    fn relay(self: Box<Self>, relay: Relay<'_>) -> Result<StreamSummary> {
        relay.out.write_all(b"relayed")?;
        (relay.moved)(7)?;
        self.finish()
    }
}

/// A sink that keeps everything, in the order in which it came.
pub struct Kept {
    pub takes: SinkCapabilities,
    pub state: Mutex<State>,
}

#[derive(Default)]
pub struct State {
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    pub manifests: Vec<Digest>,
    pub names: BTreeMap<String, Digest>,
    pub finished: usize,
    /// What `finish` says, once each.
    pub send_all: Vec<String>,
    pub log: Vec<String>,
    pub relayed: Vec<u8>,
}

impl Kept {
    pub fn new(takes: SinkCapabilities) -> Kept {
        Kept { takes, state: Mutex::default() }
    }

    pub fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

pub fn takes() -> SinkCapabilities {
    SinkCapabilities {
        shape: Shape::AsFound,
        order: Order::Lanes(4),
        large: None,
        compress: None,
        refuses: &[],
        unnamed_blobs: true,
        nameless: true,
    }
}

/// What a registry takes.
pub fn takes_compressed() -> SinkCapabilities {
    SinkCapabilities { shape: Shape::Whole, compress: Some(Coding::Gzip), ..takes() }
}

struct Writer<'a>(&'a Kept, Vec<u8>);

impl BlobWriter for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.1.extend_from_slice(bytes);
        Ok(())
    }
    fn commit(self: Box<Self>, blob: &Verified) -> Result<()> {
        let (digest, size) = blob.stored();
        assert_eq!((Digest::of(&self.1), self.1.len() as u64), (digest, size));
        let mut state = self.0.state();
        state.log.push("blob".to_owned());
        state.blobs.insert(digest, self.1);
        Ok(())
    }
}

impl Sink for Kept {
    fn takes(&self) -> SinkCapabilities {
        self.takes.clone()
    }
    fn published(&self, name: &Name) -> Result<Option<Digest>> {
        Ok(self.state().names.get(name.as_str()).copied())
    }
    fn missing(&self, _: &[Image], blobs: Vec<Descriptor>, _: &dyn Store) -> Result<Vec<Descriptor>> {
        let state = self.state();
        Ok(blobs.into_iter().filter(|blob| !state.blobs.contains_key(&blob.digest)).collect())
    }
    fn begin<'a>(&'a self, claim: &Claim, _: Option<&Origin>) -> Result<Begin<'a>> {
        let held = claim.digest.is_some_and(|digest| self.state().blobs.contains_key(&digest));
        Ok(if held { Begin::Held } else { Begin::Write(Box::new(Writer(self, Vec::new()))) })
    }
    fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        let mut state = self.state();
        for child in manifest.children() {
            assert!(self.takes.shape != Shape::Whole || state.manifests.contains(&child.digest), "child first");
        }
        state.log.push("manifest".to_owned());
        state.manifests.push(manifest.digest());
        let (digest, bytes) = (manifest.digest(), manifest.bytes.clone());
        state.blobs.insert(digest, bytes);
        Ok(())
    }
    fn publish(&self, name: Option<&Name>, root: &Manifest) -> Result<()> {
        let mut state = self.state();
        state.log.push("name".to_owned());
        state.names.insert(name.map_or_else(String::new, Name::to_string), root.digest());
        Ok(())
    }
    fn finish(&self) -> Result<Finish> {
        let mut state = self.state();
        state.finished += 1;
        Ok(state.send_all.pop().map_or(Finish::Done, Finish::SendAll))
    }
    fn relay(&self) -> Option<Result<Box<dyn std::io::Write + Send + '_>>> {
        struct Out<'a>(&'a Kept);
        impl std::io::Write for Out<'_> {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.state().relayed.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        Some(Ok(Box::new(Out(self))))
    }
}
