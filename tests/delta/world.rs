//! An engine on another host, the line to it, and images that are versions of one another.

use crate::engines::{Kind, Peer};
use crate::line::Line;
use crate::memory::Memory;
use crate::sshd::{Sshd, Way};
use imgmv::internals::engine::{Engine, EngineSink, WireCompression, detect};
use imgmv::internals::image::{media_type, with_coding};
use imgmv::internals::remote::Host;
use imgmv::internals::source::Wrapper;
use imgmv::{
    Cancel, Coding, Descriptor, Digest, Error, Event, Manifest, Options, Platform, Report, Result, Source, Store,
    Watch, copy,
};
use std::{
    io::Read,
    sync::{Arc, Mutex, Once},
    time::{Duration, Instant},
};

/// In bytes, of each layer.
pub const LAYER: usize = 3 << 20;
/// What a copy may cost beside the layers that it has to move: a hundredth of them, and this.
pub const BESIDE: u64 = 64 << 10;

#[derive(Default)]
pub struct Told(pub Mutex<Vec<String>>);

impl Watch for Told {
    fn event(&self, event: Event<'_>) {
        if let Event::Info(text) | Event::Detail(text) = event {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }
}

/// A layer of bytes that packing does not make smaller.
pub fn noise(seed: u64, size: usize) -> Vec<u8> {
    tar(&format!("file-{seed}"), &crate::bytes::noise(seed, size))
}

pub fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, content).unwrap();
    tar.into_inner().unwrap()
}

fn packed(raw: &[u8], coding: Coding) -> Vec<u8> {
    use std::io::Write;
    match coding {
        Coding::Gzip => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(raw).unwrap();
            out.finish().unwrap()
        }
        Coding::Zstd => zstd::encode_all(raw, 1).unwrap(),
        _ => raw.to_vec(),
    }
}

/// An image of `layers` (raw), each packed with `coding`, under `name`.
pub fn put(memory: &mut Memory, name: &str, layers: &[Vec<u8>], coding: Coding) -> Descriptor {
    let root = unnamed(memory, &Platform::host(), layers, coding);
    memory.name(name, &root);
    root
}

