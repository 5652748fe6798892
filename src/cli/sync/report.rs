//! The answer of `imgmv sync`: one line for each image, or one JSON document; counts and failures on standard error.

use super::gone::Gone;
use super::outcome::{Done, Outcome, State};
use crate::cli::context::CliRun;
use crate::cli::output::answer::{VERSION, kind_word};
use crate::cli::output::report::{CountEntry, Stdout, describe, name_lines, seconds};
use crate::copy::{Copied, Report};
use crate::image::{Digest, Name};
use crate::message::counted;
use crate::progress::Watch;
use crate::{Error, Kind, Result};
use serde::Serialize;
use std::time::Duration;

/// The largest number of failures in the final message; all are printed before it.
const MAX_NAMED_FAILURES: usize = 8;

/// The results of a run.
pub struct SyncReport<'r> {
    /// The format of the document, if the set is one.
    pub format: Option<String>,
    pub not_honoured: &'r [String],
    pub outcomes: &'r [Outcome],
    pub gone: &'r Gone,
    pub dry_run: bool,
    pub duration: Duration,
}

/// A tag that `--delete` deletes, or spares.
#[derive(Debug, Clone, Serialize)]
pub struct DeletedTag {
    pub name: String,
    pub digest: Option<Digest>,
    /// Why the tag stays; none: it was deleted, or would be.
    pub spared: Option<String>,
}

#[derive(Serialize)]
struct SyncDocument<'a> {
    version: u32,
    format: Option<&'a str>,
    not_honoured: &'a [String],
    dry_run: bool,
    images: Vec<ImageEntry<'a>>,
    /// Tags of `--delete`: deleted ones, and spared ones with the reason.
    deleted: &'a [DeletedTag],
    transferred: CountEntry,
    /// Bytes that an earlier run had written; `transferred` does not include them.
    resumed_bytes: u64,
    existing: CountEntry,
    /// Manifests that a copy requests from Docker Hub; only for a dry run.
    hub_pulls: Option<usize>,
    retries: usize,
    seconds: f64,
    errors: Vec<ErrorEntry<'a>>,
}

#[derive(Serialize)]
struct ImageEntry<'a> {
    from: &'a str,
    to: &'a str,
    names: Vec<&'a str>,
    state: State,
    digest: &'a Digest,
    source_digest: &'a Digest,
    referrers: &'a [Digest],
    transferred: CountEntry,
}

#[derive(Serialize)]
struct ErrorEntry<'a> {
    /// Null for a deletion.
    from: Option<&'a str>,
    /// Null if no repository may lose a tag.
    to: Option<&'a str>,
    kind: &'static str,
    message: String,
}

