//! `ssh://HOST[/REF]` and `HOST:[REF]`: the engine of another host. Its containerd is read and written by its socket, which
//! ssh forwards; where that is refused, by commands, as every other engine.

use super::host_sink::HostSink;
use crate::progress::Event;
use crate::rate_limit::LimitedHost;
use crate::remote;
use crate::remote::{Host, SshTarget};
use crate::sink::Sink;
use crate::source::{Selector, Store};
use crate::transport::address::{
    Address, AddressProfile, Listed, OpenSource, Parsed, RepositoryName, SelectedSource, ServeSource, ShortForm,
    Transport, all_of,
};
use crate::transport::containerd::address::{POLL_INTERVAL, limits};
use crate::transport::containerd::socket::{Connection, DEFAULT_SOCKET, ForwardedSocket, SocketSink, SocketStore};
use crate::transport::engine::address::{archive, loader, save};
use crate::transport::engine::{
    DetectedEngine, Engine, EngineSink, FetchStore, Loader, detect_with_address, list_names,
};
use crate::transport::names;
use crate::transport::options::{Context, ReadOptions, WriteOptions};
use crate::transport::syntax::selector;
use crate::{Error, Kind, Result};
use std::fmt;
use std::sync::Arc;

pub(crate) const SSH: Transport = Transport {
    scheme: "ssh://",
    syntax: "ssh://[USER@]HOST[:PORT][/REF]",
    help: &["the engine of another host"],
    serve_forms: &[("ssh://HOST", "the containerd of another host")],
    parse: |text, _| host(text),
};

pub(crate) const HOST: ShortForm = ShortForm {
    syntax: "[USER@]HOST:[REF]",
    help: &["the engine of another host, written as for scp"],
    serve_forms: &[],
    // `app@sha256:…` is a reference.
    parse: |text| (SshTarget::matches(text) && !has_digest(text)).then(|| host(text)),
};

fn has_digest(text: &str) -> bool {
    text.split_once('@').is_some_and(|(_, rest)| ["sha256:", "sha512:"].iter().any(|start| rest.starts_with(start)))
}

fn host(text: &str) -> Parsed {
    let (host, wanted) = SshTarget::parse(text)?;
    let selector = selector(wanted.as_deref().unwrap_or_default())?;
    Ok(Box::new(HostAddress { host, selector }))
}

/// An engine of another host, and an image that it has.
#[derive(Debug)]
struct HostAddress {
    host: SshTarget,
    selector: Option<Selector>,
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SshTarget { user, host, port } = &self.host;
        let user = user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let selector = self.selector.as_ref().map(|selector| format!("/{selector}")).unwrap_or_default();
        write!(f, "ssh://{user}{host}{port}{selector}")
    }
}

impl Address for HostAddress {
    /// Single blobs of containerd's, or the archive that another engine saves.
    fn source(&self, options: &ReadOptions<'_>, context: &Context) -> Result<SelectedSource> {
        let source = match self.reader(options, context)? {
            Reader::Socket(store, _) => OpenSource::Store(Arc::new(store)),
            Reader::Commands(store) => OpenSource::Store(Arc::new(store)),
            Reader::Save(host, found) => return archive(save(host, &found, self.selector())?),
        };
        Ok(SelectedSource { source, selector: self.selector.clone(), name: None })
    }

    fn sink(&self, options: &WriteOptions<'_>, context: &Context) -> Result<Box<dyn Sink>> {
        let host = self.connect(context)?;
        if options.address.is_some() && (options.engine.is_some() || options.remote_command.is_some()) {
            return Err(Error::usage(
                "--dst-address writes by containerd's socket, --engine and --remote-command by commands; remove one",
            ));
        }
        let by_socket = |address: Option<&str>, namespace: Option<&str>| {
            let connection = forwarded(&host, address, context)?;
            let sink = SocketSink::open(connection, namespace, options.verify, context.watch.clone())?;
            Ok::<_, Error>(sink.with_cache(context.cache_dir.clone()))
        };
        if options.address.is_some() {
            let socket = by_socket(options.address, options.namespace);
            return Ok(Box::new(socket.map_err(|error| with_refusal(&*host, error))?));
        }
        let (found, address) = loader(&*host, &Engine::ALL, options)?;
        let by_commands = options.engine.is_some() || options.wire_compression.is_some();
        if uses_containerd(&found) && !by_commands {
            match by_socket(address.as_deref(), found.namespace.as_deref()) {
                Ok(socket) => {
                    let (watch, cancel) = (context.watch.clone(), context.cancel.clone());
                    let by_commands = move || {
                        EngineSink::new(host.clone(), found.clone(), watch.clone(), &cancel).with_wire_compression(None)
                    };
                    return Ok(Box::new(HostSink::new(socket, Box::new(by_commands))));
                }
                Err(error) => explain(&*host, error, &found, context)?,
            }
        }
        let sink = EngineSink::new(host, found, context.watch.clone(), &context.cancel);
        Ok(Box::new(sink.with_wire_compression(options.wire_compression)))
    }

    fn identity(&self) -> Option<String> {
        let user = self.host.user.as_deref().unwrap_or_default();
        let (host, port) = (self.host.host.to_lowercase(), self.host.port.unwrap_or(22));
        Some(format!("ssh {user}@{host} {port} {}", names::selector_key(self.selector())))
    }

    fn selector(&self) -> Option<&Selector> {
        self.selector.as_ref()
    }

    fn profile(&self) -> AddressProfile {
        AddressProfile { is_remote: true, is_engine: true, is_host: true, ..AddressProfile::default() }
    }

