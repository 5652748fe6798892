//! The only place where a word of the command line becomes a source or a sink, with the options that say how.

mod backends;
pub(super) mod copy_options;
pub(super) mod engines;
pub(super) mod insecure;
pub(super) mod inspect_source;
pub(super) mod mirror_options;
pub(super) mod rate_limit;
pub(super) mod registry_access;
pub(super) mod selection;
pub(super) mod shared_source;
mod sinks;

use super::address::Place;
use super::context::Run;
use super::options::{
    DestinationRegistry, Hosts, Loading, Network, Pushing, Side, SourceEngine, SourceRegistry, WireName,
};
use crate::copy::{Naming, Options};
use crate::image::{Name, Reference};
use crate::progress::Event;
use crate::source::{Selector, Source, Store};
use crate::tarball::UnopenedArchive;
use crate::transport::archive;
use crate::transport::archive::Input;
use crate::transport::containerd::ContainerdStore;
use crate::transport::layout::LayoutStore;
use crate::transport::registry::mirrors;
use crate::transport::registry::mirrors::Mirror;
use crate::transport::registry::{Access, ForeignStore, Insecure, MirroredStore, Registry, RepositoryStore};
use crate::{Error, Result};
use clap::Args;
use rate_limit::{limited, limited_bytes, shared};
use registry_access::access;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use super::address::hint::hinted;
pub use backends::shelf;
pub use sinks::{InPlace, Written, engine_here, in_place, repository, sink, stdout_for_archive};

/// Where containerd keeps everything, unless told otherwise.
const CONTAINERD_ROOT: &str = "/var/lib/containerd";

/// Archives that are packed for the way at once, unless the user wants more: each takes 5 MiB of memory.
const PACKED_AT_ONCE: usize = 6;
/// There is another place to go on.
const RETRIES_OF_A_MIRROR: u32 = 1;

/// How a SRC is opened.
#[derive(Debug, Clone, Default, Args)]
pub struct SourceOptions {
    #[command(flatten)]
    registry: SourceRegistry,
    #[command(flatten)]
    engine: SourceEngine,
}

/// How a DST is opened.
#[derive(Debug, Clone, Default, Args)]
pub struct SinkOptions {
    #[command(flatten)]
    registry: DestinationRegistry,
    #[command(flatten)]
    pushing: Pushing,
    #[command(flatten)]
    loading: Loading,
}

impl SinkOptions {
    /// The same for so many destinations at once: to pack an archive for its way takes memory for each.
    pub fn for_company(&self, company: usize, run: &Run) -> SinkOptions {
        let mut into = self.clone();
        if company > PACKED_AT_ONCE && into.loading.wire == WireName::Auto {
            run.watch()
                .event(Event::Detail("so many archives at once are not packed for the way; --wire says otherwise"));
            into.loading.wire = WireName::None;
        }
        into
    }
}

impl SourceOptions {
    pub fn engine(&self) -> &SourceEngine {
        &self.engine
    }

    /// What the user says of insecure registries.
    pub fn insecure(&self) -> Option<bool> {
        self.registry.side().insecure
    }
}

/// What is the same for both.
#[derive(Debug, Clone, Args)]
pub struct NetworkOptions {
    #[command(flatten)]
    network: Network,
    #[command(flatten)]
    hosts: Hosts,
    /// As the verb was told with `--jobs`.
    #[arg(skip)]
    pub jobs: Option<u16>,
    /// What is read here goes out over the network, where its bytes are counted for `--limit-rate`.
    #[arg(skip)]
    pub onward: bool,
    /// Whether nondistributable layers that the source is without are fetched (`--foreign fetch`).
    #[arg(skip)]
    pub fetch_foreign: bool,
}

impl NetworkOptions {
    /// The ssh client, as it was asked for.
    pub fn ssh(&self) -> &str {
        self.hosts.ssh.as_deref().unwrap_or_default()
    }

    pub fn network(&self) -> &Network {
        &self.network
    }

    fn access(&self, side: &Side, run: &Run) -> Result<Access> {
        let access = access(side, &self.network)?;
        let limit = shared(self.network.limit_rate, run);
        // A line that is not to be filled needs no second connection for one blob.
        let most = if limit.is_some() { 1 } else { self.jobs.map_or(usize::MAX, usize::from) };
        Ok(Access { parallel_parts: access.parallel_parts.min(most), rate_limit: limit, ..access })
    }
}

/// A source, and which of its images the word means; all when empty.
pub struct Opened {
    pub source: Source,
    pub picks: Vec<Selector>,
    /// What the word itself calls an image that it picks by digest (`app@sha256:…`, `app:2@sha256:…`).
    pub name: Option<Name>,
}

