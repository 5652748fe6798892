//! `docker-daemon:REF`, `ssh://HOST[/REF]` and `HOST:[REF]`: engines of this host and of others.

use super::{DetectedEngine, Engine, EngineSink, FetchStore, detect, list_names};
use crate::image::Reference;
use crate::rate_limit::LimitedHost;
use crate::remote;
use crate::remote::{Host, Local, SshTarget};
use crate::sink::Sink;
use crate::source::Selector;
use crate::tarball::UnopenedArchive;
use crate::transport::address::{
    Address, AddressProfile, Listed, OpenSource, Parsed, SelectedSource, ShortForm, Transport,
};
use crate::transport::names;
use crate::transport::options::{Context, ReadOptions, WriteOptions};
use crate::transport::syntax::selector;
use crate::{Error, Result};
use std::fmt;
use std::sync::Arc;

pub(crate) const DOCKER_DAEMON: Transport = Transport {
    scheme: "docker-daemon:",
    syntax: "docker-daemon:REF",
    help: &["docker on this host"],
    serve_forms: &[],
    parse: |_, rest| Ok(Box::new(EngineAddress::here("docker-daemon:", &[Engine::Docker], selector(rest)?))),
};

pub(crate) const SSH: Transport = Transport {
    scheme: "ssh://",
    syntax: "ssh://[USER@]HOST[:PORT][/REF]",
    help: &["the engine of another host"],
    serve_forms: &[],
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

/// An engine of this host, and an image that it has.
#[derive(Debug)]
pub(crate) struct EngineAddress {
    scheme: &'static str,
    /// The engines that may answer, in this order.
    engines: &'static [Engine],
    selector: Option<Selector>,
}

impl EngineAddress {
    pub(crate) fn here(scheme: &'static str, engines: &'static [Engine], selector: Option<Selector>) -> EngineAddress {
        EngineAddress { scheme, engines, selector }
    }

    /// Any engine of this host.
    pub(crate) fn any() -> EngineAddress {
        EngineAddress::here("", &Engine::ALL, None)
    }
}

impl fmt::Display for EngineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scheme)?;
        self.selector.as_ref().map_or(Ok(()), |selector| selector.fmt(f))
    }
}

impl Address for EngineAddress {
    fn source(&self, _options: &ReadOptions<'_>, context: &Context) -> Result<SelectedSource> {
        let host: Arc<dyn Host> = Arc::new(Local::new(&context.cancel));
        let found = detect(&*host, self.engines, None, None)?;
        archive(save(host, &found, self.selector())?)
    }

    fn sink(&self, options: &WriteOptions<'_>, context: &Context) -> Result<Box<dyn Sink>> {
        Ok(Box::new(load(Arc::new(Local::new(&context.cancel)), self.engines, options, context)?))
    }

    fn identity(&self) -> Option<String> {
        Some(format!("{}{}", self.scheme, names::selector_key(self.selector())))
    }

    fn selector(&self) -> Option<&Selector> {
        self.selector.as_ref()
    }

    fn profile(&self) -> AddressProfile {
        AddressProfile { is_engine: true, ..AddressProfile::default() }
    }

    fn list(&self, _options: &ReadOptions<'_>, context: &Context) -> Result<Option<Vec<Listed>>> {
        if self.selector.is_some() {
            return Ok(None);
        }
        let host = Local::new(&context.cancel);
        let found = detect(&host, self.engines, None, None)?;
        Ok(Some(list_names(&host, &found)?.into_iter().map(|name| (name, None)).collect()))
    }
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
        let (host, found) = self.reader(options, context)?;
        match FetchStore::open(host.clone(), &found, context.watch.clone(), &context.cancel)? {
            Some(store) => Ok(SelectedSource::store(store, self.selector.clone())),
            None => archive(save(host, &found, self.selector())?),
        }
    }

    fn sink(&self, options: &WriteOptions<'_>, context: &Context) -> Result<Box<dyn Sink>> {
        let host = connect(&self.host, context)?;
        Ok(Box::new(load(host, &Engine::ALL, options, context)?.with_wire_compression(options.wire_compression)))
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
        let (host, found) = self.reader(options, context)?;
        Ok(Some(match FetchStore::open(host.clone(), &found, context.watch.clone(), &context.cancel)? {
            Some(store) => store.rows().map(|row| (row.name, Some((row.digest, row.media_type)))).collect(),
            None => list_names(&*host, &found)?.into_iter().map(|name| (name, None)).collect(),
        }))
    }
}

impl HostAddress {
    /// Connects to the host and finds the engine to read from.
    fn reader(&self, options: &ReadOptions<'_>, context: &Context) -> Result<(Arc<dyn Host>, DetectedEngine)> {
        let host = connect(&self.host, context)?;
        let engines = options.engine.as_ref().map_or(&Engine::ALL[..], std::slice::from_ref);
        let found = detect(&*host, engines, options.namespace, None).map_err(|error| {
            Error::new(error.kind(), error.to_string().replace("--engine or --remote-command", "--src-engine"))
        })?;
        context.watch.say(&format!("{}: reading from {found}", host.name()));
        Ok((host, found))
    }
}

/// Connects to another host with the chosen ssh client, and limits its rate.
fn connect(target: &SshTarget, context: &Context) -> Result<Arc<dyn Host>> {
    let host = remote::connect(target, &context.ssh.parse()?, &context.cancel)?;
    Ok(match &context.limit {
        Some(limit) => Arc::new(LimitedHost { host, limit: limit.clone() }),
        None => host.into(),
    })
}

fn archive(archive: UnopenedArchive) -> Result<SelectedSource> {
    Ok(SelectedSource { source: OpenSource::UnopenedArchive(archive), selector: None, name: None })
}

/// The first of `engines` that answers, or the one that the options name.
fn load(host: Arc<dyn Host>, engines: &[Engine], options: &WriteOptions<'_>, context: &Context) -> Result<EngineSink> {
    if let Some(named) = options.engine.filter(|named| !engines.contains(named)) {
        let name = named.name();
        return Err(Error::usage(format!(
            "--engine {name}: not an engine of this DST; remove the option or change DST"
        )));
    }
    let engines = options.engine.as_ref().map_or(engines, std::slice::from_ref);
    let found = detect(&*host, engines, options.namespace, options.remote_command)?;
    Ok(EngineSink::new(host, found, context.watch.clone(), &context.cancel))
}

fn save(host: Arc<dyn Host>, found: &DetectedEngine, selector: Option<&Selector>) -> Result<UnopenedArchive> {
    let image = selector.map(|selector| match selector {
        Selector::Name(name) => with_latest(name),
        Selector::Digest(digest) => digest.to_string(),
    });
    super::save(host, found, &Vec::from_iter(image))
}

/// Adds `latest` to a name without a tag, of which docker would save every tag. A possible image ID stays as it is.
fn with_latest(name: &str) -> String {
    let is_id = name.starts_with("sha256:") || name.len() >= 4 && name.bytes().all(|b| b.is_ascii_hexdigit());
    match name.parse::<Reference>() {
        Ok(reference) if !is_id && reference.tag.is_none() && reference.digest.is_none() => format!("{name}:latest"),
        _ => name.to_owned(),
    }
}
