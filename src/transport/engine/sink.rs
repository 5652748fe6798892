//! An engine as a destination: queried for the layers it has, sent the missing ones as one archive to its load
//! command's standard input, then queried for the images.

use super::delta::Delta;
use super::expected::ExpectedImages;
use super::kind::{DetectedEngine, Loader};
use super::load::{LoadCommand, LoadInput};
use super::rename::TemporaryNames;
use super::scripts::RunId;
use super::session::{ScriptAnswer, ScriptSession};
use super::wire_compression::{AdaptiveWriter, WireCompression};
use super::{inventory, rename, scripts};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::image::{Body, Descriptor, Digest, Manifest, Name, Reference};
use crate::progress::{Event, Watch};
use crate::remote::Host;
use crate::sink::{Begin, Finish, Missing, Order, Sink, SinkCapabilities, Upcoming};
use crate::source::{Claim, Origin};
use crate::tarball::{ArchiveWriter, TarOutput};
use std::{
    borrow::Cow,
    io::Write,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Loads images into an engine on a host.
pub struct EngineSink {
    pub(super) host: Arc<dyn Host>,
    pub(super) found: DetectedEngine,
    pub(super) run_id: RunId,
    compression: Option<WireCompression>,
    /// The delta, and the complete load after a delta that failed verification.
    loads: [OnceLock<RunningLoad>; 2],
    /// The index of the current load in `loads`.
    pub(super) attempt: AtomicUsize,
    state: Mutex<SinkState>,
    pub(super) watch: Arc<dyn Watch>,
    pub(super) cancel: Cancel,
}

pub(super) struct RunningLoad {
    archive: ArchiveWriter,
    pub command: Arc<LoadCommand>,
}

#[derive(Default)]
pub(super) struct SinkState {
    /// The script that has answered and waits for the archive.
    pub session: Option<(ScriptSession, ScriptAnswer)>,
    pub queried: bool,
    pub delta: Delta,
    pub expected: ExpectedImages,
    pub temporary: TemporaryNames,
    pub form: Form,
    /// The engine that is queried for images: ctr if it can read the engine's containerd, since only ctr reports
    /// missing blobs (docker accepts an unpacked image without them).
    pub inspector: Option<DetectedEngine>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The archive is created here; digests stay.
    #[default]
    Universal,
    /// The archive is forwarded unchanged, and the engine creates new manifests.
    Relayed,
}

impl EngineSink {
    /// The archive is sent uncompressed; see [`EngineSink::with_wire_compression`].
    pub fn new(host: Arc<dyn Host>, found: DetectedEngine, watch: Arc<dyn Watch>, cancel: &Cancel) -> EngineSink {
        watch.say(&format!("{}: loading into {found}", host.name()));
        let (loads, attempt, state) = (Default::default(), AtomicUsize::new(0), Mutex::default());
        let (run_id, compression, cancel) = (RunId::new(), Some(WireCompression::Plain), cancel.clone());
        EngineSink { host, found, run_id, compression, loads, attempt, state, watch, cancel }
    }

    /// Sets the compression of the archive on the connection. `None` selects it by the formats that the host can
    /// decompress, the layers of the images, and the speed of the connection.
    pub fn with_wire_compression(mut self, compression: Option<WireCompression>) -> EngineSink {
        self.compression = compression;
        self
    }

    pub(super) fn state(&self) -> MutexGuard<'_, SinkState> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn current_load(&self) -> &OnceLock<RunningLoad> {
        &self.loads[self.attempt.load(Ordering::SeqCst)]
    }

    /// Returns the load command, which the first call starts.
    fn load(&self) -> Result<&RunningLoad> {
        // Locked during the start, so that it starts once.
        let mut state = self.state();
        if let Some(load) = self.current_load().get() {
            return Ok(load);
        }
        let (command, out) = self.start(&mut state)?;
        let archive = ArchiveWriter::new(TarOutput::Pipe(out), self.host.name(), self.found.platform.clone());
        Ok(self.current_load().get_or_init(|| RunningLoad { archive, command }))
    }

    fn start(&self, state: &mut SinkState) -> Result<(Arc<LoadCommand>, Box<dyn Write + Send>)> {
        let command = self.found.load_command();
        let label = format!("{}: {}", self.host.name(), command.join(" "));
        let session = match state.session.take() {
            Some(session) => Some(session),
            None => self.open_session("")?,
        };
        let Some((session, answer)) = session else {
            let (command, input) = LoadCommand::start(self.host.as_ref(), &command, &self.cancel)?;
            return Ok((command, Box::new(input)));
        };
        state.inspector = self.found.with_ctr(&answer.ctr).filter(|_| answer.why.is_none());
        let compression = self.choose_compression(&answer, state.delta.all_compressed)?;
        if compression != WireCompression::Plain {
            let text = format!(
                "{}: the archive is compressed with {} for the connection",
                self.host.name(),
                compression.name()
            );
            self.watch.event(Event::Detail(&text));
        }
        let (command, input): (Arc<LoadCommand>, LoadInput) = session.load(compression, &label, &self.cancel)?;
        Ok(match AdaptiveWriter::new(input, compression)? {
            Ok(writer) => (command, Box::new(writer)),
            Err(input) => (command, Box::new(input)),
        })
    }

    /// Starts the script; `None` for a custom command, which cannot answer a query.
    pub(super) fn open_session(&self, query: &str) -> Result<Option<(ScriptSession, ScriptAnswer)>> {
        match scripts::script(&self.found, &self.run_id)? {
            Some(script) => ScriptSession::open(self.host.as_ref(), &script, query).map(Some),
            None => Ok(None),
        }
    }

    fn choose_compression(&self, answer: &ScriptAnswer, all_compressed: bool) -> Result<WireCompression> {
        let host = self.host.name();
        match self.compression {
            Some(compression)
                if compression != WireCompression::Plain && !answer.decompressors.contains(&compression) =>
            {
                Err(Error::remote_host(format!(
                    "{host}: {} was not found on the host, which must decompress the archive; use --wire auto",
                    compression.name()
                )))
            }
            Some(compression) => Ok(compression),
            None if all_compressed => Ok(WireCompression::Plain),
            None => Ok([WireCompression::Zstd, WireCompression::Gzip]
                .into_iter()
                .find(|w| answer.decompressors.contains(w))
                .unwrap_or(WireCompression::Plain)),
        }
    }

    /// Returns `name` as engines store it.
    pub(super) fn canonical(&self, name: &Name) -> Result<Name> {
        let fits = |reference: &Reference| match (&reference.tag, &reference.digest) {
            (Some(_), None) => true,
            (None, Some(_)) => self.found.stores_digest_names(),
            _ => false,
        };
        let reference = name.reference().filter(fits);
        reference.as_ref().map(Name::from).ok_or_else(|| {
            let host = self.host.name();
            Error::usage(format!("{host}: an engine cannot store the name {name}; give REPO:TAG with --as"))
        })
    }

    /// Whether `root` has or gets a name on the host.
    fn is_named(&self, root: Digest) -> bool {
        let state = self.state();
        state.expected.is_named(root) || state.delta.has_name(root)
    }

    /// Returns `images` without names by digest if the engine stores only tags. An image without a tag keeps all its
    /// names.
    pub(super) fn with_storable_names<'i>(&self, images: &'i [Image]) -> Cow<'i, [Image]> {
        let by_digest = |name: &Name| name.digest().is_some();
        if self.found.stores_digest_names() || !images.iter().flat_map(|image| &image.names).any(by_digest) {
            return Cow::Borrowed(images);
        }
        let mut images = images.to_vec();
        for image in images.iter_mut().filter(|image| !image.names.iter().all(by_digest)) {
            image.names.retain(|name| !by_digest(name));
        }
        Cow::Owned(images)
    }

    /// Fails with `Usage` for an artifact if the engine stores only runnable images. `tree` ends with the root.
    pub(super) fn check_runnable(&self, tree: &[Manifest]) -> Result<()> {
        let configs = tree.iter().filter_map(|manifest| match &manifest.body {
            Body::Image { config, .. } => Some(config.as_ref()),
            _ => None,
        });
        let configs: Vec<Option<&Descriptor>> = configs.collect();
        let (Some(config), Some(root)) = (configs.first(), tree.last()) else { return Ok(()) };
        if self.found.stores_artifacts() || configs.iter().any(|config| config.is_some_and(inventory::is_config)) {
            return Ok(());
        }
        let kind = config.map_or("without a config", |config| &config.media_type);
        Err(Error::usage(format!(
            "{}: {} stores only runnable images, and {} is an artifact ({kind}); copy it to a registry or a layout",
            self.host.name(),
            self.found,
            root.digest()
        )))
    }
}

