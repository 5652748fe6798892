//! An engine as a destination: asked what it holds, sent the rest as the universal archive into its load command's
//! standard input, in one pass, and then asked for the images.

use super::{
    found::{Found, Loader},
    held::Wanted,
    load::{Input, Loading},
    promised::Promised,
    proof,
    scripts::{self, Mark},
    session::{Answer, Session},
    settle::{self, Temporary},
    wire::{Packed, Wire},
};
use crate::{
    archive::{Out, Pack},
    cancel::Cancel,
    error::{Error, Result},
    image::{Coding, Descriptor, Digest, Manifest, Name, layer_coding},
    plan::Image,
    progress::{Event, Watch},
    remote::Host,
    sink::{Begin, Finish, Order, Sink, Takes},
    source::{Claim, Origin, Store},
};
use std::{
    collections::HashSet,
    io::Write,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Loads images into the engine that was found on a host.
pub struct EngineSink {
    host: Arc<dyn Host>,
    found: Found,
    mark: Mark,
    wire: Option<Wire>,
    /// A delta, and everything after one that did not verify.
    loads: [OnceLock<Load>; 2],
    /// Which of them.
    attempt: AtomicUsize,
    state: Mutex<State>,
    watch: Arc<dyn Watch>,
    cancel: Cancel,
}

struct Load {
    pack: Pack,
    loading: Arc<Loading>,
}

#[derive(Default)]
struct State {
    /// Asked, and waiting for the archive.
    session: Option<(Session, Answer)>,
    asked: bool,
    /// Whether what goes is packed already, every layer of it.
    all_packed: bool,
    left_out: HashSet<Digest>,
    /// What is there already: names with what they point at, and manifests that no other image needs.
    current: HashSet<(Name, Digest)>,
    unneeded: HashSet<Digest>,
    promised: Promised,
    temporary: Temporary,
    form: Form,
    /// Who is asked for images, and names them: ctr where it lies beside nerdctl, since it knows whether one is whole.
    clerk: Option<Found>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Form {
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
        let (mark, wire, cancel) = (Mark::new(), Some(Wire::Plain), cancel.clone());
        EngineSink { host, found, mark, wire, loads, attempt, state, watch, cancel }
    }

    /// How the archive is packed for the way; `None`: by what the host can unpack, what the images consist of, and how
    /// fast the line is.
    pub fn packed(mut self, wire: Option<Wire>) -> EngineSink {
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
        let pack = Pack::new(Out::Pipe(out), self.host.name(), self.found.platform.clone());
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
        state.clerk = answer.ctr.as_ref().filter(|_| answer.why.is_none()).map(|path| self.found.by_ctr(path));
        let wire = self.choose(&answer, state.all_packed)?;
        if wire != Wire::Plain {
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

    fn choose(&self, answer: &Answer, all_packed: bool) -> Result<Wire> {
        let host = self.host.name();
        match self.wire {
            Some(wire) if wire != Wire::Plain && !answer.undo.contains(&wire) => Err(Error::far_side(format!(
                "{host}: there is no {} there to unpack what comes; use --wire auto",
                wire.name()
            ))),
            Some(wire) => Ok(wire),
            None if all_packed => Ok(Wire::Plain),
            None => Ok([Wire::Zstd, Wire::Gzip].into_iter().find(|w| answer.undo.contains(w)).unwrap_or(Wire::Plain)),
        }
    }

    /// `name` as engines keep it.
    fn in_full(&self, name: &Name) -> Result<Name> {
        let reference = name.reference().filter(|reference| reference.tag.is_some() && reference.digest.is_none());
        reference.as_ref().map(Name::from).ok_or_else(|| {
            let host = self.host.name();
            Error::usage(format!("{host}: an engine keeps no image under {name}; give it REPO:TAG with --as"))
        })
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

    fn note_current(&self, state: &mut State, images: &[Image], wanted: &Wanted, answer: &Answer) -> HashSet<Digest> {
        let there: HashSet<(Name, Digest)> = wanted
            .current(&self.found, answer)
            .into_iter()
            .filter_map(|one| Some((one.name.clone(), one.root?)))
            .collect();
        let is_there = |image: &&Image| {
            let root = image.root().digest();
            let known = |name: &Name| self.in_full(name).is_ok_and(|name| there.contains(&(name, root)));
            !image.names.is_empty() && image.names.iter().all(known)
        };
        let (current, others): (Vec<&Image>, Vec<&Image>) = images.iter().partition(is_there);
        let needed: HashSet<Digest> = others.iter().flat_map(|image| &image.tree).map(Manifest::digest).collect();
        let manifests = current.iter().flat_map(|image| &image.tree).map(Manifest::digest);
        state.unneeded = manifests.filter(|digest| !needed.contains(digest)).collect();
        let root = |image: &&Image| image.root().digest();
        let roots: HashSet<Digest> = current.iter().map(root).collect();
        state.current = there.into_iter().filter(|(_, root)| roots.contains(root)).collect();
        let sent: HashSet<Digest> = others.iter().flat_map(|image| image.blobs()).map(|blob| blob.digest).collect();
        let all = current.iter().flat_map(|image| image.blobs()).map(|blob| blob.digest);
        all.filter(|digest| !sent.contains(digest)).collect()
    }

    /// Says why layers go that may be there.
    fn explain(&self, wanted: &Wanted, answer: &Answer, held: &HashSet<Digest>) {
        let host = self.host.name();
        if let Some(why) = &answer.why {
            let why = match (why.as_str(), self.found.loader) {
                ("no-ctr", _) => "there is no ctr there to ask containerd for it",
                ("denied", Loader::Podman) => "its list of layers may not be read",
                ("denied", _) => "containerd may not be asked for it (root may)",
                ("untold", _) => "this docker does not say which containerd it uses",
                ("elsewhere", _) => "the engine runs on yet another host",
                ("no-awk", _) => "there is no awk there to look it up with",
                _ => "it cannot be asked",
            };
            self.watch.say(&format!("{host}: which layers are there is not known, {why}; every layer goes"));
        }
        match wanted.only_unpacked(answer, held) {
            0 => {}
            n => self.watch.say(&format!(
                "{host}: {n} of the layers are there unpacked only (containerd discards packed layers where it is set \
                 to, or has them in another packing); they go"
            )),
        }
        if answer.pinned {
            self.watch.event(Event::Detail(&format!("{host}: {} layers are there, pinned meanwhile", held.len())));
        }
    }

    /// What the load left is what was promised, under its names.
    fn prove(&self, state: &State) -> Result<()> {
        let mut expected = state.promised.expected(&self.found);
        let clerk = self.clerk(state);
        if state.form == Form::Relayed {
            // The engine made the manifests; podman a config of its own, too.
            expected.iter_mut().for_each(|one| one.root = None);
            if self.found.loader == Loader::Podman {
                expected.iter_mut().for_each(|one| one.config = None);
            }
        }
        if !state.temporary.is_empty() {
            return state.temporary.settle(self.host.as_ref(), clerk, &expected);
        }
        proof::verify(self.host.as_ref(), clerk, &expected)
    }

    fn clerk<'s>(&'s self, state: &'s State) -> &'s Found {
        state.clerk.as_ref().unwrap_or(&self.found)
    }

    /// Why a delta failed in a way that sending everything may mend; else the error.
    fn may_mend(&self, state: &mut State, load: &Load, error: Error) -> Result<Finish> {
        let first = self.attempt.load(Ordering::SeqCst) == 0;
        let hopeless = load.loading.is_hopeless() || self.cancel.raised();
        if !load.loading.is_hopeless() {
            state.temporary.remove(self.host.as_ref(), self.clerk(state));
        }
        if state.left_out.is_empty() || !first || hopeless {
            return Err(error);
        }
        self.attempt.store(1, Ordering::SeqCst);
        *state = State { asked: true, ..State::default() };
        Ok(Finish::SendAll(format!("{error} (layers that the host held were not sent)")))
    }
}

impl Sink for EngineSink {
    fn takes(&self) -> Takes {
        Takes {
            shape: self.found.shape(),
            order: Order::Single,
            compress: None,
            refuses: self.found.refuses(),
            unnamed_blobs: false,
            nameless: false,
        }
    }

    fn missing(&self, images: &[Image], blobs: Vec<Descriptor>, source: &dyn Store) -> Result<Vec<Descriptor>> {
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
        let unneeded = self.note_current(&mut state, images, &wanted, &answer);
        let held = wanted.held(&self.found, &answer);
        let lacking: Vec<Descriptor> =
            blobs.into_iter().filter(|blob| !held.contains(&blob.digest) && !unneeded.contains(&blob.digest)).collect();
        if !lacking.is_empty() {
            self.explain(&wanted, &answer, &held);
        }
        let raw = |image: &Image| image.blobs().any(|blob| layer_coding(&blob.media_type) == Some(Coding::Raw));
        state.all_packed = !images.iter().any(raw) && self.found.refuses().is_empty();
        state.left_out = held;
        state.session = Some((session, answer));
        Ok(lacking)
    }

    fn begin<'a>(&'a self, claim: &Claim, _: Option<&Origin>) -> Result<Begin<'a>> {
        self.load()?.pack.begin(claim)
    }

    fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        let form = {
            let mut state = self.state();
            state.promised.note(manifest);
            if state.unneeded.contains(&manifest.digest()) {
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
        let name = self.in_full(name)?;
        let loaded_as = {
            let mut state = self.state();
            if state.current.contains(&(name.clone(), root.digest())) {
                return Ok(());
            }
            state.promised.note(root);
            state.promised.name(&name, root.digest());
            match state.form {
                Form::Relayed => return Ok(()),
                Form::Universal if settle::names_early(&self.found) => {
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
