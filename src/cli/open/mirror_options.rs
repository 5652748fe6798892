//! The options of `imgmv serve` for a mirror of other registries, its cache and its peers.

use super::NetworkOptions;
use super::insecure;
use crate::cancel::Cancel;
use crate::cli::address;
use crate::cli::context::CliRun;
use crate::cli::open;
use crate::cli::options::Size;
use crate::cli::vm_hosts;
use crate::cli::vm_hosts::{Environment, VirtualMachine};
use crate::disk::PARTIAL_LIFETIME;
use crate::progress::Watch;
use crate::serve::access_log::Metrics;
use crate::serve::backend::catalog::Backend;
use crate::serve::mirror::client_config;
use crate::serve::mirror::client_config::{Client, ServerUrl};
use crate::serve::{
    CacheBudget, Caches, CredentialSharing, Endpoint, MirrorBackend, MirrorCache, MirrorMode, Peers, Pools, Upstream,
};
use crate::transport::layout::LayoutCache;
use crate::transport::registry::mirrors;
use crate::transport::registry::mirrors::MirrorServer;
use crate::transport::registry::{Access, Credentials, Insecure};
use crate::{Error, Result};
use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum};
use serde_json::json;
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The subdirectory of the cache for content that needed credentials.
const PRIVATE_DIR: &str = "private";
/// Time for downloads to stop when the server ends.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
#[command(next_help_heading = "Mirror, cache and peers")]
pub struct MirrorOptions {
    /// Mirror the registry HOST: ask it for each tag, and store its blobs and manifests in --cache (repeatable, or
    /// separated by commas). HOST=ENDPOINT reads the images of HOST from ENDPOINT. With several endpoints for one HOST,
    /// imgmv uses the first that has the content; the last one is the registry itself, whose error counts
    #[arg(long = "proxy", value_name = "HOST[=ENDPOINT]", value_delimiter = ',', env = "IMGMV_PROXY")]
    pub mirrored_registries: Vec<String>,
    /// OCI layout that stores pulled blobs and manifests. Content that needed credentials is stored in DIR/private
    #[arg(long, value_name = "oci:DIR", env = "IMGMV_CACHE")]
    cache: Option<OsString>,
    /// Maximum size of the cache, for example 50G (K, M and G are powers of 1024). The least recently used content is
    /// removed first
    #[arg(long, value_name = "SIZE", env = "IMGMV_CACHE_SIZE", requires = "cache")]
    cache_size: Option<Size>,
    /// Also serve images that need credentials upstream to clients without credentials
    #[arg(long, env = "IMGMV_SHARE_PRIVATE", value_parser = FalseyValueParser::new(), requires = "mirrored_registries")]
    share_private: bool,
    /// Ask the server at URL for missing blobs and manifests, by digest, before upstream (repeatable): another imgmv
    /// serve, or any registry. A host name in http://NAME stands for all of its addresses
    #[arg(long = "peer", value_name = "URL", value_delimiter = ',', env = "IMGMV_PEER")]
    peers: Vec<String>,
    /// Skip a peer that does not start to answer within SECONDS, or that cannot be connected to within a quarter of
    /// SECONDS
    #[arg(long, value_name = "SECONDS", default_value = "2", env = "IMGMV_PEER_TIMEOUT", value_parser = seconds)]
    peer_timeout: Duration,
    /// Print the settings that make CLIENT ask this server first, and exit
    #[arg(long, value_name = "CLIENT", env = "IMGMV_PRINT_MIRROR_CONFIG")]
    pub print_mirror_config: Option<ClientName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClientName {
    /// /etc/containerd/certs.d/HOST/hosts.toml
    Containerd,
    /// /etc/docker/daemon.json
    Docker,
    /// /etc/containers/registries.conf.d
    Podman,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let error = || "expected seconds from 0.1 to 60, for example 2 or 0.5".to_owned();
    let seconds: f64 = text.parse().map_err(|_| error())?;
    match (0.1..=60.0).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err(error()),
    }
}

/// A mirror in operation.
pub struct Mirrored {
    pub backend: Arc<dyn Backend>,
    pools: Pools,
    cancel: Cancel,
}

