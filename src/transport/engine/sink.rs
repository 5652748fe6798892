//! An engine as a destination: asked what it holds, sent the rest as the universal archive into its load command's
//! standard input, in one pass, and then asked for the images.

use super::delta::Delta;
use super::expected::Promised;
use super::inventory::Wanted;
use super::kind::{Found, ImageStore, Loader};
use super::line_compression::{LineCompression, Packed};
use super::load::{Input, Loading};
use super::rename::Temporary;
use super::scripts::RunId;
use super::session::{Answer, Session};
use super::{inventory, rename, scripts};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::image::{Body, Descriptor, Digest, Manifest, Name, Reference};
use crate::progress::{Event, Watch};
use crate::remote::Host;
use crate::sink::{Begin, Finish, Order, Sink, SinkCapabilities};
use crate::source::{Claim, Origin, Store};
use crate::tarball::{ArchiveWriter, Output};
use std::{
    borrow::Cow,
    io::Write,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Loads images into the engine that was found on a host.
pub struct EngineSink {
    pub(super) host: Arc<dyn Host>,
    pub(super) found: Found,
    pub(super) mark: RunId,
    wire: Option<LineCompression>,
    /// A delta, and everything after one that did not verify.
    loads: [OnceLock<Load>; 2],
    /// Which of them.
    pub(super) attempt: AtomicUsize,
    state: Mutex<State>,
    watch: Arc<dyn Watch>,
    pub(super) cancel: Cancel,
}

pub(super) struct Load {
    pack: ArchiveWriter,
    pub loading: Arc<Loading>,
}

#[derive(Default)]
pub(super) struct State {
    /// Asked, and waiting for the archive.
    pub session: Option<(Session, Answer)>,
    pub asked: bool,
    pub delta: Delta,
    pub promised: Promised,
    pub temporary: Temporary,
    pub form: Form,
    /// Who is asked for images: ctr where it can look into the engine's containerd, since it alone knows whether an
    /// image is whole (docker is content with one that is unpacked).
    pub clerk: Option<Found>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Made here: digests stay.
    #[default]
    Universal,
    /// It passes as it came, and the engine makes manifests of its own.
    Relayed,
}

impl EngineSink {
    /// The archive goes as it is: [`EngineSink::packed`] changes that.
    pub fn new(host: Arc<dyn Host>, found: Found, watch: Arc<dyn Watch>, cancel: &Cancel) -> EngineSink {
        watch.say(&format!("{}: loading into {found}", host.name()));
        let (loads, attempt, state) = (Default::default(), AtomicUsize::new(0), Mutex::default());
        let (mark, wire, cancel) = (RunId::new(), Some(LineCompression::Plain), cancel.clone());
        EngineSink { host, found, mark, wire, loads, attempt, state, watch, cancel }
    }

    /// How the archive is packed for the way; `None`: by what the host can unpack, what the images consist of, and how
    /// fast the line is.
    pub fn packed(mut self, wire: Option<LineCompression>) -> EngineSink {
        self.wire = wire;
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn now(&self) -> &OnceLock<Load> {
        &self.loads[self.attempt.load(Ordering::SeqCst)]
    }

    /// The load command, started when it is first wanted.
    fn load(&self) -> Result<&Load> {
        // Held while starting, so that it is started once.
        let mut state = self.state();
        if let Some(load) = self.now().get() {
            return Ok(load);
        }
        let (loading, out) = self.start(&mut state)?;
        let pack = ArchiveWriter::new(Output::Pipe(out), self.host.name(), self.found.platform.clone());
        Ok(self.now().get_or_init(|| Load { pack, loading }))
    }

    fn start(&self, state: &mut State) -> Result<(Arc<Loading>, Box<dyn Write + Send>)> {
        let command = self.found.load();
        let label = format!("{}: {}", self.host.name(), command.join(" "));
        let session = match state.session.take() {
            Some(session) => Some(session),
            None => self.ask("")?,
        };
        let Some((session, answer)) = session else {
            let (loading, input) = Loading::start(self.host.as_ref(), &command, &self.cancel)?;
            return Ok((loading, Box::new(input)));
        };
        state.clerk = self.found.by_ctr(&answer.ctr).filter(|_| answer.why.is_none());
        let wire = self.choose(&answer, state.delta.all_packed)?;
        if wire != LineCompression::Plain {
            let text = format!("{}: packed with {} on the way", self.host.name(), wire.name());
            self.watch.event(Event::Detail(&text));
        }
        let (loading, input): (Arc<Loading>, Input) = session.load(wire, &label, &self.cancel)?;
        Ok(match Packed::new(input, wire)? {
            Ok(packed) => (loading, Box::new(packed)),
            Err(input) => (loading, Box::new(input)),
        })
    }

    /// `None` for a command of the user's own, which answers nothing.
    fn ask(&self, question: &str) -> Result<Option<(Session, Answer)>> {
        match scripts::script(&self.found, &self.mark)? {
            Some(script) => Session::open(self.host.as_ref(), &script, question).map(Some),
            None => Ok(None),
        }
    }

    fn choose(&self, answer: &Answer, all_packed: bool) -> Result<LineCompression> {
        let host = self.host.name();
        match self.wire {
            Some(wire) if wire != LineCompression::Plain && !answer.undo.contains(&wire) => Err(Error::remote_host(
                format!("{host}: there is no {} there to unpack what comes; use --wire auto", wire.name()),
            )),
            Some(wire) => Ok(wire),
            None if all_packed => Ok(LineCompression::Plain),
            None => Ok([LineCompression::Zstd, LineCompression::Gzip]
                .into_iter()
                .find(|w| answer.undo.contains(w))
                .unwrap_or(LineCompression::Plain)),
        }
    }

    /// `name` as engines keep it.
    fn in_full(&self, name: &Name) -> Result<Name> {
        let fits = |reference: &Reference| match (&reference.tag, &reference.digest) {
            (Some(_), None) => true,
            (None, Some(_)) => self.found.keeps_digests(),
            _ => false,
        };
        let reference = name.reference().filter(fits);
        reference.as_ref().map(Name::from).ok_or_else(|| {
            let host = self.host.name();
            Error::usage(format!("{host}: an engine keeps no image under {name}; give it REPO:TAG with --as"))
        })
    }

    /// Whether `root` has or gets a name there.
    fn is_named(&self, root: Digest) -> bool {
        let state = self.state();
        state.promised.is_named(root) || state.delta.names(root)
    }

    /// `images` with the names that the engine can keep: of an image that has a tag, a name by digest is left out where
    /// it keeps none.
    fn nameable<'i>(&self, images: &'i [Image]) -> Cow<'i, [Image]> {
        let by_digest = |name: &Name| name.digest().is_some();
        if self.found.keeps_digests() || !images.iter().flat_map(|image| &image.names).any(by_digest) {
            return Cow::Borrowed(images);
        }
        let mut images = images.to_vec();
        for image in images.iter_mut().filter(|image| !image.names.iter().all(by_digest)) {
            image.names.retain(|name| !by_digest(name));
        }
        Cow::Owned(images)
    }

    /// Fails with `Usage` for an artifact where the engine holds only images that run.
    fn runs(&self, root: &Manifest) -> Result<()> {
        let only_images = matches!(self.found.loader, Loader::Docker(ImageStore::Graph) | Loader::Podman);
        let Body::Image { config, .. } = &root.body else { return Ok(()) };
        if !only_images || config.as_ref().is_some_and(inventory::is_config) {
            return Ok(());
        }
        let kind = config.as_ref().map_or("without a config", |config| &config.media_type);
        Err(Error::usage(format!(
            "{}: {} holds only images that run, and {} is an artifact ({kind}); copy it to a registry or a layout",
            self.host.name(),
            self.found,
            root.digest()
        )))
    }

    /// What is asked for before anything is sent. The names are known to be fit then: an engine would say so only after
    /// the last byte.
    fn wanted(&self, images: &[Image], blobs: &[Descriptor], source: &dyn Store) -> Result<Wanted> {
        let mut promised = Promised::default();
        for image in images {
            image.tree.iter().for_each(|manifest| promised.note(manifest));
            for name in &image.names {
                promised.name(&self.in_full(name)?, image.root().digest());
            }
        }
        Wanted::new(images, blobs, promised.expected(&self.found), source)
    }
}