impl Opened {
    /// What is copied, and how: `options` with the picks, and the word's own name where no other is given.
    pub fn job(self, options: Options) -> (Source, Options) {
        let naming = match (options.naming, self.name) {
            (Naming::Keep, Some(name)) => Naming::Names(vec![name]),
            (naming, _) => naming,
        };
        (self.source, Options { picks: self.picks, naming, ..options })
    }
}

/// Opens what `place` means as a SRC.
pub fn source(place: &Place, from: &SourceOptions, reach: &NetworkOptions, run: &Run) -> Result<Opened> {
    let UnopenedSource { ready, picks, name } = unread(place, from, reach, run)?;
    let source = match ready {
        OpenSource::Store(store) => Source::Store(store),
        OpenSource::UnopenedArchive(tape) => Source::Stream(tape.stream()),
    };
    Ok(Opened { source, picks, name })
}

/// A source of which nobody has read yet.
pub struct UnopenedSource {
    pub ready: OpenSource,
    pub picks: Vec<Selector>,
    pub name: Option<Name>,
}

/// As it is opened.
pub enum OpenSource {
    Store(Arc<dyn Store>),
    UnopenedArchive(UnopenedArchive),
}

pub fn unread(place: &Place, from: &SourceOptions, reach: &NetworkOptions, run: &Run) -> Result<UnopenedSource> {
    let archive = |input: Input| {
        Ok::<_, Error>(match archive::find(&input, run.watch())? {
            archive::Found::Store(store) => OpenSource::Store(store),
            archive::Found::UnopenedArchive(tape) => OpenSource::UnopenedArchive(tape),
        })
    };
    let mut name = None;
    let (ready, pick) = match place {
        Place::Registry(reference) => {
            let store = repository_source(reference, from, reach, run)?;
            let (pick, own) = picked(reference);
            name = own;
            (OpenSource::Store(store), pick)
        }
        Place::DockerArchive { file, pick } | Place::OciArchive { file, pick } => {
            (archive(Input::File(file.clone()))?, pick.clone())
        }
        Place::Oci { dir, pick } => (layout(dir, run)?, pick.clone()),
        Place::Containerd { pick } => (containerd(&from.engine)?, pick.clone()),
        Place::DockerDaemon { pick } => (OpenSource::UnopenedArchive(engines::docker_here(pick.as_ref(), run)?), None),
        Place::Stdio => (archive(stdin()?)?, None),
        Place::Path(path) if path.is_dir() => (layout(path, run)?, None),
        Place::Path(path) => (archive(Input::File(path.clone()))?, None),
        Place::Prefix(_) => return Err(Error::usage("a SRC that ends in / names no image; only a DST may end so")),
        Place::Ssh { host, pick } => engines::on_host(host, pick.as_ref(), from, reach, run)?,
    };
    // Where either end is on the network, its bytes are counted there.
    let rate = reach.network.limit_rate.filter(|_| !reach.onward && !place.is_remote());
    let ready = match ready {
        OpenSource::Store(store) if reach.fetch_foreign => {
            let access = reach.access(&from.registry.side(), run)?;
            OpenSource::Store(Arc::new(ForeignStore::new(limited(store, rate, run), access, &run.cancel)))
        }
        OpenSource::UnopenedArchive(_) if reach.fetch_foreign => {
            return Err(Error::usage(
                "--foreign fetch needs a source that can be read in any order; save it to a file",
            ));
        }
        OpenSource::Store(store) => OpenSource::Store(limited(store, rate, run)),
        OpenSource::UnopenedArchive(tape) => {
            OpenSource::UnopenedArchive(UnopenedArchive { bytes: limited_bytes(tape.bytes, rate, run), ..tape })
        }
    };
    Ok(UnopenedSource { ready, picks: pick.into_iter().collect(), name })
}

/// A repository, by way of its mirrors where it has some.
fn repository_source(
    reference: &Reference,
    from: &SourceOptions,
    reach: &NetworkOptions,
    run: &Run,
) -> Result<Arc<dyn Store>> {
    let registry = registry(&reference.host, &reference.repository, &from.registry.side(), reach, run)?;
    let home = registry.repository(&reference.repository);
    let mirrors = mirrors(reference, from, reach, run)?;
    Ok(match mirrors.is_empty() {
        true => Arc::new(home),
        false => Arc::new(MirroredStore::new(home, mirrors, run.watch(), run.cancel.clone())),
    })
}

/// Which image of its repository a reference means, and what it is called where it is meant by digest.
fn picked(reference: &Reference) -> (Option<Selector>, Option<Name>) {
    match &reference.digest {
        Some(digest) => (Some(Selector::Digest(*digest)), Some(Name::from(reference))),
        None => (reference.tag_or_latest().map(|tag| Selector::Name(tag.to_owned())), None),
    }
}

