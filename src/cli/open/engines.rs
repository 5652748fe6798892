//! Engines as sources, here and on other hosts, and the way to a host.

use super::rate_limit::shared;
use super::{NetworkOptions, OpenSource, SourceOptions};
use crate::cli::context::Run;
use crate::image::{Digest, Name, Reference};
use crate::rate_limit::LimitedHost;
use crate::remote;
use crate::remote::{Host, Local, SshTarget};
use crate::source::Selector;
use crate::tarball::UnopenedArchive;
use crate::transport::engine;
use crate::transport::engine::{DetectedEngine, Engine, FetchStore};
use crate::{Error, Result};
use std::sync::Arc;

/// Another host, by the ssh client that was asked for and no faster than the rate.
pub fn host(target: &SshTarget, reach: &NetworkOptions, run: &Run) -> Result<Arc<dyn Host>> {
    let ssh = reach.ssh().parse()?;
    let host = remote::connect(target, &ssh, &run.cancel)?;
    Ok(match shared(reach.network().limit_rate, run) {
        Some(limit) => Arc::new(LimitedHost { host, limit }),
        None => host.into(),
    })
}

/// What the engine on another host has: single blobs of containerd's, what the others save.
pub fn on_host(
    target: &SshTarget,
    pick: Option<&Selector>,
    from: &SourceOptions,
    reach: &NetworkOptions,
    run: &Run,
) -> Result<(OpenSource, Option<Selector>)> {
    let (host, found) = reached(target, from, reach, run)?;
    if let Some(store) = FetchStore::open(host.clone(), &found, run.watch(), &run.cancel)? {
        return Ok((OpenSource::Store(Arc::new(store)), pick.cloned()));
    }
    Ok((OpenSource::UnopenedArchive(saved(host, &found, pick)?), None))
}

/// `docker save`, through the docker command of this host.
pub fn docker_here(pick: Option<&Selector>, run: &Run) -> Result<UnopenedArchive> {
    let host: Arc<dyn Host> = Arc::new(Local::new(&run.cancel));
    let found = engine::detect(&*host, &[Engine::Docker], None, None)?;
    saved(host, &found, pick)
}

/// An image's name, and its digest and type where the engine tells them without a look at the image.
pub type Listed = (Name, Option<(Digest, String)>);

/// The names that the engine on another host has.
pub fn names_on_host(
    target: &SshTarget,
    from: &SourceOptions,
    reach: &NetworkOptions,
    run: &Run,
) -> Result<Vec<Listed>> {
    let (host, found) = reached(target, from, reach, run)?;
    match FetchStore::open(host.clone(), &found, run.watch(), &run.cancel)? {
        Some(store) => Ok(store.rows().map(|row| (row.name, Some((row.digest, row.media_type)))).collect()),
        None => Ok(engine::list_names(&*host, &found)?.into_iter().map(|name| (name, None)).collect()),
    }
}

/// The names that docker has on this host.
pub fn names_here(run: &Run) -> Result<Vec<Listed>> {
    let host = Local::new(&run.cancel);
    let found = engine::detect(&host, &[Engine::Docker], None, None)?;
    Ok(engine::list_names(&host, &found)?.into_iter().map(|name| (name, None)).collect())
}

fn reached(
    target: &SshTarget,
    from: &SourceOptions,
    reach: &NetworkOptions,
    run: &Run,
) -> Result<(Arc<dyn Host>, DetectedEngine)> {
    let host = host(target, reach, run)?;
    let options = from.engine();
    let named = options.src_engine.map(Engine::from);
    let wanted = named.as_ref().map_or(&Engine::ALL[..], std::slice::from_ref);
    let found = engine::detect(&*host, wanted, options.src_namespace.as_deref(), None).map_err(|error| {
        Error::new(error.kind(), error.to_string().replace("--engine or --remote-command", "--src-engine"))
    })?;
    run.watch().say(&format!("{}: reading from {found}", host.name()));
    Ok((host, found))
}

fn saved(host: Arc<dyn Host>, found: &DetectedEngine, pick: Option<&Selector>) -> Result<UnopenedArchive> {
    let image = pick.map(|pick| match pick {
        Selector::Name(name) => one_tag(name),
        Selector::Digest(digest) => digest.to_string(),
    });
    engine::save(host, found, &Vec::from_iter(image))
}

/// docker saves every tag of a name without one; `latest` is meant. (What could be an id stays.)
fn one_tag(name: &str) -> String {
    let id = name.starts_with("sha256:") || name.len() >= 4 && name.bytes().all(|b| b.is_ascii_hexdigit());
    match name.parse::<Reference>() {
        Ok(reference) if !id && reference.tag.is_none() && reference.digest.is_none() => format!("{name}:latest"),
        _ => name.to_owned(),
    }
}
