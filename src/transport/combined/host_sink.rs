//! containerd of another host as a destination: by its forwarded socket, which resumes inside a layer, or by commands,
//! which compress uncompressed layers for the connection. The images decide, once they are known.

use crate::error::{Error, Result};
use crate::image::{Coding, Descriptor, Digest, Manifest, Name};
use crate::sink::{Begin, Finish, Missing, Order, Sink, SinkCapabilities, Upcoming};
use crate::source::{Claim, Origin};
use crate::transport::containerd::socket::SocketSink;
use crate::transport::engine::EngineSink;
use std::io::Write;
use std::sync::OnceLock;

/// The uncompressed bytes from which on compression on the connection is worth more than a resumable upload.
const MIN_COMPRESSED_BYTES: u64 = 4 << 20;

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
    /// Creates a sink that writes by `socket`, unless the images have many uncompressed bytes.
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
        Upcoming::Blobs { blobs, .. } => {
            let is_raw = |blob: &&Descriptor| blob.coding() == Some(Coding::Raw);
            blobs.iter().filter(is_raw).map(|blob| blob.size).sum::<u64>() >= MIN_COMPRESSED_BYTES
        }
        // A stream of docker save has uncompressed layers.
        Upcoming::DiffIds(_) => true,
    }
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
