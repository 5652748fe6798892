//! `imgmv load`: an archive into an engine of this host.

use crate::Result;
use crate::cli::address;
use crate::cli::context::Run;
use crate::cli::open;
use crate::cli::open::copy_options;
use crate::cli::open::selection::{Choice, ForeignName, Parts};
use crate::cli::open::{NetworkOptions, SinkOptions, Written};
use crate::cli::options::{Packing, Transfer};
use crate::cli::output::report::{Outcome, Stdout};
use crate::copy::Options;
use crate::transport::engine::address::EngineAddress;
use clap::Args;
use std::ffi::OsString;
use std::time::Instant;

/// Load an archive into the engine of this host
///
/// The first engine that answers here is taken (nerdctl, docker, ctr, podman), or the one that --engine names. Also
/// takes archives that the engine itself would refuse: packed with gzip, zstd, xz or bzip2, or in OCI's form.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgmv load -i bundle.tar
  imgmv load -i app.tar.zst --engine podman
  imgmv load -i app.tar --as app:stable
  ssh node1 docker save app:2 | imgmv load")]
pub struct Load {
    /// The archive; - is standard input
    #[arg(short, long, value_name = "FILE", default_value = "-", env = "IMGMV_INPUT")]
    input: OsString,
    /// The image's name in the engine, where the archive holds one image (repeatable: more tags)
    #[arg(long = "as", value_name = "NAME", value_delimiter = ',', env = "IMGMV_AS", help_heading = "Images")]
    names: Vec<String>,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    parts: Parts,
    #[command(flatten)]
    packing: Packing,
    #[command(flatten)]
    transfer: Transfer,
    #[command(flatten)]
    into: SinkOptions,
    #[command(flatten)]
    reach: NetworkOptions,
}

impl Load {
    pub fn run(mut self, run: &Run) -> Result<()> {
        self.reach.jobs = self.transfer.jobs;
        self.reach.fetch_foreign = self.parts.foreign == ForeignName::Fetch;
        let source = address::archive(&self.input)?;
        let opened = open::source(&*source, &open::SourceOptions::default(), &self.reach, run)?;
        let engine = EngineAddress::any();
        let written = Written { transfer: &self.transfer, packing: &self.packing };
        let sink = open::sink(&engine, &self.into, &self.reach, &written, run)?;
        let naming = address::naming(&engine, &self.names)?;
        let options =
            Options { naming, ..copy_options::options(&self.choice, &self.parts, &self.packing, &self.transfer) };
        let (mut outcome, began) = (Outcome::new(), Instant::now());
        let report = copy_options::copy_all(vec![opened.job(options)], &*sink, run)?;
        outcome.add("this host", Ok(report), began.elapsed());
        if let Some(file) = &self.transfer.digest_file {
            outcome.write_digests(file)?;
        }
        outcome.tell(run, Stdout::Answer)
    }
}