pub fn unnamed(memory: &mut Memory, platform: &Platform, layers: &[Vec<u8>], coding: Coding) -> Descriptor {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = serde_json::json!({
        "os": platform.os, "architecture": platform.architecture, "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = memory.keep(media_type::OCI_CONFIG, config.to_string().into_bytes());
    let kind = with_coding(media_type::OCI_LAYER, coding);
    let layers: Vec<Descriptor> = layers.iter().map(|layer| memory.keep(kind, packed(layer, coding))).collect();
    let manifest = Manifest::synthesise(&config, &layers);
    memory.blobs.insert(manifest.digest(), manifest.bytes.clone());
    Descriptor { platform: Some(platform.clone()), ..manifest.descriptor }
}

/// Versions of `t/app:1`: the first of `layers` are common to all.
pub fn version(layers: &[u64], coding: Coding) -> Memory {
    let mut memory = Memory::default();
    let layers: Vec<Vec<u8>> = layers.iter().map(|&seed| noise(seed, LAYER)).collect();
    put(&mut memory, APP, &layers, coding);
    memory
}

pub const APP: &str = "docker.io/t/app:1";

/// An engine behind an sshd behind a line.
pub struct Far {
    pub peer: Peer,
    pub sshd: Sshd,
    pub line: Line,
    pub way: Way,
    pub wire: Option<WireCompression>,
    pub engines: Vec<Engine>,
}

pub type Between = Box<dyn Fn() + Send + Sync>;

/// A copy that went well, and what it cost.
pub struct Cost {
    pub report: Report,
    pub said: String,
    pub up: u64,
    pub down: u64,
    /// Commands that ran over there.
    pub exchanges: usize,
}

impl Far {
    pub fn start(kind: Kind) -> Option<Far> {
        Far::of(Peer::start(kind)?)
    }

    pub fn of(peer: Peer) -> Option<Far> {
        let engines = vec![peer.kind.engine()];
        let mut sshd = Sshd::start("", &peer.environment)?;
        let line = Line::to(sshd.port);
        sshd.port = line.port;
        sshd.record(&sshd.host_key());
        Some(Far { peer, sshd, line, way: Way::Client, wire: Some(WireCompression::Plain), engines })
    }

    /// Copies everything in `memory` by one connection.
    pub fn copy(&self, memory: &Memory) -> Result<Cost> {
        self.copy_while(memory, Box::new(|| {}))
    }

    /// The same; `between` is called when the host was asked and nothing was sent yet.
    pub fn copy_while(&self, memory: &Memory, between: Between) -> Result<Cost> {
        let store = Watched { memory: memory.clone(), between, once: Once::new() };
        self.copy_from(Source::Store(Arc::new(store)), Options::default())
    }

    pub fn copy_from(&self, source: Source, options: Options) -> Result<Cost> {
        let before = self.sshd.log().matches("Starting session").count();
        self.line.counted();
        let told = Arc::new(Told::default());
        let outcome = {
            let host: Arc<dyn Host> = Arc::from(self.sshd.host(self.way)?);
            let found = detect(host.as_ref(), &self.engines, None, None)?;
            let sink = EngineSink::new(host, found, told.clone(), &Cancel::default()).with_wire_compression(self.wire);
            copy(source, &sink, &options, None, told.as_ref(), &Cancel::default())
        };
        let said = told.0.lock().unwrap().join("\n");
        let report = outcome.map_err(|error| Error::new(error.kind(), format!("{error} | {said}")))?;
        let (up, down) = self.line.counted();
        let exchanges = self.sshd.log().matches("Starting session").count() - before;
        Ok(Cost { report, said, up, down, exchanges })
    }

    /// The digest that the engine itself has for the image's layers: what it writes out hashes to what went in.
    pub fn is_whole(&self, name: &str, layers: &[Vec<u8>]) {
        let kind = self.peer.kind;
        match kind.engine() {
            Engine::Docker | Engine::Podman => {
                let file = self.peer.folder.path().join("out.tar");
                let save: &[&str] = match kind.engine() {
                    Engine::Podman => &["save", "-q", "-o"],
                    _ => &["save", "-o"],
                };
                let _ = std::fs::remove_file(&file);
                self.peer.client(&[save, &[file.to_str().unwrap(), name]].concat());
                let told: Arc<dyn Watch> = Arc::new(Told::default());
                let input = imgmv::internals::archive::Input::File(file.clone());
                let Source::Store(store) = imgmv::internals::archive::open(&input, told).unwrap() else {
                    panic!("{kind:?} saved what is no store")
                };
                let found = unpacked(store.as_ref());
                assert!(found == layers, "{kind:?}: {name} is not what was sent: {} layers", found.len());
            }
            Engine::Ctr | Engine::Nerdctl => {
                let checked = self.peer.client(&["images", "check", &format!("name=={name}")]);
                let row = checked.lines().nth(1).unwrap_or("");
                assert!(row.contains("complete (") && !row.contains("incomplete"), "{kind:?}: {checked}");
                assert!(row.trim_end().ends_with("true"), "{kind:?}: not unpacked: {checked}");
            }
        }
    }

    /// What ctr says of the containerd that belongs to docker.
    pub fn dockers_ctr(&self, arguments: &[&str]) -> String {
        let socket = self.peer.folder.path().join("exec/containerd/containerd.sock");
        let mut ctr = std::process::Command::new("ctr");
        let output = ctr.args(["-a", socket.to_str().unwrap(), "-n", "moby"]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Whether containerd has `blob`, and nobody who would take it away again is at work, before long.
    pub fn comes_to_hold(&self, blob: &Digest) -> bool {
        let text = blob.to_string();
        let until = Instant::now() + Duration::from_secs(30);
        let mut seen = 0;
        while seen < 4 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(250));
            let all = match self.peer.kind {
                Kind::Docker28c => self.dockers_ctr(&["content", "ls", "-q"]),
                _ => self.peer.client(&["content", "ls", "-q"]),
            };
            seen = if all.contains(&text) { seen + 1 } else { 0 };
        }
        seen > 0
    }

    /// What is pinned or half-named over there: nothing, when no copy runs.
    pub fn left_over(&self) -> String {
        let list = |arguments: &[&str]| self.peer.try_client(arguments).unwrap_or_default();
        match self.peer.kind {
            Kind::Containerd16 | Kind::Containerd21 => {
                let pins = list(&["content", "ls"]);
                let pins = pins.lines().filter(|line| line.contains("imgmv")).collect::<Vec<_>>().join("\n");
                let names = list(&["images", "ls", "-q"]);
                let names = names.lines().filter(|line| line.contains("imgmv.invalid")).collect::<Vec<_>>().join("\n");
                pins + &names
            }
            Kind::Docker28c => {
                let all = self.dockers_ctr(&["content", "ls"]) + &self.dockers_ctr(&["images", "ls", "-q"]);
                all.lines().filter(|line| line.contains("imgmv")).collect()
            }
            _ => {
                let format = ["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"];
                list(&format).lines().filter(|line| line.contains("imgmv.invalid")).collect()
            }
        }
    }
}

/// The layers of the archive's one image, as they lie in it and unpacked.
fn unpacked(store: &dyn Store) -> Vec<Vec<u8>> {
    let root = store.roots(&[]).unwrap().remove(0).descriptor;
    let read = |at: &Descriptor| Manifest::parse(store.manifest(at).unwrap(), at).unwrap();
    let mut manifest = read(&root);
    if let Some(at) = Platform::host().best(manifest.children().iter().map(|child| child.platform.as_ref())) {
        manifest = read(&manifest.children()[at]);
    }
    let layer = |at: &Descriptor| {
        let (mut bytes, mut raw) = (Vec::new(), Vec::new());
        store.open(at, 0).unwrap().read_to_end(&mut bytes).unwrap();
        match Coding::sniff(&bytes) {
            Coding::Gzip => flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut raw).unwrap(),
            Coding::Zstd => zstd::stream::read::Decoder::new(&bytes[..]).unwrap().read_to_end(&mut raw).unwrap(),
            _ => return bytes,
        };
        raw
    };
    manifest.layers().iter().map(layer).collect()
}

/// A store that calls somebody when its first layer is opened: the host was asked, and nothing was sent yet.
struct Watched {
    memory: Memory,
    between: Between,
    once: Once,
}

impl Wrapper for Watched {
    fn wrapped(&self) -> &dyn Store {
        &self.memory
    }
    fn open_blob(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        if blob.size > 100_000 {
            self.once.call_once(|| (self.between)());
        }
        self.memory.open(blob, from)
    }
}