impl Mirrored {
    /// Stops downloads, so that a later run can resume them.
    pub fn stop(&self) {
        self.cancel.raise();
        self.pools.wait_idle(STOP_TIMEOUT);
    }
}

impl MirrorOptions {
    /// Checks that the options fit together.
    pub fn check(&self) -> Result<()> {
        match (self.cache.is_some(), self.mirrored_registries.is_empty(), self.peers.is_empty()) {
            (true, true, true) => {
                Err(Error::usage("--cache needs registries or peers to cache; add --proxy HOST or --peer URL"))
            }
            (false, false, _) => Err(Error::usage("--proxy needs a cache; add --cache oci:DIR")),
            _ => Ok(()),
        }
    }

    /// Starts the mirror, if --proxy or --peer is given.
    pub fn start(
        &self,
        mode: MirrorMode,
        metrics: &Arc<Metrics>,
        from: &open::SourceOptions,
        network: &NetworkOptions,
        run: &CliRun,
    ) -> Result<Option<Mirrored>> {
        if self.mirrored_registries.is_empty() && self.peers.is_empty() {
            return Ok(None);
        }
        // Not the cancel flag of the run: active requests may finish after a signal to stop.
        let cancel = Cancel::default();
        let access = open::upstream_access(from, network, run)?;
        let upstreams = self.upstreams(&access, from, network, &cancel, run)?;
        let pools = Pools::default();
        let caches = self.cache.as_ref().map(|word| self.caches(word, &pools, metrics, &cancel, run)).transpose()?;
        let peers = Peers::new(&self.peers, self.peer_timeout, &access, run.watch(), &cancel)?;
        let share = if self.share_private { CredentialSharing::Everyone } else { CredentialSharing::Users };
        let backend = Arc::new(MirrorBackend::new(
            upstreams,
            caches,
            peers,
            (share, mode),
            metrics.clone(),
            run.watch(),
            &cancel,
        ));
        Ok(Some(Mirrored { backend, pools, cancel }))
    }

    /// The mirrored registries, each with the endpoints to ask in order.
    fn endpoints(&self, first_endpoints: &[String]) -> Result<Vec<(String, Vec<String>)>> {
        let mut all: Vec<(String, Vec<String>)> = Vec::new();
        for word in &self.mirrored_registries {
            let (host, endpoint) = word.split_once('=').unwrap_or((word, word));
            let host = host.to_ascii_lowercase();
            match all.iter_mut().find(|(known, _)| *known == host) {
                Some((_, endpoints)) => endpoints.push(endpoint.to_owned()),
                None => all.push((host, vec![endpoint.to_owned()])),
            }
        }
        match (&mut all[..], first_endpoints) {
            (_, []) => {}
            ([(_, endpoints)], first) => drop(endpoints.splice(0..0, first.iter().cloned())),
            _ => {
                return Err(Error::usage(
                    "--mirror is ambiguous with several registries; use --proxy HOST=MIRROR,HOST for each",
                ));
            }
        }
        Ok(all)
    }

    fn upstreams(
        &self,
        access: &Access,
        from: &open::SourceOptions,
        network: &NetworkOptions,
        cancel: &Cancel,
        run: &CliRun,
    ) -> Result<Vec<Upstream>> {
        let all = self.endpoints(&network.common().mirrors)?;
        let hosts = all.iter().map(|(_, endpoints)| endpoints.len()).sum::<usize>();
        if access.credentials != Credentials::Stored && hosts > 1 {
            return Err(Error::usage(
                "--src-creds would be sent to every host of --proxy; store credentials for each with imgmv login",
            ));
        }
        let endpoint = |text: &String| {
            let error = || Error::usage(format!("--proxy {text:?}: not a registry; expected HOST[:PORT]"));
            let MirrorServer { host, insecure } =
                mirrors::parse_server(text, access.insecure.is_allowed()).ok_or_else(error)?;
            let insecure = if insecure { Insecure::ByUser } else { insecure::decide(&host, "", from.insecure(), run) };
            Ok(Endpoint { host, access: Access { insecure, ..access.clone() } })
        };
        let upstream = |(host, endpoints): &(String, Vec<String>)| {
            let endpoints = endpoints.iter().map(endpoint).collect::<Result<Vec<Endpoint>>>()?;
            Upstream::new(host, endpoints, run.watch(), cancel)
        };
        all.iter().map(upstream).collect()
    }

