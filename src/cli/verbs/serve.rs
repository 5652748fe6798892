//! `imgmv serve`: any store as a registry.

use crate::cli::address;
use crate::cli::address::help::SERVED;
use crate::cli::context::Run;
use crate::cli::open;
use crate::cli::open::NetworkOptions;
use crate::cli::open::mirror_options;
use crate::cli::open::mirror_options::Mirroring;
use crate::error::on_one_line;
use crate::progress::Watch;
use crate::serve::access::users::Reading;
use crate::serve::access_log::{Journal, Metrics, Record};
use crate::serve::backend::catalog::Catalog;
use crate::serve::{Beside, Certificate, Limits, Listening, Options, Rights, Target};
use crate::{Error, Result};
use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum};
use serde_json::json;
use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// Serve what SRC has as a registry that docker, containerd, podman and others pull from
///
/// Nothing is copied first: an OCI layout, archives in files, containerd's directory and other registries are read as
/// they lie, also while somebody writes to them. docker.io/library/app:2 is served as app:2, as library/app:2 and as
/// docker.io/library/app:2; an image whose name is only a tag, and one without a name, is served in the repository that
/// is called like the directory or file.
///
/// With --proxy it is a mirror as well: tags are asked of the registry each time (where nobody answers, the last known
/// answer is given, with a Warning header), and blobs and manifests are kept. Clients name the registry by containerd's
/// ?ns=, or as the first part of a path (localhost:5000/quay.io/org/app:1); docker names none, and means docker.io.
/// What is asked for is looked for in SRC, in the cache, at the peers, and at the registry, in this order.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{SERVED}"))]
pub struct Serve {
    /// What to serve; several are served together
    #[arg(value_name = "SRC", required_unless_present_any = ["proxies", "print_mirror_config"])]
    src: Vec<OsString>,
    #[command(flatten)]
    service: Service,
    #[command(flatten)]
    mirroring: Mirroring,
    #[command(flatten)]
    from: open::SourceOptions,
    #[command(flatten)]
    reach: NetworkOptions,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
struct Service {
    /// Take pushes and deletions too, into OCI layouts below the first SRC, which is a directory (oci:DIR): one for each
    /// repository, at the path of its name
    #[arg(long, env = "IMGMV_WRITABLE", value_parser = FalseyValueParser::new())]
    writable: bool,
    /// Let anybody push and delete who can reach an address that is not loopback
    #[arg(long, env = "IMGMV_ANONYMOUS_PUSH", value_parser = FalseyValueParser::new(), requires = "writable")]
    anonymous_push: bool,
    /// Remove an upload that nobody has gone on with for so long
    #[arg(long, value_name = "MINUTES", default_value_t = 1440, env = "IMGMV_UPLOAD_LIFE")]
    upload_life: u64,
    /// Where to listen; port 0 takes a free one, which the first line on standard error names
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000", env = "IMGMV_LISTEN")]
    listen: String,
    /// Show the certificate in FILE, with those that vouch for it (PEM), and speak TLS only; the file may change
    #[arg(long, value_name = "FILE", env = "IMGMV_TLS_CERT", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of that certificate (PEM)
    #[arg(long, value_name = "FILE", env = "IMGMV_TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Ask for a user and password, as in FILE (htpasswd -B); the file may change meanwhile
    #[arg(long, value_name = "FILE", env = "IMGMV_HTPASSWD")]
    htpasswd: Option<PathBuf>,
    /// Of the users in that file, only these may push (repeatable)
    #[arg(
        long = "push-user",
        value_name = "USER",
        value_delimiter = ',',
        env = "IMGMV_PUSH_USER",
        requires = "htpasswd"
    )]
    push_users: Vec<String>,
    /// Let anybody pull; users are for pushing
    #[arg(long, env = "IMGMV_ANONYMOUS_PULL", value_parser = FalseyValueParser::new(), requires = "htpasswd")]
    anonymous_pull: bool,
    /// Answer to NAME too while listening on loopback (repeatable); other names may be a web page's trick
    #[arg(long = "allow-host", value_name = "NAME", value_delimiter = ',', env = "IMGMV_ALLOW_HOST")]
    names: Vec<String>,
    /// Connections at once; more wait
    #[arg(long, value_name = "N", default_value_t = 1024, env = "IMGMV_MAX_CONNECTIONS",
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    max_connections: u32,
    /// End a connection on which less than 1 KiB has moved for so long, or a request's head is not complete
    #[arg(long, value_name = "SECONDS", default_value_t = 60, env = "IMGMV_IDLE_TIMEOUT",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    idle_timeout: u64,
    /// When told to stop, give requests under way so long to end
    #[arg(long, value_name = "SECONDS", default_value_t = 10, env = "IMGMV_STOP_TIMEOUT",
          value_parser = clap::value_parser!(u64).range(0..=86_400))]
    stop_timeout: u64,
    /// How each request is told on standard error
    #[arg(long, value_name = "HOW", default_value = "plain", env = "IMGMV_LOG")]
    log: Log,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Log {
    /// One line
    Plain,
    /// One JSON object a line
    Json,
    /// Not at all
    None,
}

