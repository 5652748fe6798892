//! Opening addresses as sources, sinks and backends: the options of the command line become values for a transport.

mod backends;
pub(super) mod copy_options;
mod document_hosts;
pub(super) mod insecure;
pub(super) mod inspect_source;
pub(super) mod mirror_options;
pub(super) mod rate_limit;
pub(super) mod registry_access;
pub(super) mod selection;
pub(super) mod shared_source;
mod sinks;

use super::address::Address;
use super::context::CliRun;
use super::options::{
    DestinationRegistry, Hosts, LoadOptions, Network, PushOptions, RegistryOptions, SourceEngineOptions,
    SourceRegistry, WireName,
};
use crate::copy::Source;
use crate::copy::{Naming, Options};
use crate::image::Name;
use crate::progress::Event;
use crate::source::Selector;
use crate::tarball::UnopenedArchive;
use crate::transport::address::{AddressProfile, Deletable, InPlace, Listed, OpenSource, SelectedSource};
use crate::transport::engine::Engine;
use crate::transport::options::{Context, ReadOptions};
use crate::transport::registry::{Access, Credentials, ForeignStore, Insecure};
use crate::{Error, Result};
use clap::Args;
use rate_limit::{limited, limited_bytes, shared};
use registry_access::access;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use super::address::hint::with_hint;
pub use backends::backend;
pub use document_hosts::DocumentHosts;
pub use sinks::{Written, deletable_names, sink, stdout_for_archive};

/// The most archives that are compressed for a connection at once by default; each uses 5 MiB of memory.
const MAX_WIRE_COMPRESSIONS: usize = 6;

/// The buffer of a connection where many copies run at the same time.
const SMALL_BUFFER_BYTES: usize = 32 << 10;

/// The options of a SRC.
#[derive(Debug, Clone, Default, Args)]
pub struct SourceOptions {
    #[command(flatten)]
    registry: SourceRegistry,
    #[command(flatten)]
    engine: SourceEngineOptions,
}

/// The options of a DST.
#[derive(Debug, Clone, Default, Args)]
pub struct SinkOptions {
    #[command(flatten)]
    registry: DestinationRegistry,
    #[command(flatten)]
    push: PushOptions,
    #[command(flatten)]
    load: LoadOptions,
}

impl SinkOptions {
    /// The same for several destinations at once: compressing an archive for a connection uses memory for each.
    pub fn for_destinations(&self, count: usize, run: &CliRun) -> SinkOptions {
        let mut into = self.clone();
        if count > MAX_WIRE_COMPRESSIONS && into.load.wire == WireName::Auto {
            run.watch().event(Event::Detail(
                "with more than 6 destinations archives are sent uncompressed; use --wire to compress them",
            ));
            into.load.wire = WireName::None;
        }
        into
    }
}

impl SourceOptions {
    /// The options as a transport takes them.
    fn read_options<'a>(&'a self, network: &'a NetworkOptions, run: &'a CliRun) -> ReadOptions<'a> {
        let access =
            move |host: &str, repository: &str| access_to(host, repository, &self.registry.options(), network, run);
        ReadOptions {
            access: Box::new(access),
            mirrors: &network.common.mirrors,
            storage_root: self.engine.src_root.as_deref(),
            address: self.engine.src_address.as_deref(),
            namespace: self.engine.src_namespace.as_deref(),
            engine: self.engine.src_engine.map(Engine::from),
        }
    }

    /// `--src-insecure`
    pub fn insecure(&self) -> Option<bool> {
        self.registry.options().insecure
    }
}

/// The network options, for SRC and DST.
#[derive(Debug, Clone, Args)]
pub struct NetworkOptions {
    #[command(flatten)]
    common: Network,
    #[command(flatten)]
    hosts: Hosts,
    /// `--jobs`
    #[arg(skip)]
    pub jobs: Option<u16>,
    /// `--hub-reserve`
    #[arg(skip)]
    pub hub_reserve: Option<u64>,
    /// Many copies run at the same time: each connection gets smaller buffers.
    #[arg(skip)]
    pub many_copies: bool,
    /// Whether a destination is remote: then `--limit-rate` counts bytes there, not at the source.
    #[arg(skip)]
    pub to_network: bool,
    /// `--foreign fetch`
    #[arg(skip)]
    pub fetch_foreign: bool,
    /// The hosts of the document of `imgmv sync`.
    #[arg(skip)]
    pub documented: Arc<DocumentHosts>,
}

impl NetworkOptions {
    fn context(&self, run: &CliRun) -> Context {
        Context {
            watch: run.watch(),
            cancel: run.cancel.clone(),
            ssh: self.hosts.ssh.clone().unwrap_or_default(),
            timeout: Duration::from_secs(self.common.timeout),
            cache_dir: copy_options::cache_dir(),
            limit: shared(self.common.limit_rate, run),
            registries: run.registries.clone(),
        }
    }

    pub fn common(&self) -> &Network {
        &self.common
    }

    fn access(&self, side: &RegistryOptions, run: &CliRun) -> Result<Access> {
        let access = access(side, &self.common)?;
        let limit = shared(self.common.limit_rate, run);
        let max_requests = self.jobs.map_or(usize::MAX, usize::from);
        // A limited rate needs only one connection for a blob.
        let most = if limit.is_some() { 1 } else { max_requests };
        let parallel_ranges = access.parallel_ranges.min(most);
        let buffer_bytes = if self.many_copies { SMALL_BUFFER_BYTES } else { access.buffer_bytes };
        let hub_reserve = self.hub_reserve;
        Ok(Access { parallel_ranges, max_requests, rate_limit: limit, hub_reserve, buffer_bytes, ..access })
    }
}

