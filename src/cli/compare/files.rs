//! The files of two images: their layers are read from the highest one down, decompressed and hashed, without a copy.

use super::file_table::{Budget, FileState, FileTable, SharedFiles};
use super::platforms::PlatformImage;
use crate::cli::context::CliRun;
use crate::compress;
use crate::image::{Coding, Descriptor, Digest, Hasher};
use crate::progress::{Event, Outcome, Watch};
use crate::source::Store;
use crate::tarball::{LayerEntry, LayerEntryKind, LayerTar, LayerVisitor};
use crate::{Error, Result};
use serde::{Serialize, Serializer};
use std::io::{self, Cursor, Read};

/// Number of first bytes that identify the compression.
const MAGIC_BYTES: u64 = 8;
const BUFFER_BYTES: usize = 256 << 10;

/// The files that differ, by path.
#[derive(Default, Serialize)]
pub struct FileDifferences(pub Vec<FileDifference>);

/// A file that only one image has, or that differs. Times are not compared.
pub struct FileDifference {
    /// Without the leading `/`.
    pub path: Box<str>,
    pub a: Option<FileState>,
    pub b: Option<FileState>,
}

impl FileDifference {
    /// `added`, `removed` or `changed`.
    pub fn change(&self) -> &'static str {
        match (&self.a, &self.b) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        }
    }

    /// The properties that differ between two files.
    pub fn properties(&self) -> Vec<&'static str> {
        let (Some(a), Some(b)) = (&self.a, &self.b) else { return Vec::new() };
        let is_link = b.kind != LayerEntryKind::File && b.kind != LayerEntryKind::Directory;
        let content = if is_link { "target" } else { "content" };
        let properties = [
            ("type", a.kind != b.kind),
            ("size", a.size != b.size),
            (content, a.kind == b.kind && a.hash != b.hash && a.size == b.size),
            ("mode", a.mode != b.mode),
            ("owner", (a.uid, a.gid) != (b.uid, b.gid)),
        ];
        properties.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    /// The size of the file in bytes: in A and in B.
    pub fn sizes(&self) -> (Option<u64>, Option<u64>) {
        (self.a.as_ref().map(|state| state.size), self.b.as_ref().map(|state| state.size))
    }
}

impl Serialize for FileDifference {
    /// Short, since there may be many.
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Entry<'d> {
            path: String,
            change: &'d str,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            properties: Vec<&'d str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            a_size: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            b_size: Option<u64>,
        }
        let ((a_size, b_size), path) = (self.sizes(), format!("/{}", self.path));
        Entry { path, change: self.change(), properties: self.properties(), a_size, b_size }.serialize(serializer)
    }
}

/// Reads the layers of both images and compares the files. Layers that both have at their start are read once.
///
/// # Errors
/// - `NotFound`, `Invalid`: a layer is missing, damaged or hostile.
/// - `Usage`: a layer of an archive that is read once.
/// - `Failed`: too many files differ, or a layer is not a tar of files.
pub fn differences(
    (store_a, a): (&dyn Store, &PlatformImage<'_>),
    (store_b, b): (&dyn Store, &PlatformImage<'_>),
    budget: &mut Budget,
    run: &CliRun,
) -> Result<FileDifferences> {
    let most = a.layers().len().min(b.layers().len());
    let shared = (0..most).find(|at| !a.has_same_layer(*at, b, *at)).unwrap_or(most);
    let mut shared_files = SharedFiles::default();
    let (mut of_a, mut of_b) = (FileTable::default(), FileTable::default());
    for (store, image, table) in [(store_a, a, &mut of_a), (store_b, b, &mut of_b)] {
        for layer in image.layers()[shared..].iter().rev() {
            read(store, layer, Visitor::new(vec![&mut *table], budget, &mut shared_files), run)?;
            table.next_layer();
        }
    }
    let (store, image) = if store_a.profile().is_remote { (store_b, b) } else { (store_a, a) };
    for layer in image.layers()[..shared].iter().rev() {
        read(store, layer, Visitor::new(vec![&mut of_a, &mut of_b], budget, &mut shared_files), run)?;
        shared_files.next_layer();
        of_a.next_layer();
        of_b.next_layer();
    }
    Ok(compared(of_a, of_b))
}

fn compared(a: FileTable, b: FileTable) -> FileDifferences {
    let mut of_b = b.into_files();
    let mut differences = Vec::new();
    for (path, state) in a.into_files() {
        let other = of_b.remove(&path);
        if other.as_ref() != Some(&state) {
            differences.push(FileDifference { path, a: Some(state), b: other });
        }
    }
    differences.extend(of_b.into_iter().map(|(path, state)| FileDifference { path, a: None, b: Some(state) }));
    differences.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    FileDifferences(differences)
}

/// Reads one layer; its bytes must have its digest.
fn read(store: &dyn Store, layer: &Descriptor, mut visitor: Visitor<'_>, run: &CliRun) -> Result<()> {
    if layer.coding().is_none() && !layer.is_foreign() {
        return Err(Error::failed(format!(
            "layer {}: its type {:?} is not a tar of files; compare the images without --files",
            layer.digest, layer.media_type
        )));
    }
    let id = visitor.budget.next_layer();
    run.screen.event(Event::BlobStart { id, label: &layer.digest.short(), size: Some(layer.size) });
    let result = read_tar(store, layer, &mut visitor, id, run);
    let outcome = if result.is_ok() { Outcome::Transferred } else { Outcome::Failed };
    run.screen.event(Event::BlobEnd { id, outcome });
    result.map_err(|error| match error.to_string().contains(&layer.digest.hex()) {
        true => error,
        false => error.at(format!("layer {}", layer.digest)),
    })
}

fn read_tar(store: &dyn Store, layer: &Descriptor, visitor: &mut Visitor<'_>, id: u64, run: &CliRun) -> Result<()> {
    // One byte above the expected size proves a mismatch.
    let mut bytes = store.open(layer, 0)?.take(layer.size.saturating_add(1));
    let mut head = Vec::new();
    (&mut bytes).take(MAGIC_BYTES).read_to_end(&mut head)?;
    let coding = Coding::sniff(&head);
    let hasher = Hasher::new(layer.digest.algorithm());
    let mut reader = LayerReader { bytes: Cursor::new(head).chain(bytes), hasher, id, run };
    let mut tar = LayerTar::new();
    compress::recompress(&mut reader, coding, Coding::Raw, None, 1, &mut |raw| tar.feed(raw, visitor))?;
    let mut rest = vec![0; BUFFER_BYTES];
    while reader.read(&mut rest)? > 0 {}
    let found = reader.hasher.finish();
    match found == layer.digest {
        true => tar.finish(),
        false => Err(Error::digest_mismatch(format!("layer {} does not match: got {found}", layer.digest))),
    }
}

/// Hashes and reports the bytes that are read.
struct LayerReader<'a, R> {
    bytes: R,
    hasher: Hasher,
    id: u64,
    run: &'a CliRun,
}

impl<R: Read> Read for LayerReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.run.cancel.check()?;
        let n = self.bytes.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.run.screen.event(Event::BlobProgress { id: self.id, bytes: n as u64 });
        Ok(n)
    }
}

