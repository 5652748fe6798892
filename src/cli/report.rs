//! What a copy answers with: a line for each image, or one JSON document; and what it tells about bytes.

use super::Run;
use super::answer::{VERSION, kind_word};
use imgmv::copy::{Copied, Count, Report};
use imgmv::image::{Digest, Name, Platform};
use imgmv::progress::Watch;
use imgmv::{Error, Kind, Result};
use indicatif::HumanBytes;
use serde::Serialize;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

/// Collects what each destination got.
pub struct Outcome {
    began: Instant,
    images: Vec<Arrived>,
    moved: Count,
    resumed: u64,
    held: Count,
    dry_run: bool,
    failed: Vec<(String, Error)>,
    destinations: usize,
}

/// One image at one destination.
struct Arrived {
    destination: String,
    image: Copied,
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
        let (images, failed) = (Vec::new(), Vec::new());
        let (moved, held) = (Count::default(), Count::default());
        Outcome { began: Instant::now(), images, moved, resumed: 0, held, dry_run: false, failed, destinations: 0 }
    }

    /// What went to `destination`.
    pub fn add(&mut self, destination: &str, report: Report) {
        self.destinations += 1;
        self.dry_run |= report.dry_run;
        self.resumed += report.resumed;
        for (sum, count) in [(&mut self.moved, report.moved), (&mut self.held, report.held)] {
            sum.blobs += count.blobs;
            sum.bytes += count.bytes;
        }
        let arrived = |image| Arrived { destination: destination.to_owned(), image };
        self.images.extend(report.images.into_iter().map(arrived));
    }

    /// `destination` got nothing, or not all.
    pub fn fail(&mut self, destination: &str, error: Error) {
        self.destinations += 1;
        self.failed.push((destination.to_owned(), error));
    }

    /// Writes the digests to `file`, one a line, replaced as a whole.
    pub fn write_digests(&self, file: &Path) -> Result<()> {
        let lines: String = self.images.iter().map(|arrived| format!("{}\n", arrived.image.digest)).collect();
        write_whole(file, lines.as_bytes()).map_err(|error| Error::writing(file.display(), error))
    }

    /// Answers on standard output, or, where that is the archive, tells on standard error.
    pub fn tell(&self, run: &Run, stdout: Stdout) -> Result<()> {
        run.screen.end();
        run.screen.say(&self.summary(run.screen.retries()));
        match stdout {
            Stdout::Answer if run.answer.json() => run.answer.document(&self.document(run.screen.retries())),
            Stdout::Answer => self.lines().try_for_each(|line| run.answer.line(&line)),
            Stdout::Archive => {
                self.lines().for_each(|line| run.screen.say(&line));
                Ok(())
            }
        }
    }

    /// The error for a run of which some destinations failed, each named.
    pub fn verdict(&self) -> Result<()> {
        let [(_, error), others @ ..] = &self.failed[..] else { return Ok(()) };
        if self.destinations == 1 {
            return Err(error.clone());
        }
        let all: Vec<String> =
            self.failed.iter().map(|(destination, error)| format!("{destination}: {error}")).collect();
        let alike = others.iter().all(|(_, other)| other.kind() == error.kind());
        let kind = match all.len() == self.destinations && alike {
            true => error.kind(),
            false => Kind::Some,
        };
        let (failed, count) = (all.len(), self.destinations);
        Err(Error::several(kind, &format!("{failed} of {count} destinations failed"), &all))
    }

    fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.images.iter().flat_map(|arrived| named(&arrived.image.names, &arrived.image.digest))
    }

    fn summary(&self, retries: usize) -> String {
        let images = self.images.len();
        let verb = if self.dry_run { "to move" } else { "moved" };
        let resumed = match self.resumed {
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
            blobs(self.moved),
            HumanBytes(self.moved.bytes),
            blobs(self.held),
            HumanBytes(self.held.bytes),
            self.began.elapsed().as_secs_f64()
        )
    }

    fn document(&self, retries: usize) -> Document<'_> {
        Document {
            version: VERSION,
            images: self.images.iter().map(Arrived::entry).collect(),
            moved: self.moved.into(),
            resumed: self.resumed,
            retries,
            already_there: self.held.into(),
            seconds: (self.began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
            dry_run: self.dry_run,
            failed: self
                .failed
                .iter()
                .map(|(destination, error)| FailedEntry {
                    destination,
                    kind: kind_word(error.kind()),
                    message: error.to_string(),
                })
                .collect(),
        }
    }
}

impl Arrived {
    fn entry(&self) -> ImageEntry<'_> {
        ImageEntry {
            destination: &self.destination,
            names: self.image.names.iter().map(Name::as_str).collect(),
            digest: &self.image.digest,
            media_type: &self.image.media_type,
            source_digest: &self.image.source_digest,
            platforms: self.image.platforms.iter().map(Platform::to_string).collect(),
        }
    }
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

/// `NAME@DIGEST` for each name; `@DIGEST` for an image that has none.
pub fn named<'a>(names: &'a [Name], digest: &'a Digest) -> impl Iterator<Item = String> + 'a {
    let nameless = names.is_empty().then(|| format!("@{digest}"));
    names.iter().map(move |name| format!("{name}@{digest}")).chain(nameless)
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