impl Sink for EngineSink {
    fn capabilities(&self) -> SinkCapabilities {
        SinkCapabilities {
            shape: self.found.shape(),
            order: Order::Sequential,
            large_uploads: None,
            compress: None,
            unsupported: self.found.refuses(),
            unnamed_blobs: false,
            unnamed_images: false,
            needs_replay: false,
            referrers: false,
        }
    }

    fn missing(&self, upcoming: Upcoming<'_>) -> Result<Missing> {
        match upcoming {
            Upcoming::Blobs { images, blobs, source, .. } => {
                self.missing_blobs(images, blobs, source).map(Missing::new)
            }
            Upcoming::DiffIds(layers) => self.expect_layers(layers).map(|()| Missing::default()),
        }
    }

    fn begin<'a>(&'a self, claim: &Claim, _: Option<&Origin>) -> Result<Begin<'a>> {
        if claim.digest.is_some_and(|digest| self.state().delta.skipped.contains(&digest)) {
            return Ok(Begin::Held);
        }
        self.load()?.archive.begin(claim)
    }

    fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        let form = {
            let mut state = self.state();
            state.expected.add_manifest(manifest);
            if state.delta.skips(&manifest.digest()) {
                return Ok(());
            }
            state.form
        };
        match form {
            Form::Universal => self.load()?.archive.put_manifest(manifest),
            Form::Relayed => Ok(()),
        }
    }

    /// After a relay the name is only recorded, for the verification in `finish`.
    fn publish(&self, name: Option<&Name>, root: &Manifest) -> Result<()> {
        let Some(name) = name else {
            return Err(Error::usage(format!(
                "{}: the engine needs a name for the image; give one with --as",
                self.host.name()
            )));
        };
        if name.digest().is_some() && !self.found.stores_digest_names() && self.is_named(root.digest()) {
            self.watch.say(&format!(
                "{}: {} stores only tags; the name {name} is skipped",
                self.host.name(),
                self.found
            ));
            return Ok(());
        }
        let name = self.canonical(name)?;
        self.check_runnable(std::slice::from_ref(root))?;
        let loaded_as = {
            let mut state = self.state();
            if state.delta.is_current(&name, root.digest()) {
                return Ok(());
            }
            state.expected.add_manifest(root);
            state.expected.add_name(&name, root.digest());
            match state.form {
                Form::Relayed => return Ok(()),
                Form::Universal if rename::uses_temporary_names(&self.found, state.delta.one_name) => {
                    state.temporary.name(root.digest(), &self.run_id)?
                }
                Form::Universal => name,
            }
        };
        self.load()?.archive.publish(Some(&loaded_as), root)
    }

    fn finish(&self) -> Result<Finish> {
        let Some(load) = self.current_load().get() else {
            if let Some((session, _)) = self.state().session.take() {
                session.close();
            }
            return Ok(Finish::Done);
        };
        let closed = load.archive.close();
        let loaded = closed.and_then(|_| load.command.wait());
        let mut state = self.state();
        if self.found.loader == Loader::Custom {
            loaded?;
            let host = self.host.name();
            self.watch.say(&format!("{host}: {} succeeded; whether it loaded the images is not known", self.found));
            return Ok(Finish::Done);
        }
        let verified = loaded.and_then(|loaded| {
            for line in loaded.output.lines().filter(|line| !line.trim().is_empty()) {
                self.watch.event(Event::Detail(&format!("{}: {}", self.host.name(), line.trim())));
            }
            self.verify_load(&state)
        });
        match verified {
            Ok(()) => Ok(Finish::Done),
            Err(error) => self.recover(&mut state, load, error),
        }
    }

    /// Blobs of an interrupted load stay pinned for the next run, unless the disk is full.
    fn aborted(&self, _: &Error) {
        if self.current_load().get().is_some_and(|load| load.command.is_disk_full()) {
            self.unpin(&self.state());
        }
    }

    fn raw_archive(&self) -> Result<Option<Box<dyn Write + Send + '_>>> {
        let load = self.load()?;
        self.state().form = Form::Relayed;
        load.archive.relay().map(Some)
    }
}

impl Drop for EngineSink {
    fn drop(&mut self) {
        for load in self.loads.iter().filter_map(OnceLock::get) {
            load.command.abort();
        }
    }
}