    fn list(&self, options: &ReadOptions<'_>, context: &Context) -> Result<Option<Vec<Listed>>> {
        if self.selector.is_some() {
            return Ok(None);
        }
        Ok(Some(match self.reader(options, context)? {
            Reader::Socket(store, _) => store.listed(),
            Reader::Commands(store) => store.rows().map(|row| (row.name, Some((row.digest, row.media_type)))).collect(),
            Reader::Save(host, found) => list_names(&*host, &found)?.into_iter().map(|name| (name, None)).collect(),
        }))
    }

    /// Only containerd's socket is fast enough for several readers, and gives single blobs.
    fn serve_source(&self, options: &ReadOptions<'_>, context: &Context) -> Result<ServeSource> {
        all_of(self.selector())?;
        let Reader::Socket(_, socket) = self.reader(options, context)? else {
            return Err(Error::usage(format!(
                "{self}: serve needs the socket of the host's containerd; -v prints why it was not used"
            )));
        };
        let watch = context.watch.clone();
        let RemoteSocket { connection, namespace } = socket;
        let open = move || {
            let store = SocketStore::open(connection.clone(), namespace.as_deref(), watch.clone())?;
            Ok(Arc::new(store) as Arc<dyn Store>)
        };
        let repository = RepositoryName::Fixed("containerd");
        Ok(ServeSource::Store { watched: Vec::new(), poll_interval: POLL_INTERVAL, repository, open: Box::new(open) })
    }
}

/// How the images of a host are read.
enum Reader {
    Socket(SocketStore, RemoteSocket),
    Commands(FetchStore),
    Save(Arc<dyn Host>, DetectedEngine),
}

/// The forwarded socket, and the namespace that is read by it; `None`: all.
struct RemoteSocket {
    connection: Arc<Connection>,
    namespace: Option<String>,
}

impl HostAddress {
    /// Connects to the host with the chosen ssh client, and limits its rate.
    fn connect(&self, context: &Context) -> Result<Arc<dyn Host>> {
        let host = remote::connect(&self.host, &context.ssh.parse()?, &context.cancel)?;
        Ok(match &context.limit {
            Some(limit) => Arc::new(LimitedHost { host, limit: limit.clone() }),
            None => host.into(),
        })
    }

    /// Connects to the host and finds the engine to read from.
    fn reader(&self, options: &ReadOptions<'_>, context: &Context) -> Result<Reader> {
        let host = self.connect(context)?;
        let by_socket = |address: Option<&str>, namespace: Option<&str>| {
            let connection = forwarded(&host, address, context)?;
            let store = SocketStore::open(connection.clone(), namespace, context.watch.clone())?;
            Ok(Reader::Socket(store, RemoteSocket { connection, namespace: namespace.map(str::to_owned) }))
        };
        if options.address.is_some() {
            return by_socket(options.address, options.namespace).map_err(|error| with_refusal(&*host, error));
        }
        let engines = options.engine.as_ref().map_or(&Engine::ALL[..], std::slice::from_ref);
        let found = detect_with_address(&*host, engines, options.namespace, None);
        let (found, address) = found.map_err(|error| {
            Error::new(error.kind(), error.to_string().replace("--engine or --remote-command", "--src-engine"))
        })?;
        if uses_containerd(&found) && options.engine.is_none() {
            match by_socket(address.as_deref(), found.namespace.as_deref()) {
                Ok(reader) => {
                    context.watch.say(&format!("{}: reading from containerd by its socket", host.name()));
                    return Ok(reader);
                }
                Err(error) => explain(&*host, error, &found, context)?,
            }
        }
        context.watch.say(&format!("{}: reading from {found}", host.name()));
        Ok(match FetchStore::open(host.clone(), &found, context.watch.clone(), &context.cancel)? {
            Some(store) => Reader::Commands(store),
            None => Reader::Save(host, found),
        })
    }
}

/// Whether the engine is a client of the host's own containerd.
fn uses_containerd(found: &DetectedEngine) -> bool {
    matches!(found.loader, Loader::Ctr | Loader::Nerdctl)
}

/// Prepares the connection to containerd's socket on `host`, at `address` or the usual path.
fn forwarded(host: &Arc<dyn Host>, address: Option<&str>, context: &Context) -> Result<Arc<Connection>> {
    let endpoint = ForwardedSocket::new(host.clone(), address.unwrap_or(DEFAULT_SOCKET));
    Ok(Arc::new(Connection::new(Box::new(endpoint), limits(context, context.limit.clone()))?))
}

/// Reports with `-v` why the commands of `found` are used: `error`, and ssh's own words.
///
/// # Errors
/// - `error`, if commands fail for the same reason.
fn explain(host: &dyn Host, error: Error, found: &DetectedEngine, context: &Context) -> Result<()> {
    if !is_unreachable(&error) {
        return Err(error);
    }
    let reason = with_refusal(host, error);
    context.watch.event(Event::Detail(&format!("{reason}; the commands of {found} are used instead")));
    Ok(())
}

/// Whether the forwarded socket failed, and not what was asked.
fn is_unreachable(error: &Error) -> bool {
    matches!(error.kind(), Kind::RemoteHost | Kind::Denied | Kind::NotFound)
}

/// `error` of a forwarded socket, with ssh's own words about it.
fn with_refusal(host: &dyn Host, error: Error) -> Error {
    if !is_unreachable(&error) {
        return error;
    }
    let reason = error.to_string();
    match host.refusal() {
        words if words.is_empty() || reason.contains(&words) => error,
        words => Error::new(error.kind(), format!("{reason} ({words})")),
    }
}
