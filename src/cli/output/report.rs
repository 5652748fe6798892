//! What a copy answers with: a line for each image, or one JSON document; and what it tells about bytes.

use super::answer::{VERSION, kind_word};
use crate::cli::context::Run;
use crate::copy::{Copied, Count, Report};
use crate::image::{Digest, Name, Platform};
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

/// Collects what each destination got.
pub struct Outcome {
    began: Instant,
    destinations: Vec<Destination>,
}

/// One destination, and what became of it.
struct Destination {
    word: String,
    done: Result<Report>,
    took: Duration,
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    images: Vec<ImageEntry<'a>>,
    moved: CountEntry,
    /// Bytes that an earlier run had left.
    resumed: u64,
    retries: usize,
    already_there: CountEntry,
    seconds: f64,
    dry_run: bool,
    failed: Vec<FailedEntry<'a>>,
    /// Each one, in the order in which they were named.
    destinations: Vec<DestinationEntry<'a>>,
}

#[derive(Serialize)]
struct DestinationEntry<'a> {
    destination: &'a str,
    /// `done` or `failed`.
    status: &'static str,
    images: usize,
    moved: CountEntry,
    resumed: u64,
    already_there: CountEntry,
    seconds: f64,
}

#[derive(Serialize)]
struct ImageEntry<'a> {
    destination: &'a str,
    names: Vec<&'a str>,
    digest: &'a Digest,
    media_type: &'a str,
    source_digest: &'a Digest,
    platforms: Vec<String>,
}

#[derive(Serialize)]
struct CountEntry {
    blobs: usize,
    bytes: u64,
}

#[derive(Serialize)]
struct FailedEntry<'a> {
    destination: &'a str,
    kind: &'static str,
    message: String,
}

impl Outcome {
    pub fn new() -> Outcome {
        Outcome { began: Instant::now(), destinations: Vec::new() }
    }

    /// What became of the copy to `word`, which took so long.
    pub fn add(&mut self, word: &str, done: Result<Report>, took: Duration) {
        self.destinations.push(Destination { word: word.to_owned(), done, took });
    }

    fn done(&self) -> impl Iterator<Item = (&Destination, &Report)> {
        self.destinations.iter().filter_map(|one| Some((one, one.done.as_ref().ok()?)))
    }

    fn failed(&self) -> impl Iterator<Item = (&Destination, &Error)> {
        self.destinations.iter().filter_map(|one| Some((one, one.done.as_ref().err()?)))
    }

    fn images(&self) -> impl Iterator<Item = (&Destination, &Copied)> {
        self.done().flat_map(|(one, report)| report.images.iter().map(move |image| (one, image)))
    }

    /// All of them together.
    fn sum(&self) -> Report {
        let mut sum = Report::default();
        for (_, report) in self.done() {
            sum.count(report);
            sum.dry_run |= report.dry_run;
        }
        sum
    }

    /// Writes the digests to `file`, one a line, replaced as a whole.
    pub fn write_digests(&self, file: &Path) -> Result<()> {
        let mut lines: Vec<String> = self.images().map(|(_, image)| format!("{}\n", image.digest)).collect();
        // The same image everywhere is one line.
        let mut seen = HashSet::new();
        lines.retain(|line| self.destinations.len() == 1 || seen.insert(line.clone()));
        let lines = lines.concat();
        write_whole(file, lines.as_bytes()).map_err(|error| Error::writing(file.display(), error))
    }

    /// Answers on standard output, or, where that is the archive, tells on standard error.
    pub fn tell(&self, run: &Run, stdout: Stdout) -> Result<()> {
        run.screen.end();
        if self.destinations.len() > 1 {
            for (one, report) in self.done() {
                run.screen.say(&format!("{}: {}", one.word, told(report, report.images.len(), 0, one.took)));
            }
        }
        let retries = run.screen.retries();
        run.screen.say(&told(&self.sum(), self.images().count(), retries, self.began.elapsed()));
        match stdout {
            Stdout::Answer if run.answer.json() => run.answer.document(&self.document(retries)),
            Stdout::Answer => self.lines().try_for_each(|line| run.answer.line(&line)),
            Stdout::Archive => {
                self.lines().for_each(|line| run.screen.say(&line));
                Ok(())
            }
        }
    }

    /// The error for a run of which some destinations failed, each named.
    pub fn verdict(&self) -> Result<()> {
        let failed: Vec<(&Destination, &Error)> = self.failed().collect();
        let [(_, error), others @ ..] = &failed[..] else { return Ok(()) };
        if self.destinations.len() == 1 {
            return Err(Error::clone(error));
        }
        let all: Vec<String> = failed.iter().map(|(one, error)| format!("{}: {error}", one.word)).collect();
        let alike = others.iter().all(|(_, other)| other.kind() == error.kind());
        let kind = match all.len() == self.destinations.len() && alike {
            true => error.kind(),
            false => Kind::Partial,
        };
        let (failed, count) = (all.len(), self.destinations.len());
        Err(Error::several(kind, &format!("{failed} of {count} destinations failed"), &all))
    }

