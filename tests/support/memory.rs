//! Images, a store, a stream and a sink in memory: what the engine's own tests copy between.
#![allow(dead_code)]

use imgmv::internals::image::media_type;
use imgmv::internals::source::select;
use imgmv::{
    ArchiveStream, Begin, BlobWriter, Claim, Coding, Descriptor, Digest, Error, Finish, Manifest, Missing, Name, Order,
    Origin, Platform, Profile, Result, Root, Selector, Shape, Sink, SinkCapabilities, Source, Store, Upcoming,
    Verified,
};
use std::{
    collections::{BTreeMap, HashMap},
    io::{Cursor, Read},
    sync::Mutex,
};

/// A layer: a tar of one file with `size` bytes that depend on `seed`.
pub fn layer(seed: u8, size: usize) -> Vec<u8> {
    let content = (0..size).map(|i| (i / 7) as u8 ^ seed).collect();
    tar(&[(format!("file-{seed}"), content)])
}

/// A tar of `files`.
pub fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &bytes[..]).unwrap();
    }
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
    fn roots(&self, selectors: &[Selector]) -> Result<Vec<Root>> {
        select(&self.roots, selectors)
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
    fn profile(&self) -> Profile {
        Profile {
            is_remote: self.origin.is_some(),
            origin: self.origin.clone(),
            is_sparse: self.lacks,
            ..Profile::default()
        }
    }
}

impl Memory {
    /// The same as an OCI layout in a tar that is read once: layers in the order of their digests, `index.json` last.
    pub fn streamed(&self) -> Source {
        let mut blobs: Vec<_> = self.blobs.iter().collect();
        blobs.sort_by_key(|(digest, bytes)| (bytes[0] == b'{', **digest));
        let mut files = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
        files
            .extend(blobs.into_iter().map(|(digest, bytes)| (format!("blobs/sha256/{}", digest.hex()), bytes.clone())));
        let entry = |root: &Root| {
            let annotations = root.name.as_ref().map(|name| {
                serde_json::json!({ "io.containerd.image.name": name.as_str(), "org.opencontainers.image.ref.name": name.tag() })
            });
            let mut entry = serde_json::to_value(&root.descriptor).unwrap();
            entry["annotations"] = annotations.unwrap_or(serde_json::json!({}));
            entry
        };
        let entries: Vec<_> = self.roots.iter().map(entry).collect();
        let index = serde_json::json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries });
        files.push(("index.json".to_owned(), index.to_string().into_bytes()));
        archive(&files)
    }

    /// Those of its images that are no index in docker-save's old form, read once: layers without digests, and
    /// `manifest.json` last.
    pub fn streamed_old_form(&self) -> Source {
        let (mut files, mut saved) = (Vec::new(), Vec::new());
        for root in &self.roots {
            let manifest = Manifest::parse(self.blobs[&root.descriptor.digest].clone(), &root.descriptor).unwrap();
            let Some(config) = manifest.config() else { continue };
            let mut layers = Vec::new();
            for layer in manifest.layers() {
                let name = format!("{}/layer.tar", layer.digest.hex());
                files.push((name.clone(), self.blobs[&layer.digest].clone()));
                layers.push(name);
            }
            let config_name = format!("{}.json", config.digest.hex());
            files.push((config_name.clone(), self.blobs[&config.digest].clone()));
            let tag = root.name.as_ref().map(Name::to_string);
            saved.push(serde_json::json!({ "Config": config_name, "RepoTags": [tag], "Layers": layers }));
        }
        files.push(("manifest.json".to_owned(), serde_json::json!(saved).to_string().into_bytes()));
        archive(&files)
    }
}

fn archive(files: &[(String, Vec<u8>)]) -> Source {
    let bytes = Cursor::new(tar(files));
    Source::Stream(Box::new(ArchiveStream::new(Box::new(bytes), "a.tar")))
}

/// A sink that keeps everything, in the order in which it came.
pub struct Kept {
    pub capabilities: SinkCapabilities,
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
    pub fn new(capabilities: SinkCapabilities) -> Kept {
        Kept { capabilities, state: Mutex::default() }
    }

    pub fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

pub fn takes() -> SinkCapabilities {
    SinkCapabilities {
        shape: Shape::AsFound,
        order: Order::Parallel(4),
        large_uploads: None,
        compress: None,
        unsupported: &[],
        unnamed_blobs: true,
        unnamed_images: true,
        needs_replay: false,
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
    fn commit(&mut self, blob: &Verified) -> Result<()> {
        let (digest, size) = blob.stored();
        assert_eq!((Digest::of(&self.1), self.1.len() as u64), (digest, size));
        let mut state = self.0.state();
        state.log.push("blob".to_owned());
        state.blobs.insert(digest, std::mem::take(&mut self.1));
        Ok(())
    }
}

impl Sink for Kept {
    fn capabilities(&self) -> SinkCapabilities {
        self.capabilities.clone()
    }
    fn published(&self, name: &Name) -> Result<Option<Digest>> {
        Ok(self.state().names.get(name.as_str()).copied())
    }
    fn missing(&self, upcoming: Upcoming<'_>) -> Result<Missing> {
        let state = self.state();
        let blobs = upcoming.into_blobs().into_iter();
        Ok(Missing::new(blobs.filter(|blob| !state.blobs.contains_key(&blob.digest)).collect()))
    }
    fn begin<'a>(&'a self, claim: &Claim, _: Option<&Origin>) -> Result<Begin<'a>> {
        let held = claim.digest.is_some_and(|digest| self.state().blobs.contains_key(&digest));
        Ok(if held { Begin::Held } else { Begin::Write(Box::new(Writer(self, Vec::new()))) })
    }
    fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        let mut state = self.state();
        for child in manifest.children() {
            assert!(self.capabilities.shape != Shape::Whole || state.manifests.contains(&child.digest), "child first");
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
    fn raw_archive(&self) -> Result<Option<Box<dyn std::io::Write + Send + '_>>> {
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
        Ok(Some(Box::new(Out(self))))
    }
}