/// The options of a verb that only reads SRC, or names its images.
#[derive(Debug, Args)]
pub struct SourceAccess {
    #[command(flatten)]
    from: SourceOptions,
    #[command(flatten)]
    network: NetworkOptions,
}

impl SourceAccess {
    /// Opens `address` as a SRC.
    pub fn source(&self, address: &dyn Address, run: &CliRun) -> Result<Opened> {
        source(address, &self.from, &self.network, run)
    }

    /// The names at `address`, if its transport lists them without reading images.
    pub fn list(&self, address: &dyn Address, run: &CliRun) -> Result<Option<Vec<Listed>>> {
        address.list(&self.from.read_options(&self.network, run), &self.network.context(run))
    }

    /// Opens `address` to delete its image, or only the name.
    pub fn deletable(&self, address: &dyn Address, run: &CliRun) -> Result<Deletable> {
        address.deletable(&self.from.read_options(&self.network, run), &self.network.context(run))
    }

    /// Opens `address` to give its images other names.
    pub fn in_place(&self, address: &dyn Address, run: &CliRun) -> Result<InPlace> {
        address.in_place(&self.from.read_options(&self.network, run), &self.network.context(run))
    }
}

/// An open source, and the images in it that the address selects; all when empty.
pub struct Opened {
    pub source: Source,
    pub selectors: Vec<Selector>,
    /// The address's own name for an image that it selects by digest.
    pub name: Option<Name>,
}

impl Opened {
    /// The source and the options of its copy: `options` with the selectors, and the address's own name as default.
    pub fn job(self, options: Options) -> (Source, Options) {
        let naming = match (options.naming, self.name) {
            (Naming::Keep, Some(name)) => Naming::Names(vec![name]),
            (naming, _) => naming,
        };
        (self.source, Options { selectors: self.selectors, naming, ..options })
    }
}

/// Opens `address` as a SRC.
pub fn source(address: &dyn Address, from: &SourceOptions, network: &NetworkOptions, run: &CliRun) -> Result<Opened> {
    let SelectedSource { source, selector, name } = unread(address, from, network, run)?;
    let source = match source {
        OpenSource::Store(store) => Source::Store(store),
        OpenSource::UnopenedArchive(archive) => Source::Stream(Box::new(archive.stream())),
    };
    Ok(Opened { source, selectors: selector.into_iter().collect(), name })
}

/// Opens `address` as a SRC, but reads nothing of an archive that is read once.
fn unread(
    address: &dyn Address,
    from: &SourceOptions,
    network: &NetworkOptions,
    run: &CliRun,
) -> Result<SelectedSource> {
    let opened = address.source(&from.read_options(network, run), &network.context(run))?;
    // Where either end is on the network, its bytes are counted there.
    let rate = network.common.limit_rate.filter(|_| !network.to_network && !address.profile().is_remote);
    let source = match opened.source {
        OpenSource::Store(store) if network.fetch_foreign => {
            let access = upstream_access(from, network, run)?;
            OpenSource::Store(Arc::new(ForeignStore::new(limited(store, rate, run), access, &run.cancel)))
        }
        OpenSource::UnopenedArchive(_) if network.fetch_foreign => {
            return Err(Error::usage(
                "--foreign fetch needs a source that can be read in any order; save the archive to a file first",
            ));
        }
        OpenSource::Store(store) => OpenSource::Store(limited(store, rate, run)),
        OpenSource::UnopenedArchive(archive) => {
            let bytes = limited_bytes(archive.bytes, rate, run);
            OpenSource::UnopenedArchive(UnopenedArchive { bytes, ..archive })
        }
    };
    Ok(SelectedSource { source, ..opened })
}

/// The access to the registry at `host`, for `repository` or for all below a path.
fn access_to(
    host: &str,
    repository: &str,
    side: &RegistryOptions,
    network: &NetworkOptions,
    run: &CliRun,
) -> Result<Access> {
    let is_insecure = side.insecure.is_none() && network.documented.is_insecure(host);
    let insecure = match is_insecure {
        true => Insecure::ByDocument,
        false => insecure::decide(host, repository, side.insecure, run),
    };
    let access = network.access(side, run)?;
    let login = network.documented.credentials(host, repository).filter(|_| access.credentials == Credentials::Stored);
    let credentials = login.unwrap_or_else(|| access.credentials.clone());
    Ok(Access { insecure, credentials, ..access })
}

/// The access to any other registry by the options of the source.
pub fn upstream_access(from: &SourceOptions, network: &NetworkOptions, run: &CliRun) -> Result<Access> {
    network.access(&from.registry.options(), run)
}

/// Fails if standard input is used for two things.
pub fn stdin_once(src: &dyn Address, from: &SourceOptions, into: &SinkOptions, hosts: Option<&Path>) -> Result<()> {
    let AddressProfile { is_stdio, is_repository, .. } = src.profile();
    let uses = [
        is_stdio,
        from.registry.options().password_stdin && is_repository,
        into.registry.options().password_stdin,
        hosts == Some(Path::new("-")),
    ];
    match uses.iter().filter(|used| **used).count() > 1 {
        true => Err(Error::usage(
            "standard input is wanted twice; give passwords in files (--src-password-file, --dst-password-file) or in \
             the environment",
        )),
        false => Ok(()),
    }
}
