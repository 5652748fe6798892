//! `imgmv save`: several images into one archive.

use crate::cli::address;
use crate::cli::address::help::PLACES;
use crate::cli::context::Run;
use crate::cli::open;
use crate::cli::open::copy_options;
use crate::cli::open::selection::{Choice, ForeignName, Parts};
use crate::cli::open::{NetworkOptions, SinkOptions, Written};
use crate::cli::options::{Packing, Transfer};
use crate::cli::output::report::{Outcome, Stdout};
use crate::copy::Options;
use crate::{Error, Result};
use clap::Args;
use std::ffi::OsString;
use std::time::Instant;

/// Save images into one archive that every engine loads, layers they share once
///
/// The archive is at once an OCI layout and what docker save writes; docker, containerd, podman, skopeo, crane and
/// oras read it, and digests stay as they were. A FILE that ends in .tar.gz, .tgz, .tar.zst or .tzst is compressed as
/// a whole, which k3s and rke2 import; a plain .tar alone can be resumed, served and read in part.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{PLACES}"))]
pub struct Save {
    /// Where the images are
    #[arg(value_name = "SRC", required = true)]
    src: Vec<OsString>,
    /// The archive; - is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-", env = "IMGMV_OUTPUT")]
    output: OsString,
    /// The image's name in the archive, where one image is saved (repeatable: more tags)
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
    from: open::SourceOptions,
    #[command(flatten)]
    reach: NetworkOptions,
}

const EXAMPLES: &str = "\
Examples:
  imgmv save app:2 db:16 -o bundle.tar
  imgmv save docker-daemon:app:2 -o app.tar
  imgmv save app:2 -o - | ssh node1 nerdctl load
  imgmv save app:2 -o /var/lib/rancher/k3s/agent/images/app.tar.zst
  imgmv save oci:./mirror -o mirror.tar --platform linux/arm64";

impl Save {
    pub fn run(mut self, run: &Run) -> Result<()> {
        self.reach.jobs = self.transfer.jobs;
        self.reach.fetch_foreign = self.parts.foreign == ForeignName::Fetch;
        let sources = self.src.iter().map(|word| address::parse(word)).collect::<Result<Vec<_>>>()?;
        if sources.len() > 1 && !self.names.is_empty() {
            return Err(Error::usage("several images cannot have one name; --as is for a save of one SRC"));
        }
        if sources.iter().filter(|source| source.profile().is_stdio).count() > 1 {
            return Err(Error::usage("standard input can be one SRC only"));
        }
        let target = address::archive(&self.output)?;
        let stdout = match target.profile().is_stdio && !self.transfer.dry_run {
            true => open::stdout_for_archive(run).map(|()| Stdout::Archive)?,
            false => Stdout::Answer,
        };
        let mut jobs = Vec::new();
        for source in &sources {
            let opened = open::source(&**source, &self.from, &self.reach, run)?;
            let naming = address::naming(&*target, &self.names)?;
            let options = copy_options::options(&self.choice, &self.parts, &self.packing, &self.transfer);
            jobs.push(opened.job(Options { naming, ..options }));
        }
        let written = Written { transfer: &self.transfer, packing: &self.packing };
        let sink = open::sink(&*target, &SinkOptions::default(), &self.reach, &written, run)?;
        let (mut outcome, began) = (Outcome::new(), Instant::now());
        let hinted = |error| self.src.iter().fold(error, |error, word| open::with_hint(word, error));
        let report = copy_options::copy_all(jobs, &*sink, run).map_err(hinted)?;
        outcome.add(&self.output.to_string_lossy(), Ok(report), began.elapsed());
        if let Some(file) = &self.transfer.digest_file {
            outcome.write_digests(file)?;
        }
        outcome.tell(run, stdout)
    }
}
