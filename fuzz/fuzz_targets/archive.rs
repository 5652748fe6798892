//! Archives made of the right parts in any order: layers, configs, manifests, lists and links that mostly fit.

#![no_main]

mod taken;
#[path = "../../tests/hostile/tars.rs"]
#[allow(dead_code)]
mod tars;

use arbitrary::Arbitrary;
use imgmv::{Descriptor, Digest};
use imgmv::internals::image::media_type;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use tars::Tar;

#[derive(Debug, Arbitrary)]
struct Part {
    name: Name,
    what: What,
}

#[derive(Debug, Arbitrary)]
enum Name {
    /// Under its digest in `blobs`.
    Own,
    /// Under another's.
    Others(u8),
    Config,
    Layer(u8),
    Saved,
    Index,
    Layout,
    Text(String),
}

#[derive(Debug, Arbitrary)]
enum What {
    Layer(u8),
    Packed(u8),
    Config(Vec<u8>),
    Manifest { config: u8, layers: Vec<u8>, data: bool },
    List { children: Vec<u8> },
    Index { entries: Vec<(u8, u8)> },
    Saved { images: Vec<(Name, Vec<Name>, u8)> },
    Version,
    Link { flag: u8, to: Name },
    Directory,
    Bytes(Vec<u8>),
}

#[derive(Default)]
struct Made {
    bodies: Vec<(&'static str, Vec<u8>)>,
}

impl Made {
    fn descriptor(&self, at: u8) -> Value {
        match self.bodies.get(at as usize % self.bodies.len().max(1)) {
            Some((media_type, bytes)) => json!(Descriptor::of(*media_type, bytes)),
            None => json!(Descriptor::of(media_type::OCI_LAYER, b"absent")),
        }
    }

    fn digest(&self, at: u8) -> Value {
        self.descriptor(at)["digest"].clone()
    }

    fn name(&self, name: &Name, own: &[u8]) -> String {
        match name {
            Name::Own => Digest::of(own).blob_path(),
            Name::Others(at) => {
                let digest: Digest = self.digest(*at).as_str().unwrap_or_default().parse().expect("made here");
                digest.blob_path()
            }
            Name::Config => "config.json".to_owned(),
            Name::Layer(n) => format!("{}/layer.tar", n % 4),
            Name::Saved => "manifest.json".to_owned(),
            Name::Index => "index.json".to_owned(),
            Name::Layout => "oci-layout".to_owned(),
            Name::Text(text) => text.clone(),
        }
    }

    /// Type and content of a file.
    fn body(&self, what: &What) -> Option<(&'static str, Vec<u8>)> {
        let all = |list: &[u8], one: &dyn Fn(u8) -> Value| list.iter().map(|at| one(*at)).collect::<Vec<Value>>();
        let descriptor = |at| self.descriptor(at);
        let tag = |n: &u8| format!("registry.lan/app:{}", n % 3);
        Some(match what {
            What::Layer(seed) => (media_type::OCI_LAYER, layer(*seed)),
            What::Packed(seed) => (media_type::OCI_LAYER_GZIP, gzip(&layer(*seed))),
            What::Config(layers) => {
                let diff_ids = all(layers, &|at| self.digest(at));
                let text = json!({ "architecture": "amd64", "os": "linux", "rootfs": { "diff_ids": diff_ids } });
                (media_type::OCI_CONFIG, text.to_string().into_bytes())
            }
            What::Manifest { config, layers, data } => {
                let mut config = descriptor(*config);
                if *data {
                    config["data"] = json!("e30=");
                }
                let text = json!({ "schemaVersion": 2, "config": config, "layers": all(layers, &descriptor) });
                (media_type::OCI_MANIFEST, text.to_string().into_bytes())
            }
            What::List { children } => {
                let text = json!({ "schemaVersion": 2, "manifests": all(children, &descriptor) });
                (media_type::OCI_INDEX, text.to_string().into_bytes())
            }
            What::Index { entries } => {
                let entry = |(at, name): &(u8, u8)| {
                    let mut entry = descriptor(*at);
                    entry["annotations"] = json!({ "io.containerd.image.name": tag(name) });
                    entry
                };
                let entries: Vec<Value> = entries.iter().map(entry).collect();
                ("", json!({ "schemaVersion": 2, "manifests": entries }).to_string().into_bytes())
            }
            What::Saved { images } => {
                let image = |(config, layers, name): &(Name, Vec<Name>, u8)| {
                    let layers: Vec<String> = layers.iter().map(|layer| self.name(layer, b"")).collect();
                    json!({ "Config": self.name(config, b""), "RepoTags": [tag(name)], "Layers": layers })
                };
                let images: Vec<Value> = images.iter().map(image).collect();
                ("", json!(images).to_string().into_bytes())
            }
            What::Version => ("", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            What::Bytes(bytes) => ("", bytes.clone()),
            What::Link { .. } | What::Directory => return None,
        })
    }
}

fn layer(seed: u8) -> Vec<u8> {
    Tar::new().file(&format!("file-{}", seed % 4), &[seed % 4; 20]).end()
}

/// Stored, so that no packer is fuzzed.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1];
    packed.extend((bytes.len() as u16).to_le_bytes());
    packed.extend((!(bytes.len() as u16)).to_le_bytes());
    packed.extend(bytes);
    let crc = bytes.iter().fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| sum >> 1 ^ (0xedb8_8320 & (sum & 1).wrapping_neg()))
    });
    packed.extend((!crc).to_le_bytes());
    packed.extend((bytes.len() as u32).to_le_bytes());
    packed
}

fuzz_target!(|parts: Vec<Part>| {
    let (mut made, mut tar) = (Made::default(), Tar::new());
    for part in &parts {
        match (made.body(&part.what), &part.what) {
            (Some((media_type, bytes)), _) => {
                tar = tar.file(&made.name(&part.name, &bytes), &bytes);
                made.bodies.push((media_type, bytes));
            }
            (None, What::Link { flag, to }) => {
                tar = tar.entry(&made.name(&part.name, b""), b'1' + flag % 2, &made.name(to, b""));
            }
            (None, _) => tar = tar.entry(&made.name(&part.name, b""), b'5', ""),
        }
    }
    taken::both_ways(&tar.end());
});
