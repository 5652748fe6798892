//! `imgmv copy`: one source to one or more destinations.

use crate::cli::address::destinations::{Target, targets};
use crate::cli::address::help::PLACES;
use crate::cli::address::naming::{names_itself, naming};
use crate::cli::address::{Place, Prefix};
use crate::cli::context::Run;
use crate::cli::copy_many;
use crate::cli::open;
use crate::cli::open::copy_options;
use crate::cli::open::selection::{Choice, ForeignName, Parts};
use crate::cli::open::shared_source;
use crate::cli::open::{NetworkOptions, Opened, SinkOptions, Written};
use crate::cli::options::{Packing, Transfer};
use crate::cli::output::report::{Outcome, Stdout};
use crate::copy::{Naming, Options, Report};
use crate::image::{Name, Reference};
use crate::source::{Selector, Source};
use crate::{Error, Result};
use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Instant;

/// Copy images from SRC to each DST
///
/// Every byte is hashed on its way, and nothing gets a name before it is all there. What DST has already is not sent
/// again. Layers and manifests keep their bytes and so their digests, except where a line on standard error says
/// otherwise (raw layers become gzip on their way to a registry).
///
/// Several DST are copied to side by side, and SRC is read once for those that keep pace; one that is slower reads by
/// itself, or, where SRC passes once, holds the others up. One that fails is named and does not fail the others.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{PLACES}"))]
pub struct Copy {
    /// Where the images are
    #[arg(value_name = "SRC")]
    src: OsString,
    /// Where they are to go; {1..50} and {x,y} stand for several
    #[arg(value_name = "DST", required_unless_present = "hosts")]
    dst: Vec<OsString>,
    #[command(flatten)]
    several: Several,
    /// The image's name at DST where DST itself gives none (repeatable: more tags)
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
    into: SinkOptions,
    #[command(flatten)]
    reach: NetworkOptions,
}

/// More destinations than one would type.
#[derive(Debug, Args)]
#[command(next_help_heading = "Several destinations")]
pub struct Several {
    /// Read more destinations from FILE, one a line: a host or whatever DST may be; # begins a comment, - is standard
    /// input
    #[arg(long, value_name = "FILE", env = "IMGMV_HOSTS")]
    hosts: Option<PathBuf>,
    /// So many destinations at once, at most; the others wait for their turn
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
  imgmv copy app:2 ssh://node{1..50} registry.lan:5000/app:2 app.tar
  imgmv copy app:2 --hosts nodes.txt --parallel 10";

impl Copy {
    pub fn run(mut self, run: &Run) -> Result<()> {
        self.reach.jobs = self.transfer.jobs;
        self.reach.fetch_foreign = self.parts.foreign == ForeignName::Fetch;
        let src = Place::parse(&self.src)?;
        let hosts = self.several.hosts.as_deref();
        open::stdin_once(&src, &self.from, &self.into, hosts)?;
        let targets = targets(&self.dst, hosts)?;
        self.reach.onward = targets.iter().any(|target| target.place.is_remote());
        let stdout = self.stdout(&targets, run)?;
        let mut outcome = Outcome::new();
        match &targets[..] {
            [target] => {
                let began = Instant::now();
                let one = open::source(&src, &self.from, &self.reach, run)
                    .and_then(|opened| self.one(opened, &target.place, &self.into, 1, run));
                let report = one.map_err(|error| open::hinted(&self.src, error))?;
                outcome.add(&target.word, Ok(report), began.elapsed());
            }
            several => self.several(&src, several, &mut outcome, run)?,
        }
        let written = self.transfer.digest_file.as_ref().map_or(Ok(()), |file| outcome.write_digests(file));
        outcome.tell(run, stdout)?;
        outcome.verdict().and(written)
    }

