//! `imgmv load`: loads an archive into an engine on this host.

use crate::Result;
use crate::cli::address;
use crate::cli::context::CliRun;
use crate::cli::open;
use crate::cli::open::copy_options;
use crate::cli::open::copy_options::CopyOptions;
use crate::cli::open::{NetworkOptions, SinkOptions};
use crate::cli::output::report::{Stdout, Summary};
use crate::copy::Options;
use crate::transport::engine::address::EngineAddress;
use clap::Args;
use std::ffi::OsString;
use std::time::Instant;

/// Load an archive into an engine on this host
///
/// imgmv uses the engine that --engine names, else the first that answers: nerdctl, docker, ctr, podman. It also loads
/// archives that the engine itself would reject: compressed with gzip, zstd, xz or bzip2, or in OCI format.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgmv load -i bundle.tar
  imgmv load -i app.tar.zst --engine podman
  imgmv load -i app.tar --as app:stable
  ssh node1 docker save app:2 | imgmv load")]
pub struct LoadVerb {
    /// Archive to read; - is standard input
    #[arg(short, long, value_name = "FILE", default_value = "-", env = "IMGMV_INPUT")]
    input: OsString,
    /// Name of the image in the engine, if the archive has only one image (repeatable: more tags)
    #[arg(long = "as", value_name = "NAME", value_delimiter = ',', env = "IMGMV_AS", help_heading = "Images")]
    names: Vec<String>,
    #[command(flatten)]
    copying: CopyOptions,
    #[command(flatten)]
    into: SinkOptions,
    #[command(flatten)]
    network: NetworkOptions,
}

impl LoadVerb {
    pub fn run(mut self, run: &CliRun) -> Result<()> {
        self.network.jobs = self.copying.transfer.jobs;
        self.network.fetch_foreign = self.copying.fetches_foreign();
        let source = address::archive(&self.input)?;
        let opened = open::source(&*source, &open::SourceOptions::default(), &self.network, run)?;
        let engine = EngineAddress::any();
        let sink = open::sink(&engine, &self.into, &self.network, &self.copying.written(), run)?;
        let naming = address::naming(&engine, &self.names)?;
        let options = Options { naming, ..self.copying.engine_options() };
        let (mut summary, started) = (Summary::new(), Instant::now());
        let report = copy_options::copy_all(vec![opened.job(options)], &*sink, run)?;
        summary.add("this host", Ok(report), started.elapsed());
        if let Some(file) = &self.copying.transfer.digest_file {
            summary.write_digests(file)?;
        }
        summary.print(run, Stdout::Answer)
    }
}
