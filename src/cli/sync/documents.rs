//! The set of a run: a document on the disk or on standard input, or one word of the command line.

use crate::cli::context::CliRun;
use crate::message::{counted, some_of};
use crate::sets::{self, Entry, ImageSet, MAX_DOCUMENT_BYTES, ReadOptions, Tags};
use crate::{Error, Result};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The limit on a file that a template of a credential names, in bytes.
const MAX_SECRET_FILE_BYTES: u64 = 64 << 10;

/// How a document is read.
#[derive(Debug, Clone, Copy)]
pub struct DocumentOptions {
    /// `--allow-templates`
    pub allow_templates: bool,
    /// `--strict`
    pub strict: bool,
    /// `--allow-empty`
    pub allow_empty: bool,
}

/// The images of one word of the command line, and the file if it is one.
pub struct SyncSet {
    pub entries: Vec<Entry>,
    pub hosts: Vec<sets::HostOptions>,
    /// The document's format; none for a word that is an image or a pattern.
    pub format: Option<sets::Format>,
    /// The document; none for standard input and for a word.
    pub file: Option<PathBuf>,
    pub not_honoured: Vec<String>,
}

/// Reads the set that `word` names, and says which format it has.
///
/// # Errors
/// - `NotFound`, `Denied`, `Failed`: the file cannot be read.
/// - `Invalid`: the document is not a set; the message has the place.
/// - `Usage`: with `--strict`, a key is not honoured.
pub fn read(word: &str, options: DocumentOptions, run: &CliRun) -> Result<SyncSet> {
    if !sets::is_document_word(word) {
        return one_word(word);
    }
    let (label, file) = match word {
        "-" => ("standard input".to_owned(), None),
        path => (path.to_owned(), Some(expanded(path))),
    };
    let bytes = match &file {
        Some(path) => bounded(File::open(path).map_err(|error| Error::reading(&label, error))?, &label)?,
        None => bounded(io::stdin().lock(), &label)?,
    };
    let lookup = ReadOptions {
        allow_templates: options.allow_templates,
        allow_empty: options.allow_empty,
        env: &|name| std::env::var(name).ok(),
        file: &secret_file,
    };
    let set = sets::read(&bytes, &lookup).map_err(|error| error.at(&label))?;
    tell(&label, &set, options, run)?;
    let ImageSet { format, entries, hosts, not_honoured } = set;
    Ok(SyncSet { entries, hosts, format: Some(format), file, not_honoured })
}

/// The path of a word: `~/` is the home directory.
fn expanded(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(path),
    }
}

fn bounded(bytes: impl Read, label: &str) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    bytes.take(MAX_DOCUMENT_BYTES as u64 + 1).read_to_end(&mut text).map_err(|error| Error::reading(label, error))?;
    match text.len() > MAX_DOCUMENT_BYTES {
        true => Err(Error::invalid(format!("{label}: the document has more than {} MiB", MAX_DOCUMENT_BYTES >> 20))),
        false => Ok(text),
    }
}

/// The text of the file `path` that a template of a credential names.
fn secret_file(path: &str) -> Result<String> {
    let file = File::open(path).map_err(|error| Error::reading(path, error))?;
    let mut text = String::new();
    file.take(MAX_SECRET_FILE_BYTES).read_to_string(&mut text).map_err(|error| Error::reading(path, error))?;
    Ok(text)
}

/// A word that is an image or a pattern.
fn one_word(word: &str) -> Result<SyncSet> {
    let entry = sets::pattern(word)?.unwrap_or_else(|| Entry {
        place: word.into(),
        from: word.into(),
        tags: Tags::Named,
        to: Vec::new(),
        platforms: Vec::new(),
        referrers: None,
    });
    Ok(SyncSet { entries: vec![entry], hosts: Vec::new(), format: None, file: None, not_honoured: Vec::new() })
}

/// Prints the format, the keys that are not honoured, and the hosts whose certificates the document does not check.
fn tell(label: &str, set: &ImageSet, options: DocumentOptions, run: &CliRun) -> Result<()> {
    let watch = run.watch();
    watch.say(&format!("{label}: {}, {}", set.format, counted(set.entries.len(), "entry")));
    if !set.not_honoured.is_empty() {
        let keys = some_of(&set.not_honoured);
        if options.strict {
            return Err(Error::usage(format!(
                "{label}: {keys}: imgmv does not honour this; remove it from the document, or omit --strict"
            )));
        }
        watch.say(&format!("{label}: not honoured: {keys}"));
    }
    for host in set.hosts.iter().filter(|host| host.insecure) {
        watch.say(&format!(
            "{} is insecure by {label}: its certificate is not checked, and plain HTTP is used if it has no TLS",
            host.host
        ));
    }
    Ok(())
}