const EXAMPLES: &str = "\
Examples:
  imgmv serve ./mirror
      docker pull localhost:5000/app:2 gives what the layout has
  imgmv serve oci:./store --writable
      docker push localhost:5000/team/app:2 makes ./store/team/app, a layout
  imgmv serve containerd: --src-namespace k8s.io --listen 0.0.0.0:5000
      neighbours pull what this node has
  imgmv serve app.tar db.tar
      archives as docker save and imgmv save write them
  imgmv serve docker://registry.lan:5000/
      another registry
  imgmv serve --proxy docker.io,quay.io --cache oci:./cache --listen :5000
      a mirror; --print-mirror-config tells its clients how to ask it
  imgmv serve containerd: --listen :5000 --peer http://nodes.lan:5000
      what this node lacks, the others may have
  imgmv serve ./mirror --listen :5000 --htpasswd users --tls-cert c --tls-key k
      to users, over TLS";

impl Serve {
    pub fn run(self, run: &Run) -> Result<()> {
        let listen = address(&self.service.listen)?;
        if let Some(client) = self.mirroring.print_mirror_config {
            return self.mirroring.print(client, listen, self.service.tls_cert.is_some(), run);
        }
        self.mirroring.check()?;
        let mut catalog = Catalog::default();
        let target = self.target(run)?;
        let mut served = &self.src[..];
        if let Some((target, dir)) = &target {
            catalog.add(target.clone());
            // What was there before is served too, if it is a layout itself.
            if !dir.join("index.json").exists() {
                served = &served[1..];
            }
        }
        for word in served {
            let shelf = address::parse(word).and_then(|address| open::backend(&*address, &self.from, &self.reach, run));
            catalog.add(shelf.map_err(|error| open::with_hint(word, error))?);
        }
        let figures: Arc<Metrics> = Arc::default();
        let beside = if target.is_some() { Beside::Pushes } else { Beside::Nothing };
        let mirrored = self.mirroring.shelf(beside, &figures, &self.from, &self.reach, run)?;
        if let Some(mirrored) = &mirrored {
            catalog.add(mirrored.shelf.clone());
        }
        let service = &self.service;
        run.signals.patience(Duration::from_secs(service.stop_timeout + 3));
        let mut options = service.options(target.map(|(target, _)| target), figures, run)?;
        // Each client may have to wait for somebody elsewhere.
        options.limits.waiting = mirrored.as_ref().map_or(0, |_| options.limits.connections);
        if options.rights.has_users() && options.certificate.is_none() && !options.listen.ip().is_loopback() {
            run.screen.say("passwords pass here without TLS, readable by whoever sees them pass; see --tls-cert");
        }
        let secure = options.certificate.is_some();
        let listening = Listening::bind(catalog, options)?;
        run.screen.end();
        let scheme = if secure { "https" } else { "http" };
        run.screen.say(&format!("listening on {scheme}://{}", listening.address()));
        mirror_options::say_machines(listening.address(), scheme, run);
        let served = listening.run();
        if let Some(mirrored) = mirrored {
            mirrored.end();
        }
        served
    }
}

