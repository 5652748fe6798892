//! Addresses that several transports share: containerd's, docker's directory, other hosts, and plain paths.

mod containerd;
mod docker_dir;
mod host;
mod host_sink;

use super::address::{Address, Deletable, InPlace, Parsed, SelectedSource, ServeSource, ShortForm};
use super::archive::address::{ArchiveAddress, is_archive};
use super::layout::address::LayoutAddress;
use super::names;
use super::options::{Context, ReadOptions, WriteOptions};
use super::syntax::expand_home;
use crate::image::Name;
use crate::sink::Sink;
use crate::{Error, Result};
use std::fmt;
use std::path::{Path, PathBuf};

pub(crate) use containerd::CONTAINERD;
pub(crate) use docker_dir::DOCKER_DIR;
pub(crate) use host::{HOST, SSH};

pub(crate) const PATH: ShortForm = ShortForm {
    syntax: "/path, ./path, ../path, ~/path, *.tar, *.tar.gz, *.tgz, *.tar.zst, *.tzst",
    help: &[
        "SRC: an archive or a layout, found by reading it; DST: an archive that",
        "loads everywhere, compressed as its ending says. Only a plain .tar can be",
        "resumed, served, re-tagged and read in part",
    ],
    serve_forms: &[("a path", "a layout or an archive")],
    parse: path,
};

/// A file or directory without a scheme: a directory is a layout, all else is an archive.
#[derive(Debug)]
pub(crate) struct PathAddress(pub PathBuf);

impl PathAddress {
    /// The address with its transport, for reading.
    fn found(&self) -> Box<dyn Address> {
        match self.0.is_dir() {
            true => Box::new(LayoutAddress { dir: self.0.clone(), selector: None }),
            false => Box::new(self.archive()),
        }
    }

    fn archive(&self) -> ArchiveAddress {
        ArchiveAddress::file("", self.0.clone(), None)
    }
}

impl fmt::Display for PathAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl Address for PathAddress {
    fn source(&self, options: &ReadOptions<'_>, context: &Context) -> Result<SelectedSource> {
        self.found().source(options, context)
    }

    fn sink(&self, options: &WriteOptions<'_>, context: &Context) -> Result<Box<dyn Sink>> {
        self.archive().sink(options, context)
    }

    fn identity(&self) -> Option<String> {
        names::file_key(&self.0)
    }

    fn spell(&self, text: &str) -> Result<Name> {
        self.found().spell(text)
    }

    fn serve_source(&self, options: &ReadOptions<'_>, context: &Context) -> Result<ServeSource> {
        self.found().serve_source(options, context)
    }

    fn in_place(&self, options: &ReadOptions<'_>, context: &Context) -> Result<InPlace> {
        self.found().in_place(options, context)
    }

    fn deletable(&self, options: &ReadOptions<'_>, context: &Context) -> Result<Deletable> {
        self.found().deletable(options, context)
    }

    fn layout(&self) -> Option<&Path> {
        Some(&self.0)
    }
}

fn path(text: &str) -> Option<Parsed> {
    let is_path = ["/", "./", "../", "~/"].iter().any(|start| text.starts_with(start));
    if is_path || text == "." || text == ".." {
        return Some(Ok(Box::new(PathAddress(expand_home(text)))));
    }
    if !is_archive(text) {
        return None;
    }
    // `host:app.tar` is a file of another host to scp, and a tag may end in .tar: neither is guessed.
    Some(match text.contains(':') {
        true => Err(Error::usage(format!(
            "{text:?} could be a file, a tag or a file of another host; write ./{text} for the file or \
             docker://{text} for the image (imgmv loads into a host's engine and writes no file there)"
        ))),
        false => Ok(Box::new(PathAddress(text.into()))),
    })
}