impl SyncReport<'_> {
    fn done(&self) -> impl Iterator<Item = (&Outcome, &Done)> {
        self.outcomes.iter().filter_map(|outcome| Some((outcome, outcome.result.as_ref().ok()?)))
    }

    fn errors(&self) -> impl Iterator<Item = (&Outcome, &Error)> {
        self.outcomes.iter().filter_map(|outcome| Some((outcome, outcome.result.as_ref().err()?)))
    }

    fn images(&self) -> impl Iterator<Item = (&Outcome, &Done, &Copied, State)> {
        self.done().flat_map(|(outcome, done)| {
            done.report.images.iter().zip(&done.states).map(move |(image, state)| (outcome, done, image, *state))
        })
    }

    fn sum(&self) -> Report {
        let mut sum = Report { dry_run: self.dry_run, ..Report::default() };
        self.done().for_each(|(_, done)| sum.count(&done.report));
        sum
    }

    fn hub_pulls(&self) -> usize {
        self.done().map(|(_, done)| done.hub_pulls).sum()
    }

    /// Prints the answer.
    pub fn print(&self, run: &CliRun, stdout: Stdout) -> Result<()> {
        run.screen.clear();
        self.errors().for_each(|(outcome, error)| {
            run.screen.error(&format!("{} to {}: {error}", outcome.from, outcome.to));
        });
        self.gone.errors.iter().for_each(|(_, error)| run.screen.error(&format!("--delete: {error}")));
        for tag in &self.gone.tags {
            if let Some(reason) = &tag.spared {
                run.screen.say(&format!("{} is not deleted: {reason}", tag.name));
            }
        }
        let retries = run.screen.retries();
        run.screen.say(&self.counts());
        run.screen.say(&describe(&self.sum(), self.images().count(), retries, self.duration));
        if self.dry_run && self.hub_pulls() > 0 {
            run.screen.say(&format!("Docker Hub would count {}", counted(self.hub_pulls(), "pull")));
        }
        match stdout {
            Stdout::Answer if run.answer.json() => run.answer.document(&self.document(retries)),
            Stdout::Answer => self.lines().try_for_each(|line| run.answer.line(&line)),
            Stdout::Archive => {
                self.lines().for_each(|line| run.screen.say(&line));
                Ok(())
            }
        }
    }

    /// One line with the number of images in each state.
    fn counts(&self) -> String {
        let in_state = |state: State| self.images().filter(|(.., own)| *own == state).count();
        let gone = self.gone.tags.iter().filter(|tag| tag.spared.is_none()).count();
        let deleted = if self.dry_run { "gone" } else { "deleted" };
        let counts = [
            (in_state(State::New), "new"),
            (in_state(State::Changed), "changed"),
            (in_state(State::Same), "same"),
            (gone, deleted),
            (self.errors().count(), "failed"),
        ];
        let shown = counts.iter().enumerate().filter(|(at, (count, _))| *at < 3 || *count > 0);
        shown.map(|(_, (count, word))| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
    }

    /// `NAME@DIGEST` for each image; in a dry run with the state before it, and tags that would be deleted.
    fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let images = self.images().flat_map(|(_, _, image, state)| {
            let prefix = if self.dry_run { format!("{} ", state.word()) } else { String::new() };
            let lines: Vec<String> = name_lines(&image.names, &image.digest).collect();
            lines.into_iter().map(move |line| format!("{prefix}{line}"))
        });
        let word = if self.dry_run { "gone" } else { "deleted" };
        let deleted = self.gone.tags.iter().filter(|tag| tag.spared.is_none());
        images.chain(deleted.map(move |tag| match tag.digest {
            Some(digest) => format!("{word} {}@{digest}", tag.name),
            None => format!("{word} {}", tag.name),
        }))
    }

    /// The error of the run, if an image failed.
    pub fn check(&self) -> Result<()> {
        let errors: Vec<(&Outcome, &Error)> = self.errors().collect();
        let [(first, error), others @ ..] = &errors[..] else {
            return match &self.gone.errors[..] {
                [] => Ok(()),
                [(_, error)] if self.outcomes.is_empty() => Err(error.clone()),
                failed => {
                    let count = counted(failed.len(), "repository");
                    Err(Error::new(Kind::Partial, format!("--delete: not all tags of {count} were deleted")))
                }
            };
        };
        let all_failed = errors.len() == self.outcomes.len();
        let same_kind = others.iter().all(|(_, other)| other.kind() == error.kind());
        if let (true, []) = (all_failed, others) {
            return Err(Error::new(error.kind(), format!("{} to {} failed", first.from, first.to)));
        }
        let kind = if all_failed && same_kind { error.kind() } else { Kind::Partial };
        let shown =
            errors.iter().take(MAX_NAMED_FAILURES).map(|(outcome, _)| format!("{} to {}", outcome.from, outcome.to));
        let mut shown: Vec<String> = shown.collect();
        if errors.len() > MAX_NAMED_FAILURES {
            shown.push(format!("and {} more", errors.len() - MAX_NAMED_FAILURES));
        }
        let (failed, count) = (errors.len(), self.outcomes.len());
        Err(Error::several(
            kind,
            &format!("{failed} of {} failed; each error is above", counted(count, "copy")),
            &shown,
        ))
    }

    fn document(&self, retries: usize) -> SyncDocument<'_> {
        let sum = self.sum();
        let images = self.images().map(|(outcome, done, image, state)| ImageEntry {
            from: &outcome.from,
            to: &outcome.to,
            names: image.names.iter().map(Name::as_str).collect(),
            state,
            digest: &image.digest,
            source_digest: &image.source_digest,
            referrers: &image.referrers,
            transferred: done.report.transferred.into(),
        });
        let errors = self.errors().map(|(outcome, error)| ErrorEntry {
            from: Some(&outcome.from),
            to: Some(&outcome.to),
            kind: kind_word(error.kind()),
            message: error.to_string(),
        });
        let deletions = self.gone.errors.iter().map(|(repository, error)| ErrorEntry {
            from: None,
            to: Some(repository),
            kind: kind_word(error.kind()),
            message: error.to_string(),
        });
        let refused = self.gone.refused.iter().map(|error| ErrorEntry {
            from: None,
            to: None,
            kind: kind_word(error.kind()),
            message: error.to_string(),
        });
        SyncDocument {
            version: VERSION,
            format: self.format.as_deref(),
            not_honoured: self.not_honoured,
            dry_run: self.dry_run,
            images: images.collect(),
            deleted: &self.gone.tags,
            transferred: sum.transferred.into(),
            resumed_bytes: sum.resumed_bytes,
            existing: sum.existing.into(),
            hub_pulls: self.dry_run.then(|| self.hub_pulls()),
            retries,
            seconds: seconds(self.duration),
            errors: errors.chain(deletions).chain(refused).collect(),
        }
    }
}
