//! `docker-archive:FILE[:REF]`, `oci-archive:FILE[:REF]` and `-`.

use super::form::compression;
use super::{ArchiveSink, Found, Input, ResumeOptions, find};
use crate::progress::Event;
use crate::sink::Sink;
use crate::source::{Selector, Store};
use crate::transport::address::{
    Address, AddressProfile, InPlace, OpenSource, RepositoryName, SelectedSource, ServeSource, ShortForm, Transport,
    all_of,
};
use crate::transport::names;
use crate::transport::options::{Context, ReadOptions, WriteOptions};
use crate::transport::syntax::{file_and_selector, suffix};
use crate::{Error, Result};
use std::fmt;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The endings by which a word without a scheme is a file. imgmv reads the last two but does not write them.
const ENDINGS: [&str; 7] = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.xz", ".tar.bz2"];

pub(crate) const DOCKER: Transport = Transport {
    scheme: "docker-archive:",
    syntax: "docker-archive:FILE[:REF]",
    help: &["a docker-save tar; without REF, every image in it"],
    serve_forms: &[("docker-archive:FILE", "an uncompressed archive in a file")],
    parse: |address, rest| {
        let (file, selector) = file_and_selector(address, rest)?;
        Ok(Box::new(ArchiveAddress::file("docker-archive:", file, selector)))
    },
};

pub(crate) const OCI: Transport = Transport {
    scheme: "oci-archive:",
    syntax: "oci-archive:FILE[:REF]",
    help: &["an OCI layout in a tar; without REF, every image in it"],
    serve_forms: &[("oci-archive:FILE", "the same")],
    parse: |address, rest| {
        let (file, selector) = file_and_selector(address, rest)?;
        Ok(Box::new(ArchiveAddress::file("oci-archive:", file, selector)))
    },
};

pub(crate) const STDIO: ShortForm = ShortForm {
    syntax: "-",
    help: &["an archive on standard input or output"],
    serve_forms: &[],
    parse: |text| (text == "-").then(|| Ok(Box::new(StdioAddress) as Box<dyn Address>)),
};

/// Whether a word without a scheme is the file of an archive, by its ending.
pub(crate) fn is_archive(text: &str) -> bool {
    ENDINGS.iter().any(|ending| text.ends_with(ending))
}

/// An archive in a file, and an image in it.
#[derive(Debug)]
pub(crate) struct ArchiveAddress {
    scheme: &'static str,
    file: PathBuf,
    selector: Option<Selector>,
}

impl ArchiveAddress {
    /// `scheme` is only displayed: the archive's form is found by reading it.
    pub(crate) fn file(scheme: &'static str, file: PathBuf, selector: Option<Selector>) -> ArchiveAddress {
        ArchiveAddress { scheme, file, selector }
    }
}

impl fmt::Display for ArchiveAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.scheme, self.file.display(), suffix(self.selector()))
    }
}

impl Address for ArchiveAddress {
    fn source(&self, _options: &ReadOptions<'_>, context: &Context) -> Result<SelectedSource> {
        let source = find(&Input::File(self.file.clone()), context.watch.clone())?.into();
        Ok(SelectedSource { source, selector: self.selector.clone(), name: None })
    }

    fn sink(&self, options: &WriteOptions<'_>, context: &Context) -> Result<Box<dyn Sink>> {
        let compression = compression(&self.file)?;
        if options.dry_run {
            return Ok(planned(&self.file.to_string_lossy()));
        }
        let Some(coding) = compression else {
            let before = ResumeOptions { lifetime: options.partial_lifetime, cancel: context.cancel.clone() };
            return Ok(Box::new(ArchiveSink::to_file_after(&self.file, &before, context.watch.clone())?));
        };
        context.watch.event(Event::Detail(&format!(
            "{}: compressed as a whole with {}; write a plain .tar to resume, serve or partly read the archive",
            self.file.display(),
            coding.name()
        )));
        Ok(Box::new(ArchiveSink::to_compressed(&self.file, coding, options.level)?))
    }

    fn identity(&self) -> Option<String> {
        names::file_key(&self.file)
    }

    fn selector(&self) -> Option<&Selector> {
        self.selector.as_ref()
    }

    fn serve_source(&self, _options: &ReadOptions<'_>, context: &Context) -> Result<ServeSource> {
        all_of(self.selector())?;
        let (file, watch) = (self.file.clone(), context.watch.clone());
        let open = move || match find(&Input::File(file.clone()), watch.clone())? {
            Found::Store(store) => Ok(store as Arc<dyn Store>),
            Found::UnopenedArchive(_) => Err(compressed(&file)),
        };
        Ok(ServeSource::Store {
            watched: vec![self.file.clone()],
            poll_interval: Duration::ZERO,
            repository: RepositoryName::FromPath(self.file.clone()),
            open: Box::new(open),
        })
    }

    fn in_place(&self, _options: &ReadOptions<'_>, _context: &Context) -> Result<InPlace> {
        Ok(InPlace::Archive { file: self.file.clone(), selector: self.selector.clone() })
    }
}

/// Standard input or output.
#[derive(Debug)]
pub(crate) struct StdioAddress;

impl fmt::Display for StdioAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("-")
    }
}

impl Address for StdioAddress {
    fn source(&self, _options: &ReadOptions<'_>, context: &Context) -> Result<SelectedSource> {
        if io::stdin().is_terminal() {
            return Err(Error::usage("standard input is a terminal; give an archive by a pipe, or name a file"));
        }
        let source = find(&Input::Stdin, context.watch.clone())?.into();
        Ok(SelectedSource { source, selector: None, name: None })
    }

    fn sink(&self, options: &WriteOptions<'_>, _context: &Context) -> Result<Box<dyn Sink>> {
        match options.dry_run {
            true => Ok(planned("standard output")),
            false => Ok(Box::new(ArchiveSink::to_stdout()?)),
        }
    }

    fn identity(&self) -> Option<String> {
        Some("-".to_owned())
    }

    fn profile(&self) -> AddressProfile {
        AddressProfile { is_stdio: true, ..AddressProfile::default() }
    }
}

impl From<Found> for OpenSource {
    fn from(found: Found) -> OpenSource {
        match found {
            Found::Store(store) => OpenSource::Store(store),
            Found::UnopenedArchive(archive) => OpenSource::UnopenedArchive(archive),
        }
    }
}

/// The sink of a dry run.
fn planned(label: &str) -> Box<dyn Sink> {
    Box::new(ArchiveSink::to_writer(Box::new(io::sink()), label))
}

fn compressed(file: &Path) -> Error {
    Error::usage(format!(
        "{}: an archive that is compressed as a whole cannot be served, since it can only be read from its start; copy \
         it to a plain .tar or to a layout first",
        file.display()
    ))
}