    fn caches(
        &self,
        word: &OsString,
        pools: &Pools,
        metrics: &Arc<Metrics>,
        cancel: &Cancel,
        run: &CliRun,
    ) -> Result<Caches> {
        let address = address::parse(word)?;
        let dir = address
            .layout()
            .ok_or_else(|| Error::usage(format!("--cache {word:?}: not an OCI layout; expected oci:DIR")))?;
        let open = |dir: &Path| -> Result<Arc<LayoutCache>> {
            let layout = LayoutCache::open(dir, run.watch(), cancel)?;
            layout.remove_expired_partials(PARTIAL_LIFETIME);
            Ok(Arc::new(layout))
        };
        let public = open(dir)?;
        let private = open(&create_private(dir)?)?;
        let limit = self.cache_size.map(|size| size.0);
        let budget =
            Arc::new(CacheBudget::new(limit, vec![public.clone(), private.clone()], metrics.clone(), run.watch()));
        let cache = |layout| Arc::new(MirrorCache::new(layout, budget.clone(), pools.clone(), cancel));
        Ok(Caches { public: cache(public), private: cache(private) })
    }

    /// Prints the settings for `client` of a server on `listen`.
    pub fn print(&self, client: ClientName, listen: SocketAddr, tls: bool, run: &CliRun) -> Result<()> {
        if listen.port() == 0 {
            return Err(Error::usage("--print-mirror-config needs a fixed port; give one with --listen"));
        }
        let machine = virtual_machines(listen).into_iter().next();
        let host = match &machine {
            Some(machine) => format!("{}:{}", machine.host, listen.port()),
            None => client_config::reachable_socket_address(listen).to_string(),
        };
        let registries: Vec<String> = self.endpoints(&[])?.into_iter().map(|(host, _)| host).collect();
        let mut settings = client_config::settings(client.into(), &registries, &ServerUrl { host, tls })?;
        if let Some(machine) = machine {
            let (name, host) = (machine.name, machine.host);
            settings.hints.push(format!("{host} is this host inside {name}; clients outside of {name} use {listen}"));
        }
        if run.answer.json() {
            let files = settings.files.iter().map(|(path, text)| json!({ "path": path, "content": text }));
            let files: Vec<_> = files.collect();
            let version = crate::cli::output::answer::VERSION;
            return run.answer.document(&json!({ "version": version, "files": files, "hints": settings.hints }));
        }
        let mut text = String::new();
        for (path, content) in &settings.files {
            match client {
                // JSON has no comments.
                ClientName::Docker => run.screen.say(path),
                _ => text += &format!("# {path}\n"),
            }
            text += content;
            text += if client == ClientName::Docker { "" } else { "\n" };
        }
        settings.hints.iter().for_each(|hint| run.screen.say(hint));
        run.answer.bytes(text.as_bytes())
    }
}

/// Prints how virtual machines reach a server that listens on loopback.
pub fn print_vm_urls(listen: SocketAddr, scheme: &str, run: &CliRun) {
    for machine in virtual_machines(listen) {
        let (name, host, port) = (machine.name, machine.host, listen.port());
        run.screen.say(&format!(
            "from inside {name}: {scheme}://{host}:{port} (there, 127.0.0.1 is the virtual machine itself)"
        ));
    }
}

fn virtual_machines(listen: SocketAddr) -> Vec<VirtualMachine> {
    match listen.ip().is_loopback() {
        true => vm_hosts::detect(&Environment::of_process()),
        false => Vec::new(),
    }
}

/// Creates the directory for content that needed credentials. Only this user may read it.
fn create_private(dir: &Path) -> Result<PathBuf> {
    let private = dir.join(PRIVATE_DIR);
    match DirBuilder::new().mode(0o700).create(&private) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::writing(private.display(), error))
        }
        _ => Ok(private),
    }
}

impl From<ClientName> for Client {
    fn from(name: ClientName) -> Client {
        match name {
            ClientName::Containerd => Client::Containerd,
            ClientName::Docker => Client::Docker,
            ClientName::Podman => Client::Podman,
        }
    }
}
