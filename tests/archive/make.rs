//! Images and archives made by hand, with another tar writer than the one under test.

use crate::memory::{Kept, layer, takes};
use imgmv::internals::image::media_type;
use imgmv::internals::tarball::ArchiveStore;
use imgmv::{
    ArchiveStream, Cancel, Descriptor, Digest, Error, Manifest, Options, Report, Result, Silent, Sink, Source, copy,
};
use serde_json::{Value, json};
use std::{
    io::{Cursor, Write},
    path::PathBuf,
    sync::Arc,
};

pub const NAME: &str = "docker.io/library/app:2";

/// An image of raw layers, and the same with gzip.
pub struct Image {
    pub config: Vec<u8>,
    pub raw: Vec<Vec<u8>>,
    pub gzip: Vec<Vec<u8>>,
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

pub fn hex(bytes: &[u8]) -> String {
    Digest::of(bytes).hex()
}

pub fn blob(bytes: &[u8]) -> String {
    Digest::of(bytes).blob_path()
}

impl Image {
    pub fn new(seed: u8) -> Image {
        let raw = vec![layer(1, 20_000), layer(seed, 70_000)];
        let diff_ids: Vec<Digest> = raw.iter().map(|layer| Digest::of(layer)).collect();
        let config = json!({ "os": "linux", "architecture": "amd64", "created": format!("{seed}"),
            "rootfs": { "type": "layers", "diff_ids": diff_ids } });
        let gzip = raw.iter().map(|layer| gzip(layer)).collect();
        Image { config: config.to_string().into_bytes(), raw, gzip }
    }

    /// With raw layers, as `Manifest::synthesise` makes it and as docker does.
    pub fn raw_manifest(&self) -> Manifest {
        self.manifest(media_type::OCI_LAYER, &self.raw)
    }

    pub fn gzip_manifest(&self) -> Manifest {
        self.manifest(media_type::OCI_LAYER_GZIP, &self.gzip)
    }

    fn manifest(&self, media_type: &str, layers: &[Vec<u8>]) -> Manifest {
        let layers: Vec<Descriptor> = layers.iter().map(|layer| Descriptor::of(media_type, layer)).collect();
        Manifest::synthesise(&Descriptor::of(media_type::OCI_CONFIG, &self.config), &layers)
    }

    /// Its entry in a manifest.json of the old form.
    pub fn saved(&self, tags: &[&str]) -> Value {
        let layers: Vec<String> = self.raw.iter().map(|layer| format!("{}/layer.tar", hex(layer))).collect();
        json!({ "Config": format!("{}.json", hex(&self.config)), "RepoTags": tags, "Layers": layers })
    }

    /// Its files in the old form, `manifest.json` aside.
    pub fn old_files(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        for layer in &self.raw {
            files.push((format!("{}/VERSION", hex(layer)), b"1.0".to_vec()));
            files.push((format!("{}/json", hex(layer)), json!({ "id": hex(layer) }).to_string().into_bytes()));
            files.push((format!("{}/layer.tar", hex(layer)), layer.clone()));
        }
        files.push((format!("{}.json", hex(&self.config)), self.config.clone()));
        files
    }

    /// Its blobs in a layout, gzip layers.
    pub fn oci_files(&self) -> Vec<(String, Vec<u8>)> {
        let manifest = self.gzip_manifest();
        let blobs = self.gzip.iter().chain([&self.config, &manifest.bytes]);
        blobs.map(|bytes| (blob(bytes), bytes.clone())).collect()
    }

    /// Its entry in an `index.json`.
    pub fn entry(&self, annotations: Value) -> Value {
        let mut entry = serde_json::to_value(&self.gzip_manifest().descriptor).unwrap();
        entry["annotations"] = annotations;
        entry
    }

    /// Its entry in the `manifest.json` beside an `index.json`.
    pub fn both(&self, tags: Value) -> Value {
        let layers: Vec<String> = self.gzip.iter().map(|layer| blob(layer)).collect();
        json!({ "Config": blob(&self.config), "RepoTags": tags, "Layers": layers })
    }
}

pub fn named(name: &str, tag: &str) -> Value {
    json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag })
}

pub fn index(entries: Value) -> (String, Vec<u8>) {
    let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries });
    ("index.json".into(), index.to_string().into_bytes())
}

pub fn layout_file() -> (String, Vec<u8>) {
    ("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())
}

pub fn saved(images: Value) -> (String, Vec<u8>) {
    ("manifest.json".into(), images.to_string().into_bytes())
}

pub fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        add(&mut tar, name, bytes);
    }
    tar.into_inner().unwrap()
}

pub fn add(tar: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, bytes).unwrap();
}

/// `hello` with `tags` in the old form.
pub fn old(image: &Image, tags: &[&str]) -> Vec<u8> {
    let mut files = image.old_files();
    files.push(saved(json!([image.saved(tags)])));
    tar(&files)
}

/// An image in both forms at once, as docker from 25 on saves it.
pub fn both(image: &Image, annotations: Value, tags: Value) -> Vec<u8> {
    let mut files = image.oci_files();
    files.extend([index(json!([image.entry(annotations)])), saved(json!([image.both(tags)])), layout_file()]);
    tar(&files)
}

pub fn store(bytes: Vec<u8>) -> Result<ArchiveStore<Vec<u8>>> {
    ArchiveStore::open(bytes, "app.tar", Arc::new(Silent))
}

pub fn stream(bytes: Vec<u8>) -> ArchiveStream {
    ArchiveStream::new(Box::new(Cursor::new(bytes)), "standard input")
}

pub fn stored(bytes: Vec<u8>) -> Result<Source> {
    Ok(Source::Store(Arc::new(store(bytes)?)))
}

pub fn streamed(bytes: Vec<u8>) -> Source {
    Source::Stream(Box::new(stream(bytes)))
}

pub fn run(source: Source, sink: &dyn Sink, options: &Options) -> Result<Report> {
    copy(source, sink, options, None, &Silent, &Cancel::default())
}

/// What arrives in memory from `bytes` read both ways: in place, and as they pass.
pub fn arrive(bytes: &[u8]) -> [Result<Kept>; 2] {
    let from = |source: Result<Source>| -> Result<Kept> {
        let sink = Kept::new(takes());
        run(source?, &sink, &Options::default())?;
        Ok(sink)
    };
    [from(stored(bytes.to_vec())), from(Ok(streamed(bytes.to_vec())))]
}

/// The sentence that `bytes` are refused with, both ways.
pub fn refused(bytes: &[u8]) -> [Error; 2] {
    arrive(bytes).map(|arrived| match arrived {
        Ok(kept) => panic!("taken: {:?}", kept.state().names),
        Err(error) => error,
    })
}

pub fn fixture(name: &str) -> Vec<u8> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "fixtures", name].iter().collect();
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
