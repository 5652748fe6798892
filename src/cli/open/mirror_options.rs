//! The options of `imgmv serve` that make it a mirror of other registries, a cache, and one of several peers.

use super::NetworkOptions;
use super::insecure;
use crate::cancel::Cancel;
use crate::cli::address;
use crate::cli::context::Run;
use crate::cli::open;
use crate::cli::options::Rate;
use crate::cli::vm_hosts;
use crate::cli::vm_hosts::{Machine, Surroundings};
use crate::progress::Watch;
use crate::serve::access_log::Metrics;
use crate::serve::backend::catalog::Backend;
use crate::serve::mirror::client_config;
use crate::serve::mirror::client_config::{Client, Reached};
use crate::serve::{Beside, Budget, Cache, Caches, Endpoint, MirrorBackend, Peers, Pools, Share, Upstream};
use crate::transport::layout::LayoutCache;
use crate::transport::registry::mirrors;
use crate::transport::registry::mirrors::Server;
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

/// In the cache's directory: what needed credentials.
const PRIVATE: &str = "private";
/// What a fill that was cut has left is kept for so long.
const CUT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// For fills to leave things in order when the server ends.
const END: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
#[command(next_help_heading = "Mirror, cache and peers")]
pub struct Mirroring {
    /// Stand for the registry HOST: ask it for tags each time, and keep what it gives in --cache (repeatable; several
    /// parted by commas). HOST=ENDPOINT asks another host for its images; of several for one HOST the first that has it
    /// gives it, and the last one's word counts
    #[arg(long = "proxy", value_name = "HOST[=ENDPOINT]", value_delimiter = ',', env = "IMGMV_PROXY")]
    pub proxies: Vec<String>,
    /// The layout that pulled blobs and manifests are kept in (oci:DIR); what needed credentials lies in DIR/private
    #[arg(long, value_name = "oci:DIR", env = "IMGMV_CACHE")]
    cache: Option<OsString>,
    /// Keep no more than SIZE bytes there; what was not asked for the longest goes (K, M and G are powers of 1024: 50G)
    #[arg(long, value_name = "SIZE", env = "IMGMV_CACHE_SIZE", requires = "cache")]
    cache_size: Option<Rate>,
    /// Give images for which this server shows credentials to clients who show none, too
    #[arg(long, env = "IMGMV_SHARE_PRIVATE", value_parser = FalseyValueParser::new(), requires = "proxies")]
    share_private: bool,
    /// Look for blobs and manifests that are not here at the server URL, by digest, before upstream (repeatable): another
    /// imgmv serve, or any registry. A name behind http:// stands for every address that it has
    #[arg(long = "peer", value_name = "URL", value_delimiter = ',', env = "IMGMV_PEER")]
    peers: Vec<String>,
    /// Go on without a peer whose answer has not begun after so long, or that has not been reached in a quarter of it
    #[arg(long, value_name = "SECONDS", default_value = "2", env = "IMGMV_PEER_TIMEOUT", value_parser = seconds)]
    peer_timeout: Duration,
    /// Print the settings with which CLIENT asks this server first, and end
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
    let wrong = || "expected seconds from 0.1 to 60, as 2 or 0.5".to_owned();
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    match (0.1..=60.0).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err(wrong()),
    }
}

/// What is mirrored, while it is.
pub struct Mirrored {
    pub shelf: Arc<dyn Backend>,
    pools: Pools,
    cancel: Cancel,
}

impl Mirrored {
    /// Ends fills, so that a later run can go on with them.
    pub fn end(&self) {
        self.cancel.raise();
        self.pools.rest(END);
    }
}

impl Mirroring {
    /// Makes sure that the options make sense together.
    pub fn check(&self) -> Result<()> {
        match (self.cache.is_some(), self.proxies.is_empty(), self.peers.is_empty()) {
            (true, true, true) => {
                Err(Error::usage("a cache of what? name registries with --proxy, or servers with --peer"))
            }
            (false, false, _) => Err(Error::usage("--proxy needs a place for what it keeps: --cache oci:DIR")),
            _ => Ok(()),
        }
    }

    /// The shelf that these options make, if they make one.
    pub fn shelf(
        &self,
        beside: Beside,
        figures: &Arc<Metrics>,
        from: &open::SourceOptions,
        reach: &NetworkOptions,
        run: &Run,
    ) -> Result<Option<Mirrored>> {
        if self.proxies.is_empty() && self.peers.is_empty() {
            return Ok(None);
        }
        // Not the run's own: what is under way when the server is told to stop may still end.
        let cancel = Cancel::default();
        let access = open::upstream_access(from, reach, run)?;
        let upstreams = self.upstreams(&access, from, reach, &cancel, run)?;
        let pools = Pools::default();
        let caches = self.cache.as_ref().map(|word| self.caches(word, &pools, figures, &cancel, run)).transpose()?;
        let peers = Peers::new(&self.peers, self.peer_timeout, &access, run.watch(), &cancel)?;
        let share = if self.share_private { Share::Everybody } else { Share::Users };
        let shelf = Arc::new(MirrorBackend::new(
            upstreams,
            caches,
            peers,
            (share, beside),
            figures.clone(),
            run.watch(),
            &cancel,
        ));
        Ok(Some(Mirrored { shelf, pools, cancel }))
    }