impl Sink for EngineSink {
    fn takes(&self) -> SinkCapabilities {
        SinkCapabilities {
            shape: self.found.shape(),
            order: Order::Single,
            large: None,
            compress: None,
            refuses: self.found.refuses(),
            unnamed_blobs: false,
            nameless: false,
        }
    }

    fn missing(&self, images: &[Image], blobs: Vec<Descriptor>, source: &dyn Store) -> Result<Vec<Descriptor>> {
        let images = &*self.nameable(images);
        images.iter().try_for_each(|image| self.runs(image.root()))?;
        let wanted = self.wanted(images, &blobs, source)?;
        let mut state = self.state();
        // One session is asked once: what a second source has goes whole, as does everything once a delta failed.
        if std::mem::replace(&mut state.asked, true) {
            return Ok(blobs);
        }
        let Some((session, answer)) = self.ask(&wanted.question(&self.found))? else {
            self.watch.say(&format!(
                "{}: which layers are there is not known of a command of your own; every layer goes",
                self.host.name()
            ));
            return Ok(blobs);
        };
        let in_full = |name: &Name| self.in_full(name).ok();
        state.delta = Delta::new(&self.found, images, &blobs, &wanted, &answer, &in_full);
        let lacking: Vec<Descriptor> = blobs.into_iter().filter(|blob| !state.delta.has(&blob.digest)).collect();
        if !lacking.is_empty() {
            state.delta.explain(self.host.name(), &self.found, &wanted, &answer, self.watch.as_ref());
        }
        state.session = Some((session, answer));
        Ok(lacking)
    }

