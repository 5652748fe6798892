//! `docker-daemon:REF`, and what the addresses of engines have in common.

use super::{DetectedEngine, Engine, EngineSink, detect, detect_with_address, list_names};
use crate::image::Reference;
use crate::remote::{Host, Local};
use crate::sink::Sink;
use crate::source::Selector;
use crate::tarball::UnopenedArchive;
use crate::transport::address::{Address, AddressProfile, Listed, OpenSource, SelectedSource, Transport};
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

pub(crate) fn archive(archive: UnopenedArchive) -> Result<SelectedSource> {
    Ok(SelectedSource { source: OpenSource::UnopenedArchive(archive), selector: None, name: None })
}

/// The first of `engines` that answers, or the one that the options name.
fn load(host: Arc<dyn Host>, engines: &[Engine], options: &WriteOptions<'_>, context: &Context) -> Result<EngineSink> {
    let (found, _) = loader(&*host, engines, options)?;
    Ok(EngineSink::new(host, found, context.watch.clone(), &context.cancel))
}

/// Finds the first of `engines` that answers on `host`, or the one that the options name. Also returns the socket that
/// `CONTAINERD_ADDRESS` names there.
pub(crate) fn loader(
    host: &dyn Host,
    engines: &[Engine],
    options: &WriteOptions<'_>,
) -> Result<(DetectedEngine, Option<String>)> {
    if let Some(named) = options.engine.filter(|named| !engines.contains(named)) {
        let name = named.name();
        return Err(Error::usage(format!(
            "--engine {name}: not an engine of this DST; remove the option or change DST"
        )));
    }
    let engines = options.engine.as_ref().map_or(engines, std::slice::from_ref);
    detect_with_address(host, engines, options.namespace, options.remote_command)
}

pub(crate) fn save(
    host: Arc<dyn Host>,
    found: &DetectedEngine,
    selector: Option<&Selector>,
) -> Result<UnopenedArchive> {
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
