//! `imgmv copy`: one source to one or more destinations.

use super::Run;
use super::args::PLACES;
use super::copying;
use super::naming::{names_itself, naming};
use super::open::{self, Into, Opened, Reach};
use super::options::{Choice, Packing, Transfer};
use super::place::{Place, Prefix};
use super::report::{Outcome, Stdout};
use clap::Args;
use imgmv::copy::{Naming, Options, Report};
use imgmv::image::{Name, Reference};
use imgmv::progress::Watch;
use imgmv::source::{Pick, Source};
use imgmv::{Error, Kind, Result};
use std::ffi::OsString;

/// Copy images from SRC to each DST
///
/// Every byte is hashed on its way, and nothing gets a name before it is all there. What DST has already is not sent
/// again. Layers and manifests keep their bytes and so their digests, except where a line on standard error says
/// otherwise (raw layers become gzip on their way to a registry).
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{PLACES}"))]
pub struct Copy {
    /// Where the images are
    #[arg(value_name = "SRC")]
    src: OsString,
    /// Where they are to go
    #[arg(value_name = "DST", required = true)]
    dst: Vec<OsString>,
    /// The image's name at DST where DST itself gives none (repeatable: more tags)
    #[arg(long = "as", value_name = "NAME", value_delimiter = ',', env = "IMGMV_AS", help_heading = "Images")]
    names: Vec<String>,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    packing: Packing,
    #[command(flatten)]
    transfer: Transfer,
    #[command(flatten)]
    from: open::From,
    #[command(flatten)]
    into: Into,
    #[command(flatten)]
    reach: Reach,
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
  imgmv copy app:2 ssh://node1 ssh://node2 ssh://node3";

impl Copy {
    pub fn run(mut self, run: &Run) -> Result<()> {
        self.reach.jobs = self.transfer.jobs;
        let src = Place::parse(&self.src)?;
        let targets = self.dst.iter().map(|word| Place::parse(word)).collect::<Result<Vec<_>>>()?;
        let stdout = self.stdout(&targets, run)?;
        open::stdin_once(&src, &self.from, &self.into)?;
        if src == Place::Stdio && targets.len() > 1 {
            return Err(Error::usage(
                "standard input passes once: save it to a file to copy it to several destinations",
            ));
        }
        let mut outcome = Outcome::new();
        for (word, target) in self.dst.iter().zip(&targets) {
            let word = word.to_string_lossy();
            let done = self.one(&src, target, run).map_err(|error| open::hinted(&self.src, error));
            match done {
                Ok(report) => outcome.add(&word, report),
                Err(error) if targets.len() == 1 || error.kind() == Kind::Interrupted => return Err(error),
                Err(error) => outcome.fail(&word, error),
            }
        }
        if let Some(file) = &self.transfer.digest_file {
            outcome.write_digests(file)?;
        }
        outcome.tell(run, stdout)?;
        outcome.verdict()
    }

    /// Whether standard output is the archive; then it has to be free for it.
    fn stdout(&self, targets: &[Place], run: &Run) -> Result<Stdout> {
        match targets.iter().filter(|target| **target == Place::Stdio).count() {
            0 => Ok(Stdout::Answer),
            1 if self.transfer.dry_run => Ok(Stdout::Answer),
            1 => open::stdout_for_archive(run).map(|()| Stdout::Archive),
            _ => Err(Error::usage("only one archive goes to standard output")),
        }
    }

    fn one(&self, src: &Place, target: &Place, run: &Run) -> Result<Report> {
        let opened = open::source(src, &self.from, &self.reach, run)?;
        if let Place::Prefix(prefix) = target {
            return self.below(prefix, opened, run);
        }
        if names_itself(target) && !self.names.is_empty() {
            run.screen.say("DST names the image itself; --as is not used for it");
        }
        let options = Options { naming: naming(target, &self.names)?, ..self.options() };
        let sink = open::sink(target, &self.into, &self.reach, &self.transfer, run)?;
        copying::copy_all(vec![opened.job(options)], &*sink, run)
    }

    /// Each image to a repository of its own below `prefix`.
    fn below(&self, prefix: &Prefix, opened: Opened, run: &Run) -> Result<Report> {
        naming(&Place::Prefix(prefix.clone()), &self.names)?;
        let Source::Store(store) = opened.source else {
            return Err(Error::usage(
                "a DST that ends in / needs the images' names before their bytes; save the archive to a file first, \
                 unpacked",
            ));
        };
        let mut repositories: Vec<(Reference, Vec<(Pick, Name)>)> = Vec::new();
        for root in store.roots(&opened.picks)? {
            let name = root.name.as_ref().and_then(Name::reference);
            let (name, digest) = (name, root.descriptor.digest);
            let Some(name) = name else {
                return Err(Error::usage(format!("image {digest} has no name to keep below DST; copy it by itself")));
            };
            let target = prefix.under(&name)?;
            let job = (Pick::Digest(digest), Name::from(&target));
            match repositories.iter_mut().find(|(there, _)| there.place() == target.place()) {
                Some((_, jobs)) => jobs.push(job),
                None => repositories.push((target, vec![job])),
            }
        }
        let mut all = Report { dry_run: self.transfer.dry_run, ..Report::default() };
        for (repository, jobs) in repositories {
            let sink = open::repository(&repository, &self.into, &self.reach, run)?;
            let jobs = jobs.into_iter().map(|(pick, name)| {
                let naming = Naming::Names(vec![name]);
                (Source::Store(store.clone()), Options { picks: vec![pick], naming, ..self.options() })
            });
            merge(&mut all, copying::copy_all(jobs.collect(), &*sink, run)?);
        }
        Ok(all)
    }

    fn options(&self) -> Options {
        copying::options(&self.choice, &self.packing, &self.transfer)
    }
}

fn merge(all: &mut Report, one: Report) {
    all.count(&one);
    all.images.extend(one.images);
}