    /// A line for each image; once where several destinations have it under one name.
    fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let mut seen = HashSet::new();
        let all = self.images().flat_map(|(_, image)| named(&image.names, &image.digest));
        all.filter(move |line| self.destinations.len() == 1 || seen.insert(line.clone()))
    }

    fn document(&self, retries: usize) -> Document<'_> {
        let sum = self.sum();
        let failed = self.failed().map(|(one, error)| FailedEntry {
            destination: &one.word,
            kind: kind_word(error.kind()),
            message: error.to_string(),
        });
        Document {
            version: VERSION,
            images: self.images().map(|(one, image)| ImageEntry::of(one, image)).collect(),
            moved: sum.moved.into(),
            resumed: sum.resumed,
            retries,
            already_there: sum.held.into(),
            seconds: seconds(self.began.elapsed()),
            dry_run: sum.dry_run,
            failed: failed.collect(),
            destinations: self.destinations.iter().map(Destination::entry).collect(),
        }
    }
}

impl Destination {
    fn entry(&self) -> DestinationEntry<'_> {
        let (status, report) = match &self.done {
            Ok(report) => ("done", report.clone()),
            Err(_) => ("failed", Report::default()),
        };
        DestinationEntry {
            destination: &self.word,
            status,
            images: report.images.len(),
            moved: report.moved.into(),
            resumed: report.resumed,
            already_there: report.held.into(),
            seconds: seconds(self.took),
        }
    }
}

impl<'a> ImageEntry<'a> {
    fn of(destination: &'a Destination, image: &'a Copied) -> ImageEntry<'a> {
        ImageEntry {
            destination: &destination.word,
            names: image.names.iter().map(Name::as_str).collect(),
            digest: &image.digest,
            media_type: &image.media_type,
            source_digest: &image.source_digest,
            platforms: image.platforms.iter().map(Platform::to_string).collect(),
        }
    }
}

/// To the millisecond.
fn seconds(took: Duration) -> f64 {
    (took.as_secs_f64() * 1000.0).round() / 1000.0
}

/// A copy in one line.
fn told(report: &Report, images: usize, retries: usize, took: Duration) -> String {
    let verb = if report.dry_run { "to move" } else { "moved" };
    let resumed = match report.resumed {
        0 => String::new(),
        bytes => format!("{} resumed, ", HumanBytes(bytes)),
    };
    let retries = match retries {
        0 => String::new(),
        1 => ", 1 retry".to_owned(),
        n => format!(", {n} retries"),
    };
    format!(
        "{images} {}: {} {verb} ({}), {resumed}{} there already ({}){retries}; {:.1} s",
        if images == 1 { "image" } else { "images" },
        blobs(report.moved),
        HumanBytes(report.moved.bytes),
        blobs(report.held),
        HumanBytes(report.held.bytes),
        took.as_secs_f64()
    )
}

impl From<Count> for CountEntry {
    fn from(count: Count) -> CountEntry {
        CountEntry { blobs: count.blobs, bytes: count.bytes }
    }
}

/// What standard output is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdout {
    Answer,
    Archive,
}

/// `NAME@DIGEST` for each name, once where a repository has it by tag and by digest; `@DIGEST` for an image without one.
pub fn named<'a>(names: &'a [Name], digest: &'a Digest) -> impl Iterator<Item = String> + 'a {
    let nameless = names.is_empty().then(|| format!("@{digest}"));
    let place = |name: &Name| name.reference().map(|reference| reference.full_repository());
    let by_tag = move |name: &Name| names.iter().any(|other| other.digest().is_none() && place(other) == place(name));
    let line = move |name: &Name| match name.digest() {
        Some(_) if by_tag(name) => None,
        Some(own) if own == *digest => Some(name.to_string()),
        _ => Some(format!("{name}@{digest}")),
    };
    names.iter().filter_map(line).chain(nameless)
}

fn blobs(count: Count) -> String {
    if count.blobs == 1 { "1 blob".to_owned() } else { format!("{} blobs", count.blobs) }
}

/// A file that is replaced as a whole; a device or a pipe is written to.
fn write_whole(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if fs::metadata(file).is_ok_and(|there| !there.is_file()) {
        return fs::write(file, bytes);
    }
    let dir = match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    // As any new file: what the umask leaves. (A temporary file is otherwise its owner's alone.)
    let mut temporary = tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(dir)?;
    temporary.write_all(bytes)?;
    temporary.as_file().sync_all()?;
    temporary.persist(file).map(|_| ()).map_err(|error| error.error)
}
