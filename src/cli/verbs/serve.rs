//! `imgmv serve`: serves images as a registry, and mirrors other registries.

use crate::cli::address;
use crate::cli::address::help::SERVE_FORMS;
use crate::cli::context::CliRun;
use crate::cli::open;
use crate::cli::open::NetworkOptions;
use crate::cli::open::mirror_options;
use crate::cli::open::mirror_options::MirrorOptions;
use crate::message::on_one_line;
use crate::progress::Watch;
use crate::serve::access::users::Reading;
use crate::serve::access_log::{AccessLog, LogRecord, Metrics};
use crate::serve::backend::catalog::Catalog;
use crate::serve::{Certificate, ClientLimits, Listener, MirrorMode, Rights, ServerOptions, WritableBackend};
use crate::{Error, Result};
use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum};
use serde_json::json;
use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// Serve the images in SRC as a registry for docker, containerd, podman and other clients
///
/// imgmv serves OCI layouts, archive files, containerd (by its directory or its socket, also on another host), registries'
/// storage trees and other registries in place, without a copy; other programs may write to them at the same time. docker.io/library/app:2 is served as app:2, as library/app:2 and as
/// docker.io/library/app:2. Images that have only a tag, and untagged images, are served in a repository named after
/// the directory or file.
///
/// With --proxy the server is also a mirror. It asks the registry for each tag; if the registry does not answer, it
/// serves the last known digest with a Warning header. It stores blobs and manifests in --cache. Clients name the
/// registry with containerd's ?ns=, or as the first part of the path (localhost:5000/quay.io/org/app:1). docker does
/// not name a registry, which means docker.io. The server searches SRC, the cache, the peers and the registry, in this
/// order.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{SERVE_FORMS}"))]
pub struct ServeVerb {
    /// Location of the images to serve; several locations are served together
    #[arg(value_name = "SRC", required_unless_present_any = ["mirrored_registries", "print_mirror_config"])]
    src: Vec<OsString>,
    #[command(flatten)]
    service: Service,
    #[command(flatten)]
    mirror: MirrorOptions,
    #[command(flatten)]
    from: open::SourceOptions,
    #[command(flatten)]
    network: NetworkOptions,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
struct Service {
    /// Also accept pushes and deletions. The first SRC must be a directory (oci:DIR); each repository is stored as an
    /// OCI layout at the path of its name below it
    #[arg(long, env = "IMGMV_WRITABLE", value_parser = FalseyValueParser::new())]
    writable: bool,
    /// Allow all clients to push and delete on an address that is not loopback
    #[arg(long, env = "IMGMV_ANONYMOUS_PUSH", value_parser = FalseyValueParser::new(), requires = "writable")]
    anonymous_push: bool,
    /// Remove an incomplete upload that has received no data for MINUTES
    #[arg(long, value_name = "MINUTES", default_value_t = 1440, env = "IMGMV_UPLOAD_LIFE")]
    upload_life: u64,
    /// Address to listen on. Port 0 selects a free port; the first line on standard error names it
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000", env = "IMGMV_LISTEN")]
    listen: String,
    /// Serve only over TLS, with the certificate chain in FILE (PEM). imgmv reloads the file when it changes
    #[arg(long, value_name = "FILE", env = "IMGMV_TLS_CERT", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", env = "IMGMV_TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Require a user and password from FILE (htpasswd -B). imgmv reloads the file when it changes
    #[arg(long, value_name = "FILE", env = "IMGMV_HTPASSWD")]
    htpasswd: Option<PathBuf>,
    /// Allow only these users of --htpasswd to push (repeatable)
    #[arg(
        long = "push-user",
        value_name = "USER",
        value_delimiter = ',',
        env = "IMGMV_PUSH_USER",
        requires = "htpasswd"
    )]
    push_users: Vec<String>,
    /// Allow pulls without a password; pushes require a user
    #[arg(long, env = "IMGMV_ANONYMOUS_PULL", value_parser = FalseyValueParser::new(), requires = "htpasswd")]
    anonymous_pull: bool,
    /// Also accept the host name NAME on a loopback address (repeatable). Other names are refused, because web pages
    /// could attack the server by them
    #[arg(long = "allow-host", value_name = "NAME", value_delimiter = ',', env = "IMGMV_ALLOW_HOST")]
    names: Vec<String>,
    /// Maximum number of open connections; further connections wait
    #[arg(long, value_name = "N", default_value_t = 1024, env = "IMGMV_MAX_CONNECTIONS",
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    max_connections: u32,
    /// Close a connection that transfers less than 1 KiB in SECONDS, or whose request head is not complete in SECONDS
    #[arg(long, value_name = "SECONDS", default_value_t = 60, env = "IMGMV_IDLE_TIMEOUT",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    idle_timeout: u64,
    /// After a signal to stop, wait SECONDS for active requests to finish
    #[arg(long, value_name = "SECONDS", default_value_t = 10, env = "IMGMV_STOP_TIMEOUT",
          value_parser = clap::value_parser!(u64).range(0..=86_400))]
    stop_timeout: u64,
    /// Form of the access log on standard error
    #[arg(long, value_name = "FORM", default_value = "plain", env = "IMGMV_LOG")]
    log: Log,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Log {
    /// One line per request
    Plain,
    /// One JSON object per request
    Json,
    /// No access log
    None,
}