    /// Copies to all of `targets` side by side. What is wrong with the source fails the run, what is wrong with a
    /// destination only that one.
    fn several(&self, src: &Place, targets: &[Target], outcome: &mut Outcome, run: &Run) -> Result<()> {
        let at_once = usize::from(self.several.parallel).min(targets.len());
        let parted = shared_source::parted(src, &self.from, &self.reach, targets.len(), at_once, run)
            .map_err(|error| open::hinted(&self.src, error))?;
        let into = self.into.for_company(at_once, run);
        let words: Vec<&str> = targets.iter().map(|target| target.word.as_str()).collect();
        let done = copy_many::each(&words, at_once, run, |at, run| {
            let opened = parted.next()?;
            self.one(opened, &targets[at].place, &into, at_once, run)
        });
        run.cancel.check()?;
        for (word, (done, took)) in words.iter().zip(done) {
            outcome.add(word, done, took);
        }
        Ok(())
    }

    /// Whether standard output is the archive; then it has to be free for it.
    fn stdout(&self, targets: &[Target], run: &Run) -> Result<Stdout> {
        match targets.iter().any(|target| target.place == Place::Stdio) {
            true if !self.transfer.dry_run => open::stdout_for_archive(run).map(|()| Stdout::Archive),
            _ => Ok(Stdout::Answer),
        }
    }

    fn one(&self, opened: Opened, target: &Place, into: &SinkOptions, company: usize, run: &Run) -> Result<Report> {
        let options = Options { company, ..self.options() };
        if let Place::Prefix(prefix) = target {
            return self.below(prefix, opened, &options, run);
        }
        if names_itself(target) && !self.names.is_empty() {
            run.watch().say("DST names the image itself; --as is not used for it");
        }
        let options = Options { naming: naming(target, &self.names)?, ..options };
        let sink = open::sink(target, into, &self.reach, &self.written(), run)?;
        copy_options::copy_all(vec![opened.job(options)], &*sink, run)
    }

    /// Each image to a repository of its own below `prefix`.
    fn below(&self, prefix: &Prefix, opened: Opened, options: &Options, run: &Run) -> Result<Report> {
        naming(&Place::Prefix(prefix.clone()), &self.names)?;
        let Opened { source, picks, name: own } = opened;
        let Source::Store(store) = source else {
            return Err(Error::usage(
                "a DST that ends in / needs the images' names before their bytes; save the archive to a file first, \
                 unpacked",
            ));
        };
        let mut repositories: Vec<(Reference, Vec<(Selector, Name)>)> = Vec::new();
        let mut roots = store.roots(&picks)?;
        if roots.is_empty() && !options.allow_empty {
            return Err(Error::not_found(store.nothing()));
        }
        // A tag in a repository is pushed with its digest: the digest alone is asked for last.
        roots.sort_by_key(|root| root.name.as_ref().is_some_and(|name| name.digest().is_some()));
        for root in roots {
            let digest = root.descriptor.digest;
            let Some(name) = root.name.as_ref().or(own.as_ref()).and_then(Name::reference) else {
                return Err(Error::usage(format!("image {digest} has no name to keep below DST; copy it by itself")));
            };
            let target = prefix.under(&name)?;
            let job = (Selector::Digest(digest), Name::from(&target));
            match repositories.iter_mut().find(|(there, _)| there.full_repository() == target.full_repository()) {
                Some((_, jobs)) if target.tag.is_none() && jobs.iter().any(|(there, _)| *there == job.0) => {}
                Some((_, jobs)) => jobs.push(job),
                None => repositories.push((target, vec![job])),
            }
        }
        let mut all = Report { dry_run: self.transfer.dry_run, ..Report::default() };
        for (repository, jobs) in repositories {
            let sink = open::repository(&repository, &self.into, &self.reach, run)?;
            let jobs = jobs.into_iter().map(|(pick, name)| {
                let naming = Naming::Names(vec![name]);
                (Source::Store(store.clone()), Options { picks: vec![pick], naming, ..options.clone() })
            });
            merge(&mut all, copy_options::copy_all(jobs.collect(), &*sink, run)?);
        }
        Ok(all)
    }

    fn written(&self) -> Written<'_> {
        Written { transfer: &self.transfer, packing: &self.packing }
    }

    fn options(&self) -> Options {
        copy_options::options(&self.choice, &self.parts, &self.packing, &self.transfer)
    }
}

fn merge(all: &mut Report, one: Report) {
    all.count(&one);
    all.images.extend(one.images);
}
