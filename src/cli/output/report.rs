//! The answer of a copy: one line per image, or one JSON document. Bytes and durations go to standard error.

use super::answer::{VERSION, kind_word};
use crate::cli::context::CliRun;
use crate::copy::{Copied, Count, Report};
use crate::image::{Digest, Name, Platform};
use crate::message::counted;
use crate::progress::Watch;
use crate::{Error, Kind, Result};
use indicatif::HumanBytes;
use serde::Serialize;
use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// The results of all destinations of a run.
pub struct Summary {
    started: Instant,
    destinations: Vec<DestinationDocument>,
}

/// The result of one destination.
struct DestinationDocument {
    /// As on the command line.
    name: String,
    result: Result<Report>,
    duration: Duration,
}

#[derive(Serialize)]
struct CopyDocument<'a> {
    version: u32,
    images: Vec<CopiedImageEntry<'a>>,
    transferred: CountEntry,
    /// Bytes that an earlier run had written; `transferred` does not include them.
    resumed_bytes: u64,
    retries: usize,
    existing: CountEntry,
    seconds: f64,
    dry_run: bool,
    errors: Vec<ErrorEntry<'a>>,
    /// Every destination, in the order of the command line.
    destinations: Vec<DestinationEntry<'a>>,
}

#[derive(Serialize)]
struct DestinationEntry<'a> {
    destination: &'a str,
    /// `done` or `failed`.
    status: &'static str,
    image_count: usize,
    transferred: CountEntry,
    resumed_bytes: u64,
    existing: CountEntry,
    seconds: f64,
}

#[derive(Serialize)]
struct CopiedImageEntry<'a> {
    destination: &'a str,
    names: Vec<&'a str>,
    digest: &'a Digest,
    media_type: &'a str,
    source_digest: &'a Digest,
    /// The manifests that belong to the image and were copied with it.
    referrers: &'a [Digest],
    platforms: Vec<String>,
}

#[derive(Serialize)]
pub struct CountEntry {
    blobs: usize,
    bytes: u64,
}

#[derive(Serialize)]
struct ErrorEntry<'a> {
    destination: &'a str,
    kind: &'static str,
    message: String,
}

impl Summary {
    pub fn new() -> Summary {
        Summary { started: Instant::now(), destinations: Vec::new() }
    }

    /// Adds the result of the destination `name`.
    pub fn add(&mut self, name: &str, result: Result<Report>, duration: Duration) {
        self.destinations.push(DestinationDocument { name: name.to_owned(), result, duration });
    }

    fn reports(&self) -> impl Iterator<Item = (&DestinationDocument, &Report)> {
        self.destinations.iter().filter_map(|one| Some((one, one.result.as_ref().ok()?)))
    }

    fn errors(&self) -> impl Iterator<Item = (&DestinationDocument, &Error)> {
        self.destinations.iter().filter_map(|one| Some((one, one.result.as_ref().err()?)))
    }

    fn images(&self) -> impl Iterator<Item = (&DestinationDocument, &Copied)> {
        self.reports().flat_map(|(one, report)| report.images.iter().map(move |image| (one, image)))
    }

    /// The totals of all destinations.
    fn sum(&self) -> Report {
        let mut sum = Report::default();
        for (_, report) in self.reports() {
            sum.count(report);
            sum.dry_run |= report.dry_run;
        }
        sum
    }

    /// Writes the digests to `file`, one per line. Replaces the file atomically.
    pub fn write_digests(&self, file: &Path) -> Result<()> {
        let mut lines: Vec<String> = self.images().map(|(_, image)| format!("{}\n", image.digest)).collect();
        // Several destinations with the same image share one line.
        let mut seen = HashSet::new();
        lines.retain(|line| self.destinations.len() == 1 || seen.insert(line.clone()));
        let lines = lines.concat();
        replace_file(file, lines.as_bytes()).map_err(|error| Error::writing(file.display(), error))
    }

    /// Prints the answer to standard output, or to standard error if standard output is the archive.
    pub fn print(&self, run: &CliRun, stdout: Stdout) -> Result<()> {
        run.screen.clear();
        if self.destinations.len() > 1 {
            for (one, report) in self.reports() {
                run.screen.say(&format!("{}: {}", one.name, describe(report, report.images.len(), 0, one.duration)));
            }
        }
        let retries = run.screen.retries();
        run.screen.say(&describe(&self.sum(), self.images().count(), retries, self.started.elapsed()));
        match stdout {
            Stdout::Answer if run.answer.json() => run.answer.document(&self.document(retries)),
            Stdout::Answer => self.lines().try_for_each(|line| run.answer.line(&line)),
            Stdout::Archive => {
                self.lines().for_each(|line| run.screen.say(&line));
                Ok(())
            }
        }
    }