    fn expect_layers(&self, layers: &[Vec<Digest>]) -> Result<()> {
        let host = self.host.name();
        let mut state = self.state();
        if std::mem::replace(&mut state.asked, true) || self.found.loader == Loader::Custom {
            return Ok(());
        }
        if layers.is_empty() {
            self.watch.say(&format!("{host}: an archive that passes once names its layers last; every layer goes"));
            return Ok(());
        }
        let wanted = Wanted::expected_diff_ids(layers);
        if let Some((session, answer)) = self.ask(&wanted.question(&self.found))? {
            if layers.len() == 1 || self.found.loader != Loader::Podman {
                state.delta.left_out = wanted.held(&self.found, &answer);
            }
            state.delta.explain(host, &self.found, &wanted, &answer, self.watch.as_ref());
            state.session = Some((session, answer));
        }
        Ok(())
    }

    fn begin<'a>(&'a self, claim: &Claim, _: Option<&Origin>) -> Result<Begin<'a>> {
        if claim.digest.is_some_and(|digest| self.state().delta.left_out.contains(&digest)) {
            return Ok(Begin::Held);
        }
        self.load()?.pack.begin(claim)
    }

    fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        let form = {
            let mut state = self.state();
            state.promised.note(manifest);
            if state.delta.has(&manifest.digest()) {
                return Ok(());
            }
            state.form
        };
        match form {
            Form::Universal => self.load()?.pack.put_manifest(manifest),
            Form::Relayed => Ok(()),
        }
    }

    /// After a relay only noted, so that `finish` knows what to ask for.
    fn publish(&self, name: Option<&Name>, root: &Manifest) -> Result<()> {
        let Some(name) = name else {
            return Err(Error::usage(format!("{}: an image needs a name there; give it with --as", self.host.name())));
        };
        if name.digest().is_some() && !self.found.keeps_digests() && self.is_named(root.digest()) {
            self.watch.say(&format!("{}: {} keeps tags only, not {name}", self.host.name(), self.found));
            return Ok(());
        }
        let name = self.in_full(name)?;
        self.runs(root)?;
        let loaded_as = {
            let mut state = self.state();
            if state.delta.is_current(&name, root.digest()) {
                return Ok(());
            }
            state.promised.note(root);
            state.promised.name(&name, root.digest());
            match state.form {
                Form::Relayed => return Ok(()),
                Form::Universal if rename::renames(&self.found, state.delta.one_name) => {
                    state.temporary.name(root.digest(), &self.mark)?
                }
                Form::Universal => name,
            }
        };
        self.load()?.pack.publish(Some(&loaded_as), root)
    }

    fn finish(&self) -> Result<Finish> {
        let Some(load) = self.now().get() else {
            if let Some((session, _)) = self.state().session.take() {
                session.close();
            }
            return Ok(Finish::Done);
        };
        let closed = load.pack.close();
        let ended = closed.and_then(|_| load.loading.end());
        let mut state = self.state();
        if self.found.loader == Loader::Custom {
            ended?;
            let host = self.host.name();
            self.watch.say(&format!("{host}: {} ended well; what it did with the images is not known", self.found));
            return Ok(Finish::Done);
        }
        let proved = ended.and_then(|ended| {
            for line in ended.said.lines().filter(|line| !line.trim().is_empty()) {
                self.watch.event(Event::Detail(&format!("{}: {}", self.host.name(), line.trim())));
            }
            self.prove(&state)
        });
        match proved {
            Ok(()) => Ok(Finish::Done),
            Err(error) => self.may_mend(&mut state, load, error),
        }
    }

    /// What a cut load brought waits for the next run, but not on a disk that is full.
    fn aborted(&self, _: &Error) {
        if self.now().get().is_some_and(|load| load.loading.is_full()) {
            self.unpin(&self.state());
        }
    }

    fn relay(&self) -> Option<Result<Box<dyn Write + Send + '_>>> {
        let relayed = self.load().and_then(|load| {
            self.state().form = Form::Relayed;
            load.pack.relay()
        });
        Some(relayed)
    }
}

impl Drop for EngineSink {
    fn drop(&mut self) {
        for load in self.loads.iter().filter_map(OnceLock::get) {
            load.loading.abandon();
        }
    }
}
