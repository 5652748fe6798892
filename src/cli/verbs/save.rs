//! `imgmv save`: writes images to one archive.

use crate::cli::address;
use crate::cli::address::help::PLACES;
use crate::cli::context::CliRun;
use crate::cli::open;
use crate::cli::open::copy_options;
use crate::cli::open::copy_options::CopyOptions;
use crate::cli::open::{NetworkOptions, SinkOptions};
use crate::cli::output::report::{Stdout, Summary};
use crate::copy::Options;
use crate::{Error, Result};
use clap::Args;
use std::ffi::OsString;
use std::time::Instant;

/// Save images to one archive that every engine can load
///
/// Layers that several images share are stored once. The archive is both an OCI layout and a docker-save archive, so
/// that docker, containerd, podman, skopeo, crane and oras can read it; digests do not change. A FILE that ends in
/// .tar.gz, .tgz, .tar.zst or .tzst is compressed, and k3s and rke2 can import it. Only an uncompressed .tar can be
/// resumed, served, and read in part.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{PLACES}"))]
pub struct SaveVerb {
    /// Locations of the images
    #[arg(value_name = "SRC", required = true)]
    src: Vec<OsString>,
    /// Archive to write; - is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-", env = "IMGMV_OUTPUT")]
    output: OsString,
    /// Name of the image in the archive, if there is only one image (repeatable: more tags)
    #[arg(long = "as", value_name = "NAME", value_delimiter = ',', env = "IMGMV_AS", help_heading = "Images")]
    names: Vec<String>,
    #[command(flatten)]
    copying: CopyOptions,
    #[command(flatten)]
    from: open::SourceOptions,
    #[command(flatten)]
    network: NetworkOptions,
}

const EXAMPLES: &str = "\
Examples:
  imgmv save app:2 db:16 -o bundle.tar
  imgmv save docker-daemon:app:2 -o app.tar
  imgmv save app:2 -o - | ssh node1 nerdctl load
  imgmv save app:2 -o /var/lib/rancher/k3s/agent/images/app.tar.zst
  imgmv save oci:./mirror -o mirror.tar --platform linux/arm64";

impl SaveVerb {
    pub fn run(mut self, run: &CliRun) -> Result<()> {
        self.network.jobs = self.copying.transfer.jobs;
        self.network.fetch_foreign = self.copying.fetches_foreign();
        let sources = self.src.iter().map(|word| address::parse(word)).collect::<Result<Vec<_>>>()?;
        if sources.len() > 1 && !self.names.is_empty() {
            return Err(Error::usage("--as: several images cannot have the same name; use --as with one SRC"));
        }
        if sources.iter().filter(|source| source.profile().is_stdio).count() > 1 {
            return Err(Error::usage("standard input (-) can be only one SRC; name the others as files"));
        }
        let target = address::archive(&self.output)?;
        let stdout = match target.profile().is_stdio && !self.copying.transfer.dry_run {
            true => open::stdout_for_archive(run).map(|()| Stdout::Archive)?,
            false => Stdout::Answer,
        };
        let mut jobs = Vec::new();
        for source in &sources {
            let opened = open::source(&**source, &self.from, &self.network, run)?;
            let naming = address::naming(&*target, &self.names)?;
            let options = self.copying.engine_options();
            jobs.push(opened.job(Options { naming, ..options }));
        }
        let sink = open::sink(&*target, &SinkOptions::default(), &self.network, &self.copying.written(), run)?;
        let (mut summary, started) = (Summary::new(), Instant::now());
        let hinted = |error| self.src.iter().fold(error, |error, word| open::with_hint(word, error));
        let report = copy_options::copy_all(jobs, &*sink, run).map_err(hinted)?;
        summary.add(&self.output.to_string_lossy(), Ok(report), started.elapsed());
        if let Some(file) = &self.copying.transfer.digest_file {
            summary.write_digests(file)?;
        }
        summary.print(run, stdout)
    }
}