    /// Every registry once, with the hosts that are asked for it.
    fn endpoints(&self, mirrors: &[String]) -> Result<Vec<(String, Vec<String>)>> {
        let mut all: Vec<(String, Vec<String>)> = Vec::new();
        for word in &self.proxies {
            let (host, endpoint) = word.split_once('=').unwrap_or((word, word));
            let host = host.to_ascii_lowercase();
            match all.iter_mut().find(|(known, _)| *known == host) {
                Some((_, endpoints)) => endpoints.push(endpoint.to_owned()),
                None => all.push((host, vec![endpoint.to_owned()])),
            }
        }
        match (&mut all[..], mirrors) {
            (_, []) => {}
            ([(_, endpoints)], mirrors) => drop(endpoints.splice(0..0, mirrors.iter().cloned())),
            _ => {
                return Err(Error::usage(
                    "--mirror is for one registry; with several say --proxy HOST=MIRROR,HOST for each",
                ));
            }
        }
        Ok(all)
    }

    fn upstreams(
        &self,
        access: &Access,
        from: &open::SourceOptions,
        reach: &NetworkOptions,
        cancel: &Cancel,
        run: &Run,
    ) -> Result<Vec<Upstream>> {
        let all = self.endpoints(&reach.network().mirrors)?;
        let hosts = all.iter().map(|(_, endpoints)| endpoints.len()).sum::<usize>();
        if access.credentials != Credentials::Stored && hosts > 1 {
            return Err(Error::usage(
                "--src-creds would be shown to every host of --proxy; keep credentials for each with imgmv login",
            ));
        }
        let endpoint = |text: &String| {
            let wrong = || Error::usage(format!("--proxy {text:?} names no registry; expected HOST[:PORT]"));
            let Server { host, insecure } =
                mirrors::parse_server(text, access.insecure.is_allowed()).ok_or_else(wrong)?;
            let insecure = if insecure { Insecure::ByUser } else { insecure::of(&host, "", from.insecure(), run) };
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
        figures: &Arc<Metrics>,
        cancel: &Cancel,
        run: &Run,
    ) -> Result<Caches> {
        let address = address::parse(word)?;
        let dir = address
            .layout()
            .ok_or_else(|| Error::usage(format!("--cache {word:?} is not a layout; expected oci:DIR")))?;
        let open = |dir: &Path| -> Result<Arc<LayoutCache>> {
            let layout = LayoutCache::open(dir, run.watch(), cancel)?;
            layout.sweep(CUT);
            Ok(Arc::new(layout))
        };
        let public = open(dir)?;
        let private = open(&closed(dir)?)?;
        let limit = self.cache_size.map(|size| size.0);
        let budget = Arc::new(Budget::new(limit, vec![public.clone(), private.clone()], figures.clone(), run.watch()));
        let cache = |layout| Arc::new(Cache::new(layout, budget.clone(), pools.clone(), cancel));
        Ok(Caches { public: cache(public), private: cache(private) })
    }

    /// Prints the settings for `client` of a server on `listen`.
    pub fn print(&self, client: ClientName, listen: SocketAddr, tls: bool, run: &Run) -> Result<()> {
        if listen.port() == 0 {
            return Err(Error::usage("a mirror needs a port that stays; choose one with --listen"));
        }
        let machine = machines_of(listen).into_iter().next();
        let host = match &machine {
            Some(machine) => format!("{}:{}", machine.host, listen.port()),
            None => client_config::reached(listen).to_string(),
        };
        let registries: Vec<String> = self.endpoints(&[])?.into_iter().map(|(host, _)| host).collect();
        let mut settings = client_config::settings(client.into(), &registries, &Reached { host, tls })?;
        if let Some(machine) = machine {
            let (name, host) = (machine.name, machine.host);
            settings
                .hints
                .push(format!("{name} is here: {host} is this host, seen from there; outside it is {listen}"));
        }
        if run.answer.json() {
            let files = settings.files.iter().map(|(path, text)| json!({ "path": path, "text": text }));
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

/// Tells how virtual machines reach a server that listens on loopback.
pub fn say_machines(listen: SocketAddr, scheme: &str, run: &Run) {
    for machine in machines_of(listen) {
        let (name, host, port) = (machine.name, machine.host, listen.port());
        run.screen.say(&format!("from inside {name}: {scheme}://{host}:{port} (127.0.0.1 is itself over there)"));
    }
}

fn machines_of(listen: SocketAddr) -> Vec<Machine> {
    match listen.ip().is_loopback() {
        true => vm_hosts::likely(&Surroundings::here()),
        false => Vec::new(),
    }
}

/// The directory for what needed credentials, which only this user may enter.
fn closed(dir: &Path) -> Result<PathBuf> {
    let private = dir.join(PRIVATE);
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