impl Serve {
    /// Where pushes go, if anywhere, and its directory.
    fn target(&self, run: &Run) -> Result<Option<(Arc<Target>, PathBuf)>> {
        if !self.service.writable {
            return Ok(None);
        }
        let Some(word) = self.src.first() else {
            return Err(Error::usage("--writable needs a directory to push to as the first SRC, oci:DIR"));
        };
        let address = address::parse(word)?;
        let Some(dir) = address.layout().filter(|dir| !dir.is_file()) else {
            return Err(Error::usage(format!(
                "--writable needs a directory to push to as the first SRC, oci:DIR; {word:?} is not one"
            )));
        };
        let target = Target::open(dir, run.watch(), &run.cancel)?;
        Ok(Some((Arc::new(target), dir.to_owned())))
    }
}

impl Service {
    fn options(&self, target: Option<Arc<Target>>, figures: Arc<Metrics>, run: &Run) -> Result<Options> {
        let reading = if self.anonymous_pull { Reading::Anybody } else { Reading::Users };
        let writers = (!self.push_users.is_empty()).then_some(&self.push_users[..]);
        let rights = match &self.htpasswd {
            Some(file) => Rights::users(file, writers, reading)?,
            None => Rights::anybody(),
        };
        let rights = if target.is_some() { rights } else { rights.read_only() };
        let listen = address(&self.listen)?;
        if rights.anybody_writes() && !listen.ip().is_loopback() && !self.anonymous_push {
            return Err(Error::usage(format!(
                "{listen} is not loopback: whoever reaches it could push and delete; name those who may with \
                 --htpasswd, or say --anonymous-push"
            )));
        }
        let certificate = self.tls_cert.clone().zip(self.tls_key.clone());
        let seconds = Duration::from_secs;
        Ok(Options {
            listen,
            certificate: certificate.map(|(chain, key)| Certificate { chain, key }),
            rights,
            target,
            upload_life: Duration::from_secs(self.upload_life.saturating_mul(60)),
            names: self.names.clone(),
            limits: Limits {
                connections: self.max_connections as usize,
                head: seconds(self.idle_timeout),
                idle: seconds(self.idle_timeout),
                waiting: 0,
                stop: seconds(self.stop_timeout),
            },
            journal: self.log.journal(run),
            figures,
            watch: run.watch(),
            cancel: run.cancel.clone(),
        })
    }
}

/// `ADDRESS:PORT`, `NAME:PORT`, or `:PORT` for every address.
fn address(text: &str) -> Result<SocketAddr> {
    let wrong = || Error::usage(format!("--listen {text:?} is no address; expected ADDRESS:PORT, as 0.0.0.0:5000"));
    let text = if text.starts_with(':') { format!("[::]{text}") } else { text.to_owned() };
    text.to_socket_addrs().map_err(|_| wrong())?.next().ok_or_else(wrong)
}

impl Log {
    fn journal(self, run: &Run) -> Option<Arc<Journal>> {
        let screen = run.screen.clone();
        match self {
            Log::None => None,
            Log::Plain => Some(Arc::new(move |record: &Record| screen.say(&plain(record)))),
            Log::Json => Some(Arc::new(move |record: &Record| crate::cli::output::terminal::line(&json_line(record)))),
        }
    }
}

fn plain(record: &Record) -> String {
    let user = record.user.as_deref().map(|user| format!("{user}@")).unwrap_or_default();
    let failure = record.failure.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
    format!(
        "{user}{} {} {} {} {} bytes in {} ms{failure}",
        record.peer,
        record.method,
        record.target,
        record.status,
        record.sent + record.received,
        record.took.as_millis()
    )
}

fn json_line(record: &Record) -> String {
    let at = record.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let text = json!({
        "time": at.as_millis() as u64,
        "peer": record.peer.to_string(),
        "user": record.user,
        "method": record.method,
        "target": record.target,
        "status": record.status,
        "received": record.received,
        "sent": record.sent,
        "ms": record.took.as_millis() as u64,
        "agent": record.agent,
        "failure": record.failure,
    })
    .to_string();
    on_one_line(&text)
}
