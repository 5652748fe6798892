//! An engine as a destination: the universal archive into its load command's standard input, in one pass, then the
//! proof that the images are there.

use super::{
    found::{Found, Loader},
    load::{Input, Loading},
    proof::{self, Expected},
};
use crate::{
    archive::{Out, Pack},
    cancel::Cancel,
    error::{Error, Result},
    image::{Descriptor, Digest, Manifest, Name},
    plan::Image,
    progress::{Event, Watch},
    remote::Host,
    sink::{Begin, Finish, Order, Sink, Takes},
    source::{Claim, Origin, Store},
};
use std::{
    collections::HashMap,
    io::Write,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
};

/// Loads images into the engine that was found on a host. Nothing runs there before the first byte is at hand.
pub struct EngineSink {
    host: Arc<dyn Host>,
    found: Found,
    load: OnceLock<Load>,
    promised: Mutex<Promised>,
    watch: Arc<dyn Watch>,
    cancel: Cancel,
}

struct Load {
    pack: Pack,
    loading: Arc<Loading>,
}

/// What the far side is to have in the end.
#[derive(Default)]
struct Promised {
    manifests: HashMap<Digest, Kept>,
    names: Vec<(Name, Digest)>,
    form: Form,
}

/// A manifest without its bytes.
struct Kept {
    children: Vec<Descriptor>,
    config: Option<Digest>,
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
    pub fn new(host: Arc<dyn Host>, found: Found, watch: Arc<dyn Watch>, cancel: &Cancel) -> EngineSink {
        watch.say(&format!("{}: loading into {found}", host.name()));
        let load = OnceLock::new();
        EngineSink { host, found, load, promised: Mutex::default(), watch, cancel: cancel.clone() }
    }

    /// The load command, started when it is first wanted.
    fn load(&self) -> Result<&Load> {
        // Held while starting, so that it is started once.
        let _promised = self.promised();
        if let Some(load) = self.load.get() {
            return Ok(load);
        }
        let (loading, input): (Arc<Loading>, Input) =
            Loading::start(self.host.as_ref(), &self.found.load(), &self.cancel)?;
        let pack = Pack::new(Out::Pipe(Box::new(input)), self.host.name(), self.found.platform.clone());
        Ok(self.load.get_or_init(|| Load { pack, loading }))
    }

    fn promised(&self) -> MutexGuard<'_, Promised> {
        self.promised.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// `name` as engines keep it.
    fn in_full(&self, name: &Name) -> Result<Name> {
        let reference = name.reference().filter(|reference| reference.tag.is_some() && reference.digest.is_none());
        reference.as_ref().map(Name::from).ok_or_else(|| {
            let host = self.host.name();
            Error::usage(format!("{host}: an engine keeps no image under {name}; give it REPO:TAG with --as"))
        })
    }

    fn expected(&self) -> Vec<Expected> {
        let promised = self.promised();
        let expected = |(name, root): &(Name, Digest)| Expected {
            name: name.clone(),
            root: (promised.form == Form::Universal).then_some(*root),
            config: match (promised.form, self.found.loader) {
                // podman makes a config of its own then.
                (Form::Relayed, Loader::Podman) => None,
                _ => promised.config(root, &self.found),
            },
        };
        promised.names.iter().map(expected).collect()
    }
}

impl Promised {
    fn note(&mut self, manifest: &Manifest) {
        let kept =
            Kept { children: manifest.children().to_vec(), config: manifest.config().map(|config| config.digest) };
        self.manifests.insert(manifest.digest(), kept);
    }

    /// The config of the image that the far side's platform takes of `root`.
    fn config(&self, root: &Digest, found: &Found) -> Option<Digest> {
        let kept = self.manifests.get(root)?;
        if kept.children.is_empty() {
            return kept.config;
        }
        let sent = |child: &&Descriptor| self.manifests.contains_key(&child.digest);
        let here: Vec<&Descriptor> = kept.children.iter().filter(sent).collect();
        let best = found.platform.best(here.iter().map(|child| child.platform.as_ref()))?;
        self.manifests.get(&here[best].digest)?.config
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

    /// All of them, once the names are known to be fit: an engine would say so only after the last byte.
    fn missing(&self, images: &[Image], blobs: Vec<Descriptor>, _: &dyn Store) -> Result<Vec<Descriptor>> {
        for name in images.iter().flat_map(|image| &image.names) {
            self.in_full(name)?;
        }
        Ok(blobs)
    }

    fn begin<'a>(&'a self, claim: &Claim, _: Option<&Origin>) -> Result<Begin<'a>> {
        self.load()?.pack.begin(claim)
    }

    fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        let form = {
            let mut promised = self.promised();
            promised.note(manifest);
            promised.form
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
        let form = {
            let mut promised = self.promised();
            promised.note(root);
            promised.names.retain(|(other, _)| *other != name);
            promised.names.push((name.clone(), root.digest()));
            promised.form
        };
        match form {
            Form::Universal => self.load()?.pack.publish(Some(&name), root),
            Form::Relayed => Ok(()),
        }
    }

    fn finish(&self) -> Result<Finish> {
        let Some(load) = self.load.get() else {
            return Ok(Finish::Done);
        };
        load.pack.close()?;
        let ended = load.loading.end()?;
        for line in ended.said.lines().filter(|line| !line.trim().is_empty()) {
            self.watch.event(Event::Detail(&format!("{}: {}", self.host.name(), line.trim())));
        }
        let expected = self.expected();
        if self.found.loader == Loader::Custom {
            let host = self.host.name();
            self.watch.say(&format!("{host}: {} ended well; what it did with the images is not known", self.found));
            return Ok(Finish::Done);
        }
        proof::verify(self.host.as_ref(), &self.found, &expected)?;
        Ok(Finish::Done)
    }

    fn relay(&self) -> Option<Result<Box<dyn Write + Send + '_>>> {
        let relayed = self.load().and_then(|load| {
            self.promised().form = Form::Relayed;
            load.pack.relay()
        });
        Some(relayed)
    }
}

impl Drop for EngineSink {
    fn drop(&mut self) {
        if let Some(load) = self.load.get() {
            load.loading.abandon();
        }
    }
}
