//! Where hostile images are copied to, and what is looked for there afterwards.

use imgmv::internals::image::{Algorithm, LayoutIndex};
use imgmv::internals::layout::{BlobCheck, LayoutSink};
use imgmv::{Cancel, Descriptor, Digest, Error, Hasher, Manifest, Options, Report, Result, Silent, Source, copy};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PRECIOUS: &[u8] = b"precious";

/// A layout that may be written, among files that may not.
pub struct Target(tempfile::TempDir);

impl Target {
    pub fn new() -> Target {
        let target = Target(tempfile::tempdir().unwrap());
        fs::create_dir(target.at("work")).unwrap();
        for name in ["outside", "work/beside"] {
            fs::write(target.at(name), PRECIOUS).unwrap();
        }
        target
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn layout(&self) -> PathBuf {
        self.at("work/layout")
    }

    pub fn take(&self, source: Source) -> Result<Report> {
        self.take_with(source, &Options::default())
    }

    pub fn take_with(&self, source: Source, options: &Options) -> Result<Report> {
        let sink = LayoutSink::open(&self.layout(), BlobCheck::Size, Arc::new(Silent))?;
        copy(source, &sink, options, None, &Silent, &Cancel::default())
    }

    /// Copies, which must fail; whatever was written is sound and nameless.
    pub fn refuse(&self, source: Result<Source>) -> Error {
        let error = match source.and_then(|source| self.take(source)) {
            Ok(report) => panic!("it was taken: {report:?}"),
            Err(error) => error,
        };
        assert_eq!(self.sound(), 0, "something has a name although: {error}");
        error
    }

    /// The number of images that have an entry, once all is found to be as it should.
    pub fn sound(&self) -> usize {
        let mut files: Vec<PathBuf> = walkdir::WalkDir::new(self.0.path())
            .into_iter()
            .map(|entry| entry.unwrap())
            .filter(|entry| !entry.file_type().is_dir())
            .map(|entry| entry.path().strip_prefix(self.0.path()).unwrap().to_owned())
            .collect();
        files.retain(|file| {
            let Ok(inner) = file.strip_prefix("work/layout") else { return true };
            self.belongs(inner);
            false
        });
        files.sort();
        assert_eq!(files, [Path::new("outside"), Path::new("work/beside")], "written outside the layout");
        for file in files {
            assert_eq!(fs::read(self.0.path().join(&file)).unwrap(), PRECIOUS, "{file:?}");
        }
        self.named()
    }

    /// `file` of the layout has the name it may have.
    fn belongs(&self, file: &Path) {
        let whole = self.layout().join(file);
        assert!(fs::symlink_metadata(&whole).unwrap().is_file(), "{file:?} is no plain file");
        let parts: Vec<&str> = file.iter().map(|part| part.to_str().unwrap()).collect();
        match parts[..] {
            ["oci-layout" | "index.json"] => {}
            ["blobs", algorithm, hex] => {
                let digest: Digest = format!("{algorithm}:{hex}").parse().unwrap();
                assert_eq!(hash(&whole, digest.algorithm()), digest, "a blob is not what its name says");
            }
            // Of a copy that was cut: taken up or swept by the next one, and taken for a blob by nobody.
            [name] if name.starts_with(".imgmv-") => {}
            _ => panic!("{file:?} has no business in a layout"),
        }
    }

    /// Every entry leads to a whole image.
    fn named(&self) -> usize {
        let Ok(bytes) = fs::read(self.layout().join("index.json")) else { return 0 };
        let entries = LayoutIndex::parse(&bytes).unwrap().entries().unwrap();
        for entry in &entries {
            assert!(self.whole(entry), "an entry leads to {}, which is not all there", entry.digest);
        }
        entries.len()
    }

    /// Whether what `at` names is there with all that it names: of an index, at least one image.
    fn whole(&self, at: &Descriptor) -> bool {
        let Ok(bytes) = fs::read(self.blob(&at.digest)) else { return false };
        let manifest = Manifest::parse(bytes, at).unwrap();
        let blob = |blob: &&Descriptor| {
            fs::metadata(self.blob(&blob.digest)).is_ok_and(|file| file.is_file() && file.len() == blob.size)
        };
        let children = manifest.children();
        manifest.blobs().iter().all(blob) && (children.is_empty() || children.iter().any(|child| self.whole(child)))
    }

    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.layout().join(digest.blob_path())
    }
}

fn hash(file: &Path, algorithm: Algorithm) -> Digest {
    Hasher::new(algorithm).with(&fs::read(file).unwrap()).finish()
}
