//! The copy of all images of a destination that is written once: an archive, an engine.

use super::entry::Target;
use super::jobs::{Job, Together};
use super::outcome::{Done, Outcome, State};
use super::transfer::Transfer;
use crate::cli::address;
use crate::cli::context::CliRun;
use crate::cli::open::{self, Opened, copy_options};
use crate::copy::{Copied, Naming, Options, Report, Source};
use crate::image::Name;
use crate::{Error, Kind, Result};

/// An image whose source exists, and the names under which the copy reports it.
struct Ready<'e> {
    job: Job<'e>,
    names: Vec<Name>,
    source: (Source, Options),
}

/// Copies all images of `together` to its destination. An image that its source does not have fails alone; an error of
/// the copy fails every image.
pub fn copy(transfer: &Transfer<'_>, together: &Together<'_>, run: &CliRun) -> Vec<Outcome> {
    let target = together.target;
    let outcome =
        |job: &Job<'_>, result| Outcome { entry: job.at, from: job.from(), to: target.word.to_string(), result };
    let (mut ready, mut outcomes) = (Vec::new(), Vec::new());
    let several = together.jobs.len() > 1;
    for job in &together.jobs {
        match open_job(transfer, job.clone(), target, several, run) {
            Ok(open) => ready.push(open),
            Err(error) => outcomes.push(outcome(job, Err(error))),
        }
    }
    if ready.is_empty() {
        return outcomes;
    }
    let (jobs, sources): (Vec<_>, Vec<_>) = ready.into_iter().map(|one| ((one.job, one.names), one.source)).unzip();
    match copy_all(transfer, target, sources, run) {
        Ok(report) => {
            let mut counts = Some(Report { images: Vec::new(), ..report.clone() });
            let mut left = report.images;
            for (job, names) in jobs {
                let is_own = |image: &Copied| names.is_empty() || image.names.iter().any(|name| names.contains(name));
                let (images, others): (Vec<Copied>, Vec<Copied>) = left.into_iter().partition(is_own);
                left = others;
                // The blobs of all images are counted with the first one.
                let counts = counts.take().unwrap_or_else(|| Report { dry_run: report.dry_run, ..Report::default() });
                let states = vec![State::New; images.len()];
                let done = Done { states, report: Report { images, ..counts }, hub_pulls: 0 };
                outcomes.push(outcome(&job, Ok(done)));
            }
        }
        Err(error) => outcomes.extend(jobs.iter().map(|(job, _)| outcome(job, Err(error.clone())))),
    }
    outcomes
}

fn open_job<'e>(
    transfer: &Transfer<'_>,
    job: Job<'e>,
    target: &Target,
    several: bool,
    run: &CliRun,
) -> Result<Ready<'e>> {
    let address = target.address(None)?;
    if several && address.names_itself() {
        return Err(Error::usage(format!(
            "{} is the name of one image, but it would get several; remove the name",
            target.word
        )));
    }
    let opened = transfer.open(&job, run)?;
    let options = Options { budget: Default::default(), ..transfer.copy_options(&job) };
    let naming = match (address::naming(&*address, &[])?, job.name_at(target, transfer.options.keep_host)?) {
        (Naming::Keep, Some(name)) => Naming::Names(vec![Name::from(&name)]),
        (naming, _) => naming,
    };
    let names = if let Naming::Names(names) = &naming { names.clone() } else { Vec::new() };
    check_exists(&opened, &job)?;
    Ok(Ready { job, names, source: opened.job(Options { naming, ..options }) })
}

/// Fails with `NotFound` if the source does not have the image, so that the others are copied.
fn check_exists(opened: &Opened, job: &Job<'_>) -> Result<()> {
    let Some(Ok(store)) = opened.source.again().map(Source::into_store) else { return Ok(()) };
    for selector in &opened.selectors {
        if store.resolve(selector)?.is_none() {
            return Err(Error::new(Kind::NotFound, format!("{} does not exist", job.from())));
        }
    }
    Ok(())
}

fn copy_all(transfer: &Transfer<'_>, target: &Target, jobs: Vec<(Source, Options)>, run: &CliRun) -> Result<Report> {
    let options = transfer.options;
    let address = target.address(None)?;
    let sink = open::sink(&*address, &options.into, &options.network, &options.copying.written(), run)?;
    copy_options::copy_all(jobs, &*sink, run)
}
