//! `imgmv copy`: copies one source to one or more destinations.

use crate::Result;
use crate::cli::address;
use crate::cli::address::Address;
use crate::cli::address::destinations::{Destination, parse_destinations};
use crate::cli::address::help::PLACES;
use crate::cli::below::CopyBelow;
use crate::cli::context::CliRun;
use crate::cli::copy_many;
use crate::cli::open;
use crate::cli::open::copy_options;
use crate::cli::open::copy_options::CopyOptions;
use crate::cli::open::shared_source::shared_source;
use crate::cli::open::{NetworkOptions, Opened, SinkOptions};
use crate::cli::output::report::{Stdout, Summary};
use crate::copy::{Options, Report};
use crate::transfer::Budget;
use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Instant;

/// Copy images from SRC to each DST
///
/// imgmv hashes every byte, and publishes a name only after the image is complete. It does not send blobs that DST has
/// already. Layers and manifests keep their bytes and digests; imgmv reports each exception on standard error. For
/// example, uncompressed layers of an image without referrers are compressed with gzip for a registry.
///
/// With several destinations imgmv copies in parallel and reads SRC once. A slow destination gets its own read; if SRC
/// is streamed (a pipe, a compressed archive), the others wait for it. imgmv names each destination that fails, and
/// completes the others.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{PLACES}"))]
pub struct CopyVerb {
    /// Location of the images
    #[arg(value_name = "SRC")]
    src: OsString,
    /// Destination; {1..50} and {x,y} expand to several destinations
    #[arg(value_name = "DST", required_unless_present = "hosts")]
    dst: Vec<OsString>,
    #[command(flatten)]
    many: ManyDestinations,
    /// Name of the image at DST, if DST does not contain a name (repeatable: more tags)
    #[arg(long = "as", value_name = "NAME", value_delimiter = ',', env = "IMGMV_AS", help_heading = "Images")]
    names: Vec<String>,
    #[command(flatten)]
    copying: CopyOptions,
    #[command(flatten)]
    from: open::SourceOptions,
    #[command(flatten)]
    into: SinkOptions,
    #[command(flatten)]
    network: NetworkOptions,
}

/// Options for many destinations.
#[derive(Debug, Args)]
#[command(next_help_heading = "Several destinations")]
pub struct ManyDestinations {
    /// Read more destinations from FILE, one per line: a host, or any form of DST. A # starts a comment; - is standard
    /// input
    #[arg(long, value_name = "FILE", env = "IMGMV_HOSTS")]
    hosts: Option<PathBuf>,
    /// Maximum number of destinations copied to at the same time
    #[arg(long, value_name = "N", default_value_t = 50, env = "IMGMV_PARALLEL",
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    parallel: u16,
}

const EXAMPLES: &str = "\
Examples:
  imgmv copy alpine:3.20 ssh://root@node1
  docker save app:2 | imgmv copy - node1.lan:
  imgmv copy containerd:docker.io/library/app:2 user@node2:
  imgmv copy app.tar registry.lan:5000/team/app:2
  imgmv copy app.tar registry.lan:5000/team/app --as 2 --as stable
  imgmv copy bundle.tar docker://registry.lan:5000/
  imgmv copy ghcr.io/org/app:2 oci:./mirror:app-2 --platform linux/arm64
  imgmv copy containerd:app:2 app.tar --src-root /mnt/disk/var/lib/containerd
  imgmv copy docker-dir: all.tar --src-root /mnt/disk/var/lib/docker
  imgmv copy containers-storage:app:2 registry.lan:5000/app:2
  imgmv copy app:2 ssh://node{1..50} registry.lan:5000/app:2 app.tar
  imgmv copy app:2 --hosts nodes.txt --parallel 10";

impl CopyVerb {
    pub fn run(mut self, run: &CliRun) -> Result<()> {
        self.network.jobs = self.copying.transfer.jobs;
        self.network.fetch_foreign = self.copying.fetches_foreign();
        let src = address::parse(&self.src)?;
        let hosts = self.many.hosts.as_deref();
        open::stdin_once(&*src, &self.from, &self.into, hosts)?;
        let targets = parse_destinations(&self.dst, hosts)?;
        self.network.to_network = targets.iter().any(|target| target.address.profile().is_remote);
        let stdout = self.stdout(&targets, run)?;
        let mut summary = Summary::new();
        match &targets[..] {
            [target] => {
                let started = Instant::now();
                let one = open::source(&*src, &self.from, &self.network, run)
                    .and_then(|opened| self.copy_to(opened, &*target.address, &self.into, 1, run));
                let report = one.map_err(|error| open::with_hint(&self.src, error))?;
                summary.add(&target.word, Ok(report), started.elapsed());
            }
            several => self.copy_to_many(&*src, several, &mut summary, run)?,
        }
        let written = self.copying.transfer.digest_file.as_ref().map_or(Ok(()), |file| summary.write_digests(file));
        summary.print(run, stdout)?;
        summary.check().and(written)
    }

    /// Copies to all `targets` in parallel. An error of the source fails the run; an error of a destination fails only
    /// that destination.
    fn copy_to_many(
        &self,
        src: &dyn Address,
        targets: &[Destination],
        summary: &mut Summary,
        run: &CliRun,
    ) -> Result<()> {
        let at_once = usize::from(self.many.parallel).min(targets.len());
        let shared = shared_source(src, &self.from, &self.network, targets.len(), at_once, run)
            .map_err(|error| open::with_hint(&self.src, error))?;
        let into = self.into.for_destinations(at_once, run);
        let names: Vec<&str> = targets.iter().map(|target| target.word.as_str()).collect();
        let results = copy_many::copy_all(&names, at_once, run, |index, run| {
            let opened = shared.next()?;
            self.copy_to(opened, &*targets[index].address, &into, at_once, run)
        });
        run.cancel.check()?;
        for (name, (result, duration)) in names.iter().zip(results) {
            summary.add(name, result, duration);
        }
        Ok(())
    }

    /// The content of standard output. Reserves it if it is the archive.
    fn stdout(&self, targets: &[Destination], run: &CliRun) -> Result<Stdout> {
        match targets.iter().any(|target| target.address.profile().is_stdio) {
            true if !self.copying.transfer.dry_run => open::stdout_for_archive(run).map(|()| Stdout::Archive),
            _ => Ok(Stdout::Answer),
        }
    }

    /// Copies to one destination.
    fn copy_to(
        &self,
        opened: Opened,
        target: &dyn Address,
        into: &SinkOptions,
        copies: usize,
        run: &CliRun,
    ) -> Result<Report> {
        let options = Options { budget: Budget { copies }, ..self.copying.engine_options() };
        if let Some(prefix) = target.prefix() {
            let below = CopyBelow { prefix, options: &options, into: &self.into, network: &self.network };
            address::naming(prefix, &self.names)?;
            return below.copy(opened, &self.copying, run);
        }
        if target.names_itself() && !self.names.is_empty() {
            run.watch().say("DST contains the name of the image; --as is ignored");
        }
        let options = Options { naming: address::naming(target, &self.names)?, ..options };
        let sink = open::sink(target, into, &self.network, &self.copying.written(), run)?;
        copy_options::copy_all(vec![opened.job(options)], &*sink, run)
    }
}
