//! The content of every store under test: the two images of `fixtures/layout`.

use crate::memory::Memory;
use imgmv::internals::image::{layer_coding, media_type};
use imgmv::{Coding, Descriptor, Digest, Manifest, Name};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::sync::OnceLock;

pub const HELLO: &str = "docker.io/library/hello-imgmv:1";
pub const BYE: &str = "docker.io/library/bye-imgmv:1";
const FIXTURE: &str = "fixtures/layout";

/// Two images with names, and one without.
#[derive(Clone)]
pub struct Sample {
    /// Its roots are `hello` and `bye`.
    pub memory: Memory,
    pub hello: Manifest,
    pub bye: Manifest,
    /// A manifest without a name.
    pub unnamed: Manifest,
    /// The digests that are manifests, for stores that have them apart.
    pub manifests: HashSet<Digest>,
}

impl Sample {
    pub fn new() -> Sample {
        static SAMPLE: OnceLock<Sample> = OnceLock::new();
        SAMPLE.get_or_init(Sample::read).clone()
    }

    fn read() -> Sample {
        let mut memory = Memory::default();
        for file in fs::read_dir(format!("{FIXTURE}/blobs/sha256")).unwrap() {
            let bytes = fs::read(file.unwrap().path()).unwrap();
            memory.blobs.insert(Digest::of(&bytes), bytes);
        }
        let index: Value = serde_json::from_slice(&fs::read(format!("{FIXTURE}/index.json")).unwrap()).unwrap();
        let roots = index["manifests"].as_array().unwrap().iter().map(|entry| {
            let root: Descriptor = serde_json::from_value(entry.clone()).unwrap();
            Manifest::parse(memory.blobs[&root.digest].clone(), &root).unwrap()
        });
        let roots: Vec<Manifest> = roots.collect();
        let [hello, bye] = roots.try_into().unwrap();
        Sample::of(memory, hello, bye)
    }

    fn of(mut memory: Memory, hello: Manifest, bye: Manifest) -> Sample {
        let unnamed = Manifest::synthesise(hello.config().unwrap(), &hello.layers()[..1]);
        memory.blobs.insert(unnamed.digest(), unnamed.bytes.clone());
        memory.roots.clear();
        memory.name(HELLO, &hello.descriptor);
        memory.name(BYE, &bye.descriptor);
        let manifests = [&hello, &bye, &unnamed].map(Manifest::digest).into();
        Sample { memory, hello, bye, unnamed, manifests }
    }

    /// The same images with uncompressed layers, as docker-save's old form has them.
    pub fn uncompressed(&self) -> Sample {
        let mut memory = Memory::default();
        let images = [&self.hello, &self.bye].map(|image| {
            let config = memory.keep(media_type::OCI_CONFIG, self.bytes(image.config().unwrap()).to_vec());
            let layers = image.layers().iter().map(|layer| {
                assert_eq!(layer_coding(&layer.media_type), Some(Coding::Gzip));
                let mut bytes = Vec::new();
                flate2::read::GzDecoder::new(self.bytes(layer)).read_to_end(&mut bytes).unwrap();
                memory.keep(media_type::OCI_LAYER, bytes)
            });
            let layers: Vec<Descriptor> = layers.collect();
            let manifest = Manifest::synthesise(&config, &layers);
            memory.blobs.insert(manifest.digest(), manifest.bytes.clone());
            manifest
        });
        let [hello, bye] = images;
        Sample::of(memory, hello, bye)
    }

    /// The largest layer of `hello`.
    pub fn layer(&self) -> &Descriptor {
        self.hello.layers().iter().max_by_key(|layer| layer.size).unwrap()
    }

    pub fn bytes(&self, blob: &Descriptor) -> &[u8] {
        &self.memory.blobs[&blob.digest]
    }

    /// Adds the manifest `bytes` under `digest`, whether or not it is their digest.
    pub fn put_manifest(&mut self, digest: Digest, bytes: Vec<u8>) {
        self.manifests.insert(digest);
        self.memory.blobs.insert(digest, bytes);
    }

    /// The files of an OCI layout; the lists are last, as in a stream.
    pub fn layout_files(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
        let mut blobs: Vec<_> = self.memory.blobs.iter().collect();
        blobs.sort_by_key(|(digest, _)| **digest);
        files.extend(blobs.into_iter().map(|(digest, bytes)| (digest.blob_path(), bytes.clone())));
        let entries: Vec<Value> = self
            .memory
            .roots
            .iter()
            .map(|root| {
                let mut entry = serde_json::to_value(&root.descriptor).unwrap();
                let name = root.name.as_ref().map(Name::as_str);
                entry["annotations"] =
                    json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": name });
                entry
            })
            .collect();
        let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries });
        files.push(("index.json".to_owned(), index.to_string().into_bytes()));
        files
    }

    /// docker-save's list of the images, whose files have the paths that `path` gives them.
    pub fn saved(&self, path: impl Fn(&Descriptor) -> String) -> (String, Vec<u8>) {
        let image = |name: &str, image: &Manifest| {
            let layers: Vec<String> = image.layers().iter().map(&path).collect();
            json!({ "Config": path(image.config().unwrap()), "RepoTags": [name], "Layers": layers })
        };
        let list = json!([image(HELLO, &self.hello), image(BYE, &self.bye)]);
        ("manifest.json".to_owned(), list.to_string().into_bytes())
    }
}
