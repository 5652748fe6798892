//! containerd of another host as a destination: by its forwarded socket, which resumes inside a layer, or by commands,
//! which compress uncompressed layers for the connection. The images decide, once they are known: compression sends half
//! of the bytes of usual layers, and nothing less of layers of compressed files. Images of a registry, of which usual
//! layers are compressed, go by the socket.

use crate::error::{Error, Result};
use crate::image::{Coding, Descriptor, Digest, Manifest, Name};
use crate::sink::{Begin, Finish, Missing, Order, Sink, SinkCapabilities, Upcoming};
use crate::source::{Claim, Origin, Store};
use crate::transport::containerd::socket::SocketSink;
use crate::transport::engine::EngineSink;
use std::io::{Read, Write};
use std::sync::OnceLock;

/// With fewer uncompressed bytes, compression on the connection saves less than a resumable upload.
const MIN_UNCOMPRESSED_BYTES: u64 = 4 << 20;
/// The parts of a layer that are compressed to know whether it shrinks.
const SAMPLES: u64 = 3;
const SAMPLE_BYTES: u64 = 128 << 10;
/// Samples are not farther into a layer, since some sources read a layer from its start.
const MAX_SAMPLE_OFFSET: u64 = 32 << 20;

/// Creates the sink that loads by commands.
type ByCommands = Box<dyn Fn() -> EngineSink + Send + Sync>;

/// A destination with two ways, one of which is taken when the blobs are known.
pub(super) struct HostSink {
    socket: SocketSink,
    by_commands: ByCommands,
    /// `None`: the socket.
    chosen: OnceLock<Option<EngineSink>>,
}

impl HostSink {
    /// Creates a sink that writes by `socket`, unless the images have many bytes that compression makes fewer.
    pub fn new(socket: SocketSink, by_commands: ByCommands) -> HostSink {
        HostSink { socket, by_commands, chosen: OnceLock::new() }
    }

    /// Takes the commands if `wanted`; the first call decides.
    fn choose(&self, wanted: bool) -> &dyn Sink {
        match self.chosen.get_or_init(|| wanted.then(&self.by_commands)) {
            Some(engine) => engine,
            None => &self.socket,
        }
    }

    /// The chosen way, else the socket.
    fn way(&self) -> &dyn Sink {
        self.choose(false)
    }
}

/// Whether compression on the connection is worth more than resuming.
fn wants_compression(upcoming: &Upcoming<'_>) -> bool {
    match upcoming {
        Upcoming::Blobs { blobs, source, .. } => {
            let is_raw = |blob: &&Descriptor| blob.coding() == Some(Coding::Raw);
            let raw = || blobs.iter().filter(is_raw);
            let largest = raw().max_by_key(|blob| blob.size);
            // A registry's blobs are read once: samples would cost requests.
            source.profile().origin.is_none()
                && raw().map(|blob| blob.size).sum::<u64>() >= MIN_UNCOMPRESSED_BYTES
                && largest.is_some_and(|largest| shrinks(*source, largest))
        }
        // A stream of docker save has uncompressed layers, and an upload without a digest cannot be resumed.
        Upcoming::DiffIds(_) => true,
    }
}

/// Whether samples of `layer` shrink by a fifth or more. A layer that cannot be read does not; the copy reports it.
fn shrinks(source: &dyn Store, layer: &Descriptor) -> bool {
    let reach = layer.size.saturating_sub(SAMPLE_BYTES).min(MAX_SAMPLE_OFFSET);
    let (mut before, mut after) = (0, 0);
    for number in 0..SAMPLES {
        let mut sample = Vec::new();
        let read = source.open(layer, reach * number / (SAMPLES - 1));
        let read = read.and_then(|bytes| Ok(bytes.take(SAMPLE_BYTES).read_to_end(&mut sample)?));
        let Ok(compressed) = read.and_then(|_| Ok(zstd::bulk::compress(&sample, 1)?)) else { return false };
        before += sample.len();
        after += compressed.len();
    }
    after < before - before / 5
}

impl Sink for HostSink {
    /// Until the images are known, those that both ways have.
    fn capabilities(&self) -> SinkCapabilities {
        match self.chosen.get() {
            Some(_) => self.way().capabilities(),
            None => SinkCapabilities { order: Order::Sequential, unnamed_blobs: false, ..self.socket.capabilities() },
        }
    }

    fn published(&self, name: &Name) -> Result<Option<Digest>> {
        self.socket.published(name)
    }

    fn missing(&self, upcoming: Upcoming<'_>) -> Result<Missing> {
        self.choose(wants_compression(&upcoming)).missing(upcoming)
    }

    fn begin<'a>(&'a self, claim: &Claim, from: Option<&Origin>) -> Result<Begin<'a>> {
        self.way().begin(claim, from)
    }

    fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        self.way().put_manifest(manifest)
    }

    fn publish(&self, name: Option<&Name>, root: &Manifest) -> Result<()> {
        self.way().publish(name, root)
    }

    fn finish(&self) -> Result<Finish> {
        self.way().finish()
    }

    fn aborted(&self, why: &Error) {
        self.way().aborted(why);
    }

    fn raw_archive(&self) -> Result<Option<Box<dyn Write + Send + '_>>> {
        self.choose(true).raw_archive()
    }
}