    /// Returns an error that names each failed destination, if any failed.
    pub fn check(&self) -> Result<()> {
        let errors: Vec<(&DestinationDocument, &Error)> = self.errors().collect();
        let [(_, error), others @ ..] = &errors[..] else { return Ok(()) };
        if self.destinations.len() == 1 {
            return Err(Error::clone(error));
        }
        let all: Vec<String> = errors.iter().map(|(one, error)| format!("{}: {error}", one.name)).collect();
        let same_kind = others.iter().all(|(_, other)| other.kind() == error.kind());
        let kind = match all.len() == self.destinations.len() && same_kind {
            true => error.kind(),
            false => Kind::Partial,
        };
        let (failed, count) = (all.len(), self.destinations.len());
        Err(Error::several(kind, &format!("{failed} of {count} destinations failed"), &all))
    }

    /// One line per image name and digest, without duplicates of several destinations.
    fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let mut seen = HashSet::new();
        let all = self.images().flat_map(|(_, image)| name_lines(&image.names, &image.digest));
        all.filter(move |line| self.destinations.len() == 1 || seen.insert(line.clone()))
    }

    fn document(&self, retries: usize) -> CopyDocument<'_> {
        let sum = self.sum();
        let errors = self.errors().map(|(one, error)| ErrorEntry {
            destination: &one.name,
            kind: kind_word(error.kind()),
            message: error.to_string(),
        });
        CopyDocument {
            version: VERSION,
            images: self.images().map(|(one, image)| CopiedImageEntry::new(one, image)).collect(),
            transferred: sum.transferred.into(),
            resumed_bytes: sum.resumed_bytes,
            retries,
            existing: sum.existing.into(),
            seconds: seconds(self.started.elapsed()),
            dry_run: sum.dry_run,
            errors: errors.collect(),
            destinations: self.destinations.iter().map(DestinationDocument::entry).collect(),
        }
    }
}

impl DestinationDocument {
    fn entry(&self) -> DestinationEntry<'_> {
        let (status, report) = match &self.result {
            Ok(report) => ("done", report.clone()),
            Err(_) => ("failed", Report::default()),
        };
        DestinationEntry {
            destination: &self.name,
            status,
            image_count: report.images.len(),
            transferred: report.transferred.into(),
            resumed_bytes: report.resumed_bytes,
            existing: report.existing.into(),
            seconds: seconds(self.duration),
        }
    }
}

impl<'a> CopiedImageEntry<'a> {
    fn new(destination: &'a DestinationDocument, image: &'a Copied) -> CopiedImageEntry<'a> {
        CopiedImageEntry {
            destination: &destination.name,
            names: image.names.iter().map(Name::as_str).collect(),
            digest: &image.digest,
            media_type: &image.media_type,
            source_digest: &image.source_digest,
            referrers: &image.referrers,
            platforms: image.platforms.iter().map(Platform::to_string).collect(),
        }
    }
}

/// Seconds, rounded to milliseconds.
pub fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

/// Returns one line about a copy.
pub fn describe(report: &Report, images: usize, retries: usize, duration: Duration) -> String {
    let verb = if report.dry_run { "to transfer" } else { "transferred" };
    let resumed = match report.resumed_bytes {
        0 => String::new(),
        bytes => format!("{} resumed, ", HumanBytes(bytes)),
    };
    let retries = match retries {
        0 => String::new(),
        1 => ", 1 retry".to_owned(),
        n => format!(", {n} retries"),
    };
    format!(
        "{images} {}: {} {verb} ({}), {resumed}{} existing ({}){retries}; {:.1} s",
        if images == 1 { "image" } else { "images" },
        counted(report.transferred.blobs, "blob"),
        HumanBytes(report.transferred.bytes),
        counted(report.existing.blobs, "blob"),
        HumanBytes(report.existing.bytes),
        duration.as_secs_f64()
    )
}

impl From<Count> for CountEntry {
    fn from(count: Count) -> CountEntry {
        CountEntry { blobs: count.blobs, bytes: count.bytes }
    }
}

/// The content of standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdout {
    Answer,
    Archive,
}

/// Returns `NAME@DIGEST` for each name, or `@DIGEST` for an image without a name. A name by digest is omitted if the
/// same repository also has a tag.
pub fn name_lines<'a>(names: &'a [Name], digest: &'a Digest) -> impl Iterator<Item = String> + 'a {
    let unnamed = names.is_empty().then(|| format!("@{digest}"));
    let repository = |name: &Name| name.reference().map(|reference| reference.full_repository());
    let by_tag =
        move |name: &Name| names.iter().any(|other| other.digest().is_none() && repository(other) == repository(name));
    let line = move |name: &Name| match name.digest() {
        Some(_) if by_tag(name) => None,
        Some(own) if own == *digest => Some(name.to_string()),
        _ => Some(format!("{name}@{digest}")),
    };
    names.iter().filter_map(line).chain(unnamed)
}

/// Replaces `file` atomically. A device or a pipe is written directly.
pub fn replace_file(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if fs::metadata(file).is_ok_and(|existing| !existing.is_file()) {
        return fs::write(file, bytes);
    }
    let dir = match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    // The permissions of a new file by the umask, because a temporary file is private by default.
    let mut temporary = tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(dir)?;
    temporary.write_all(bytes)?;
    temporary.as_file().sync_all()?;
    temporary.persist(file).map(|_| ()).map_err(|error| error.error)
}