/// Records the entries of a layer in one table, or in that one of two tables in which a file is visible.
struct Visitor<'t> {
    tables: Vec<&'t mut FileTable>,
    budget: &'t mut Budget,
    shared_files: &'t mut SharedFiles,
    current: Option<CurrentFile>,
}

/// The file whose content is read.
struct CurrentFile {
    table: usize,
    path: String,
    state: FileState,
    hasher: Hasher,
}

impl<'t> Visitor<'t> {
    fn new(tables: Vec<&'t mut FileTable>, budget: &'t mut Budget, shared_files: &'t mut SharedFiles) -> Visitor<'t> {
        Visitor { tables, budget, shared_files, current: None }
    }

    /// The table that records `entry`. A file that both images have is the same one.
    fn table_for(&mut self, entry: &LayerEntry) -> Result<Option<usize>> {
        if self.shared_files.hides(&entry.path) {
            return Ok(None);
        }
        let is_directory = entry.kind == LayerEntryKind::Directory;
        let mut shown = Vec::with_capacity(self.tables.len());
        for table in &mut self.tables {
            let shows = table.shows(&entry.path);
            if !shows && !is_directory {
                table.cover(&entry.path, self.budget)?;
            }
            shown.push(shows);
        }
        Ok(match shown[..] {
            [true] | [true, false] => Some(0),
            [false, true] => Some(1),
            [true, true] if !is_directory => self.shared_files.insert(&entry.path).map(|()| None)?,
            _ => None,
        })
    }
}

impl LayerVisitor for Visitor<'_> {
    fn entry(&mut self, entry: LayerEntry) -> Result<bool> {
        let mut is_whiteout = false;
        for table in &mut self.tables {
            is_whiteout |= table.hide(&entry.path, self.budget)?;
        }
        if is_whiteout {
            return Ok(false);
        }
        let Some(table) = self.table_for(&entry)? else { return Ok(false) };
        let state = FileState::new(&entry);
        if entry.kind == LayerEntryKind::File {
            self.current = Some(CurrentFile { table, path: entry.path, state, hasher: Hasher::default() });
            return Ok(true);
        }
        let linked = (entry.kind == LayerEntryKind::HardLink).then(|| self.tables[table].linked(&entry.link)).flatten();
        let state = match linked {
            Some(linked) => linked.clone(),
            None => FileState { hash: short(Digest::of(entry.link.as_bytes())), ..state },
        };
        self.tables[table].insert(&entry.path, state, self.budget)?;
        Ok(false)
    }

    fn content(&mut self, bytes: &[u8]) {
        if let Some(current) = &mut self.current {
            current.hasher.update(bytes);
        }
    }

    fn end(&mut self) -> Result<()> {
        let Some(CurrentFile { table, path, state, hasher }) = self.current.take() else { return Ok(()) };
        let state = FileState { hash: short(hasher.finish()), ..state };
        self.tables[table].insert(&path, state, self.budget)
    }
}

/// The first 16 bytes of `digest`.
fn short(digest: Digest) -> [u8; 16] {
    let bytes: &[u8] = match &digest {
        Digest::Sha256(bytes) => bytes,
        Digest::Sha512(bytes) => bytes,
    };
    std::array::from_fn(|at| bytes[at])
}