const EXAMPLES: &str = "\
Examples:
  imgmv serve ./mirror
      docker pull localhost:5000/app:2 pulls from the layout
  imgmv serve oci:./store --writable
      docker push localhost:5000/team/app:2 creates the layout ./store/team/app
  imgmv serve containerd: --src-namespace k8s.io --listen 0.0.0.0:5000
      other hosts pull the images of this node
  imgmv serve ssh://node1
      the images of a neighbour's containerd, by its socket
  imgmv serve app.tar db.tar
      archives of docker save and imgmv save
  imgmv serve docker://registry.lan:5000/
      another registry
  imgmv serve --proxy docker.io,quay.io --cache oci:./cache --listen :5000
      a mirror; --print-mirror-config prints the settings for its clients
  imgmv serve containerd: --listen :5000 --peer http://nodes.lan:5000
      blobs missing on this node come from the other nodes
  imgmv serve ./mirror --listen :5000 --htpasswd users --tls-cert c --tls-key k
      only to users with a password, over TLS";

impl ServeVerb {
    pub fn run(self, run: &CliRun) -> Result<()> {
        let listen = parse_address(&self.service.listen)?;
        if let Some(client) = self.mirror.print_mirror_config {
            return self.mirror.print(client, listen, self.service.tls_cert.is_some(), run);
        }
        self.mirror.check()?;
        let mut catalog = Catalog::default();
        let target = self.target(run)?;
        let mut words = &self.src[..];
        if let Some((target, dir)) = &target {
            catalog.add(target.clone());
            // The directory itself is also served if it is a layout.
            if !dir.join("index.json").exists() {
                words = &words[1..];
            }
        }
        for word in words {
            let backend =
                address::parse(word).and_then(|address| open::backend(&*address, &self.from, &self.network, run));
            catalog.add(backend.map_err(|error| open::with_hint(word, error))?);
        }
        let metrics: Arc<Metrics> = Arc::default();
        let mode = if target.is_some() { MirrorMode::WithPushes } else { MirrorMode::PullOnly };
        let mirrored = self.mirror.start(mode, &metrics, &self.from, &self.network, run)?;
        if let Some(mirrored) = &mirrored {
            catalog.add(mirrored.backend.clone());
        }
        let service = &self.service;
        run.signals.set_grace(Duration::from_secs(service.stop_timeout + 3));
        let mut options = service.options(target.map(|(target, _)| target), metrics, run)?;
        // Each client may have to wait for an upstream registry.
        options.limits.upstream_threads = mirrored.as_ref().map_or(0, |_| options.limits.connections);
        if options.rights.has_users() && options.certificate.is_none() && !options.listen.ip().is_loopback() {
            run.screen
                .say("passwords are sent without TLS and can be read on the network; use --tls-cert and --tls-key");
        }
        let secure = options.certificate.is_some();
        let listening = Listener::bind(catalog, options)?;
        run.screen.clear();
        let scheme = if secure { "https" } else { "http" };
        run.screen.say(&format!("listening on {scheme}://{}", listening.socket_address()));
        mirror_options::print_vm_urls(listening.socket_address(), scheme, run);
        let result = listening.run();
        if let Some(mirrored) = mirrored {
            mirrored.stop();
        }
        result
    }
}

