//! The only place where a word of the command line becomes a source or a sink, with the options that say how.

use super::Run;
use super::limit;
use super::options::{
    Choice, DestinationRegistry, Form, Loading, Network, Packing, SourceEngine, SourceRegistry, Transfer,
};
use super::place::Place;
use clap::Args;
use imgmv::convert::Format;
use imgmv::copy::{self, Compress, Options, Platforms, Report};
use imgmv::image::Reference;
use imgmv::sink::Sink;
use imgmv::source::{Pick, Source};
use imgmv::{Error, Result};
use std::io::{self, IsTerminal};
use std::path::Path;

/// How a SRC is opened.
#[derive(Debug, Clone, Default, Args)]
pub struct From {
    #[command(flatten)]
    registry: SourceRegistry,
    #[command(flatten)]
    engine: SourceEngine,
}

/// How a DST is opened.
#[derive(Debug, Clone, Default, Args)]
pub struct Into {
    #[command(flatten)]
    registry: DestinationRegistry,
    #[command(flatten)]
    loading: Loading,
}

/// What is the same for both.
#[derive(Debug, Clone, Args)]
pub struct Reach {
    #[command(flatten)]
    network: Network,
}

/// A source, and which of its images the word means; all when empty.
pub struct Opened {
    pub source: Source,
    pub picks: Vec<Pick>,
}

impl Opened {
    /// Copies what was meant to `sink`.
    pub fn copy_to(self, sink: &dyn Sink, options: Options, run: &Run) -> Result<Report> {
        let options = Options { picks: self.picks, ..options };
        copy::copy(self.source, sink, &options, None, &*run.screen, &run.cancel)
    }
}

/// Opens what `place` means as a SRC.
pub fn source(place: &Place, from: &From, reach: &Reach, run: &Run) -> Result<Opened> {
    let _ = (from, run);
    let (source, pick): (Source, Option<Pick>) = match place {
        Place::Prefix(_) => return Err(Error::usage("a SRC that ends in / names no image; only a DST may")),
        _ => return Err(Error::failed("not built yet")),
    };
    #[allow(unreachable_code)]
    Ok(Opened { source: limit::limited(source, reach.network.limit_rate, run), picks: pick.into_iter().collect() })
}

/// Opens what `place` means as a DST.
pub fn sink(place: &Place, into: &Into, reach: &Reach, transfer: &Transfer, run: &Run) -> Result<Box<dyn Sink>> {
    let _ = (into, reach, transfer, run, place);
    Err(Error::failed("not built yet"))
}

/// The sink of one repository, whatever its tag.
pub fn repository(reference: &Reference, into: &Into, reach: &Reach, run: &Run) -> Result<Box<dyn Sink>> {
    let _ = (into, reach, reference, run);
    Err(Error::failed("not built yet"))
}

/// The engine of this host that answers, or the one that is named.
pub fn engine_here(into: &Into, run: &Run) -> Result<Box<dyn Sink>> {
    let _ = (into, run);
    Err(Error::failed("not built yet"))
}

/// Makes sure that an archive may go to standard output.
pub fn stdout_for_archive(run: &Run) -> Result<()> {
    if run.answer.json() {
        return Err(Error::usage(
            "--json and the archive both want standard output; write the archive to a file, or take --digest-file",
        ));
    }
    if io::stdout().is_terminal() {
        return Err(Error::usage("standard output is a terminal; write the archive to a file, or pipe it on"));
    }
    Ok(())
}

/// What the options say to the engine; picks and names are still to be filled in.
pub fn options(choice: &Choice, packing: &Packing, transfer: &Transfer) -> Options {
    let defaults = Options::default();
    Options {
        platforms: platforms(choice),
        compress: match packing.compress.map(|how| how.coding()) {
            None => Compress::Default,
            Some(None) => Compress::Keep,
            Some(Some(coding)) => Compress::To(coding),
        },
        level: packing.level,
        format: match packing.format {
            None => Format::Keep,
            Some(Form::Docker) => Format::Docker,
            Some(Form::Oci) => Format::Oci,
        },
        jobs: transfer.jobs.map_or(defaults.jobs, usize::from),
        dry_run: transfer.dry_run,
        ..defaults
    }
}

pub fn platforms(choice: &Choice) -> Platforms {
    match (choice.all_platforms, &choice.platforms[..]) {
        (true, _) => Platforms::All,
        (false, []) => Platforms::Default,
        (false, wanted) => Platforms::Only(wanted.to_vec()),
    }
}

/// A DST file that says it is packed: imgmv writes plain tar, which is what every engine loads.
fn plain_tar(file: &Path) -> Result<()> {
    let name = file.to_string_lossy();
    match [".gz", ".tgz", ".zst", ".xz", ".bz2"].iter().any(|ending| name.ends_with(ending)) {
        true => Err(Error::usage(format!(
            "{name} would hold a plain tar (layers are packed already, and not every engine loads more); name it .tar, \
             or pipe: imgmv save … -o - | gzip > {name}"
        ))),
        false => Ok(()),
    }
}
