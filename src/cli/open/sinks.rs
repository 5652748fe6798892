//! Opening what a DST means.

use super::{NetworkOptions, Opened, SinkOptions, SourceOptions, access_to, engines, registry, source};
use crate::cli::address::Place;
use crate::cli::address::archive_form::Form;
use crate::cli::context::Run;
use crate::cli::options::{Loading, Packing, Transfer};
use crate::image::Reference;
use crate::progress::Event;
use crate::remote::{Host, Local};
use crate::sink::Sink;
use crate::source::{Selector, Store};
use crate::transport::archive::{ArchiveSink, ResumeOptions};
use crate::transport::engine;
use crate::transport::engine::{Engine, EngineSink};
use crate::transport::layout::{LayoutSink, LayoutStore, Verify};
use crate::transport::registry::{Access, Registry};
use crate::{Error, Result};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What the options say of how a DST is written.
pub struct Written<'o> {
    pub transfer: &'o Transfer,
    pub packing: &'o Packing,
}

/// Opens what `place` means as a DST.
pub fn sink(
    place: &Place,
    into: &SinkOptions,
    reach: &NetworkOptions,
    options: &Written<'_>,
    run: &Run,
) -> Result<Box<dyn Sink>> {
    let transfer = options.transfer;
    match place {
        Place::Registry(reference) => repository(reference, into, reach, run),
        Place::DockerArchive { file, .. } | Place::OciArchive { file, .. } | Place::Path(file) => {
            archive_sink(file, options, run)
        }
        Place::Stdio if transfer.dry_run => Ok(planned("standard output")),
        Place::Stdio => Ok(Box::new(ArchiveSink::to_stdout()?)),
        Place::Oci { dir, .. } => {
            let verify = if transfer.verify { Verify::Digest } else { Verify::Size };
            let life = transfer.life();
            Ok(Box::new(LayoutSink::open(dir, verify, run.watch())?.keep_partials(life).cancel(&run.cancel)))
        }
        Place::Containerd { .. } => engine_here(into, &Engine::CONTAINERD, run),
        Place::DockerDaemon { .. } => engine_here(into, &[Engine::Docker], run),
        Place::Ssh { host, .. } => {
            let wire = into.loading.wire.wire();
            Ok(Box::new(loading(engines::host(host, reach, run)?, into, &Engine::ALL, run)?.packed(wire)))
        }
        Place::Prefix(_) => Err(Error::usage("a DST that ends in / has a sink for each image")),
    }
}

/// A place that is read and written at once.
pub struct InPlace {
    pub store: Arc<dyn Store>,
    pub picks: Vec<Selector>,
    pub sink: Box<dyn Sink>,
}

/// Opens a registry's repository or a layout to give its images other names.
pub fn in_place(place: &Place, from: &SourceOptions, reach: &NetworkOptions, run: &Run) -> Result<InPlace> {
    let (dir, pick) = match place {
        Place::Registry(reference) => {
            let registry = registry(&reference.host, &reference.repository, &from.registry.side(), reach, run)?;
            let Opened { picks, .. } = source(place, from, reach, run)?;
            let sink = Box::new(registry.sink(&reference.repository));
            return Ok(InPlace { store: Arc::new(registry.repository(&reference.repository)), picks, sink });
        }
        Place::Oci { dir, pick } => (dir, pick.clone()),
        Place::Path(dir) => (dir, None),
        _ => {
            return Err(Error::usage("tag works on a registry, a layout or an archive in a file; use imgmv copy --as"));
        }
    };
    let sink = LayoutSink::open(dir, Verify::Size, run.watch())?.cancel(&run.cancel);
    Ok(InPlace { store: Arc::new(LayoutStore::open(dir)?), picks: pick.into_iter().collect(), sink: Box::new(sink) })
}

/// The sink of one repository, whatever its tag.
pub fn repository(
    reference: &Reference,
    into: &SinkOptions,
    reach: &NetworkOptions,
    run: &Run,
) -> Result<Box<dyn Sink>> {
    let chunk = into.pushing.chunk_size.map(|size| size.0);
    let access = access_to(&reference.host, &reference.repository, &into.registry.side(), reach, run)?;
    let registry =
        Registry::new(&reference.host, Access { chunk_bytes: chunk, ..access }, run.watch(), run.cancel.clone())?;
    Ok(Box::new(registry.sink(&reference.repository)))
}

/// An archive file, compressed as its name says.
fn archive_sink(file: &Path, options: &Written<'_>, run: &Run) -> Result<Box<dyn Sink>> {
    let form = Form::of(file)?;
    if options.transfer.dry_run {
        return Ok(planned(&file.to_string_lossy()));
    }
    let Form::Compressed(coding) = form else {
        let before = ResumeOptions { life: options.transfer.life(), cancel: run.cancel.clone() };
        return Ok(Box::new(ArchiveSink::to_file_after(file, &before, run.watch())?));
    };
    let level = options.packing.level.filter(|_| options.packing.compress.is_none());
    run.watch().event(Event::Detail(&format!(
        "{}: compressed as a whole with {}; to resume a cut copy, to serve it and to read a part of it, write a plain .tar",
        file.display(),
        coding.name()
    )));
    Ok(Box::new(ArchiveSink::to_compressed(file, coding, level)?))
}

/// An archive that is only planned.
fn planned(label: &str) -> Box<dyn Sink> {
    Box::new(ArchiveSink::to_writer(Box::new(io::sink()), label))
}

/// The first of `wanted` that answers on this host, or the one that is named.
pub fn engine_here(into: &SinkOptions, wanted: &[Engine], run: &Run) -> Result<Box<dyn Sink>> {
    Ok(Box::new(loading(Arc::new(Local::new(&run.cancel)), into, wanted, run)?))
}

fn loading(host: Arc<dyn Host>, into: &SinkOptions, wanted: &[Engine], run: &Run) -> Result<EngineSink> {
    let Loading { engine, namespace, remote_command, .. } = &into.loading;
    let named = engine.map(Engine::from);
    if let Some(named) = named.filter(|named| !wanted.contains(named)) {
        return Err(Error::usage(format!(
            "DST and --engine {} do not go together; leave one of them out",
            named.name()
        )));
    }
    let wanted = named.as_ref().map_or(wanted, std::slice::from_ref);
    let found = engine::find(&*host, wanted, namespace.as_deref(), remote_command.as_deref())?;
    Ok(EngineSink::new(host, found, run.watch(), &run.cancel))
}

/// Makes sure that an archive may go to standard output.
pub fn stdout_for_archive(run: &Run) -> Result<()> {
    run.answer.leave_to_archive();
    match run.answer.json() {
        true => Err(Error::usage(
            "--json and the archive both want standard output; write the archive to a file, or use --digest-file",
        )),
        false => Ok(()),
    }
}