impl ServeVerb {
    /// The target of pushes and its directory, if --writable is given.
    fn target(&self, run: &CliRun) -> Result<Option<(Arc<WritableBackend>, PathBuf)>> {
        if !self.service.writable {
            return Ok(None);
        }
        let Some(word) = self.src.first() else {
            return Err(Error::usage("--writable needs a directory as the first SRC: oci:DIR"));
        };
        let address = address::parse(word)?;
        let Some(dir) = address.layout().filter(|dir| !dir.is_file()) else {
            return Err(Error::usage(format!(
                "--writable needs a directory as the first SRC, found {word:?}; expected oci:DIR"
            )));
        };
        let target = WritableBackend::open(dir, run.watch(), &run.cancel)?;
        Ok(Some((Arc::new(target), dir.to_owned())))
    }
}

impl Service {
    fn options(
        &self,
        target: Option<Arc<WritableBackend>>,
        metrics: Arc<Metrics>,
        run: &CliRun,
    ) -> Result<ServerOptions> {
        let reading = if self.anonymous_pull { Reading::Anonymous } else { Reading::Users };
        let writers = (!self.push_users.is_empty()).then_some(&self.push_users[..]);
        let rights = match &self.htpasswd {
            Some(file) => Rights::users(file, writers, reading)?,
            None => Rights::unrestricted(),
        };
        let rights = if target.is_some() { rights } else { rights.read_only() };
        let listen = parse_address(&self.listen)?;
        if rights.allows_anonymous_write() && !listen.ip().is_loopback() && !self.anonymous_push {
            return Err(Error::usage(format!(
                "--listen {listen} is not loopback: every client that reaches it could push and delete; use --htpasswd \
                 to require users, or --anonymous-push to allow it"
            )));
        }
        let certificate = self.tls_cert.clone().zip(self.tls_key.clone());
        let seconds = Duration::from_secs;
        Ok(ServerOptions {
            listen,
            certificate: certificate.map(|(chain, key)| Certificate { chain, key }),
            rights,
            writable: target,
            upload_lifetime: Duration::from_secs(self.upload_life.saturating_mul(60)),
            allowed_hosts: self.names.clone(),
            limits: ClientLimits {
                connections: self.max_connections as usize,
                head_timeout: seconds(self.idle_timeout),
                idle_timeout: seconds(self.idle_timeout),
                upstream_threads: 0,
                stop_timeout: seconds(self.stop_timeout),
            },
            access_log: self.log.journal(run),
            metrics,
            watch: run.watch(),
            cancel: run.cancel.clone(),
        })
    }
}

/// Parses `ADDRESS:PORT`, `NAME:PORT`, or `:PORT` for all addresses.
fn parse_address(text: &str) -> Result<SocketAddr> {
    let error =
        || Error::usage(format!("--listen {text:?}: not an address; expected ADDRESS:PORT, for example 0.0.0.0:5000"));
    let text = if text.starts_with(':') { format!("[::]{text}") } else { text.to_owned() };
    text.to_socket_addrs().map_err(|_| error())?.next().ok_or_else(error)
}

impl Log {
    fn journal(self, run: &CliRun) -> Option<Arc<AccessLog>> {
        let screen = run.screen.clone();
        match self {
            Log::None => None,
            Log::Plain => Some(Arc::new(move |record: &LogRecord| screen.say(&plain_line(record)))),
            Log::Json => {
                Some(Arc::new(move |record: &LogRecord| crate::cli::output::terminal::line(&json_line(record))))
            }
        }
    }
}

fn plain_line(record: &LogRecord) -> String {
    let user = record.user.as_deref().map(|user| format!("{user}@")).unwrap_or_default();
    let failure = record.failure.as_deref().map(|error| format!(" ({error})")).unwrap_or_default();
    format!(
        "{user}{} {} {} {} {} bytes in {} ms{failure}",
        record.client,
        record.method,
        record.target,
        record.status,
        record.sent + record.received,
        record.took.as_millis()
    )
}

fn json_line(record: &LogRecord) -> String {
    let at = record.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let text = json!({
        "time_ms": at.as_millis() as u64,
        "remote_addr": record.client.to_string(),
        "user": record.user,
        "method": record.method,
        "uri": record.target,
        "status": record.status,
        "received_bytes": record.received,
        "sent_bytes": record.sent,
        "duration_ms": record.took.as_millis() as u64,
        "user_agent": record.agent,
        "error": record.failure,
    })
    .to_string();
    on_one_line(&text)
}