/// The same repository at the mirrors that are asked for, and at those that this host's engines are told of. They are
/// not shown the credentials given for the registry, and are left soon when they fail.
fn mirrors(
    reference: &Reference,
    from: &SourceOptions,
    reach: &NetworkOptions,
    run: &Run,
) -> Result<Vec<(RepositoryStore, bool)>> {
    let side = from.registry.side();
    let given = reach.network.mirrors.iter().map(|host| {
        let mirror = Mirror::parse(host, &reference.repository, side.insecure == Some(true));
        let mirror = mirror.map(|mirror| (mirror, Insecure::ByUser));
        mirror.ok_or_else(|| Error::usage(format!("--mirror {host:?} is not a registry's HOST[:PORT][/PATH]")))
    });
    let mut all = given.collect::<Result<Vec<(Mirror, Insecure)>>>()?;
    let configured = mirrors::configured(&reference.host, &reference.repository, Path::new("/"));
    all.extend(configured.into_iter().map(|mirror| (mirror, Insecure::ByFiles)));
    let mut stores = Vec::new();
    for (mirror, allowed) in all {
        let access = reach.access(&Side { ca: side.ca.clone(), ..Side::default() }, run)?;
        let insecure = if mirror.insecure { allowed } else { Insecure::No };
        let Mirror { root, namespace, .. } = mirror;
        let retries = access.retries.min(RETRIES_OF_A_MIRROR);
        let access = Access { insecure, retries, api_root: root, namespace, ..access };
        let registry = Registry::new(&mirror.host, access, run.watch(), run.cancel.clone())?;
        stores.push((registry.repository(&mirror.repository), mirror.resolves));
    }
    Ok(stores)
}

/// The registry at `host`, to reach `repository` there or what lies below it.
fn registry(host: &str, repository: &str, side: &Side, reach: &NetworkOptions, run: &Run) -> Result<Arc<Registry>> {
    Registry::new(host, access_to(host, repository, side, reach, run)?, run.watch(), run.cancel.clone())
}

/// How the registry at `host` is reached for `repository`, or for what lies below it.
fn access_to(host: &str, repository: &str, side: &Side, reach: &NetworkOptions, run: &Run) -> Result<Access> {
    let insecure = insecure::of(host, repository, side.insecure, run);
    Ok(Access { insecure, ..reach.access(side, run)? })
}

/// How the registries behind a mirror are reached.
pub fn upstream_access(from: &SourceOptions, reach: &NetworkOptions, run: &Run) -> Result<Access> {
    reach.access(&from.registry.side(), run)
}

fn layout(dir: &Path, run: &Run) -> Result<OpenSource> {
    let store = LayoutStore::open(dir)?;
    if !store.has_layout_file() {
        let dir = dir.display();
        run.watch().event(Event::Detail(&format!("{dir} has no file oci-layout; it is read as a layout all the same")));
    }
    Ok(OpenSource::Store(Arc::new(store)))
}

/// The namespace that is asked for, else the environment's for this host's directory, else every one.
fn containerd_place(options: &SourceEngine) -> (PathBuf, Option<String>) {
    let here = options.src_root.is_none();
    let root = options.src_root.as_deref().unwrap_or(Path::new(CONTAINERD_ROOT));
    let environment = || std::env::var("CONTAINERD_NAMESPACE").ok().filter(|namespace| here && !namespace.is_empty());
    (root.to_owned(), options.src_namespace.clone().or_else(environment))
}

fn containerd(options: &SourceEngine) -> Result<OpenSource> {
    let (root, namespace) = containerd_place(options);
    Ok(OpenSource::Store(Arc::new(ContainerdStore::open(&root, namespace.as_deref())?)))
}

fn stdin() -> Result<Input> {
    match io::stdin().is_terminal() {
        true => Err(Error::usage("standard input is a terminal; give an archive by a pipe, or name a file")),
        false => Ok(Input::Stdin),
    }
}

/// Makes sure that standard input is asked for one thing only.
pub fn stdin_once(src: &Place, from: &SourceOptions, into: &SinkOptions, hosts: Option<&Path>) -> Result<()> {
    let wanted = [
        *src == Place::Stdio,
        from.registry.side().password_stdin && matches!(src, Place::Registry(_)),
        into.registry.side().password_stdin,
        hosts == Some(Path::new("-")),
    ];
    match wanted.iter().filter(|wanted| **wanted).count() > 1 {
        true => Err(Error::usage(
            "standard input is wanted twice; give passwords in files (--src-password-file, --dst-password-file) or in \
             the environment",
        )),
        false => Ok(()),
    }
}
