//! A registry with images, one that gets them, and a folder for documents.

use crate::support::noise::noise;
use crate::support::program::{Output, imgmv};
use crate::support::registry::Double;
use imgmv::Digest;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

pub struct Scene {
    pub from: Double,
    pub to: Double,
    pub dir: TempDir,
}

impl Scene {
    pub fn new() -> Scene {
        Scene { from: Double::start(), to: Double::start(), dir: TempDir::new().unwrap() }
    }

    /// An image with a layer of its own and one that all have; returns its digest.
    pub fn image(&self, repository: &str, tag: &str, seed: u64) -> Digest {
        self.from.image(repository, tag, &[&noise(1, 5000), &noise(seed, 3000)]).digest()
    }

    /// The path of a file in the folder.
    pub fn at(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Writes a document; `FROM` and `TO` in it are the registries. Returns its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let text = text.replace("FROM", &self.from.host()).replace("TO", &self.to.host());
        fs::write(self.at(name), text).unwrap();
        self.at(name)
    }

    /// `imgmv sync` with `words`, in which `FROM` and `TO` are the registries.
    pub fn sync(&self, words: &[&str]) -> Output {
        let words: Vec<String> =
            words.iter().map(|word| word.replace("FROM", &self.from.host()).replace("TO", &self.to.host())).collect();
        let words: Vec<&str> = ["sync"].into_iter().chain(words.iter().map(String::as_str)).collect();
        imgmv(&words, None)
    }

    /// As [`Scene::sync`], which must succeed.
    pub fn synced(&self, words: &[&str]) -> Output {
        let output = self.sync(words);
        assert!(output.status.success(), "{}", output.stderr);
        output
    }

    pub fn read(&self, name: impl AsRef<Path>) -> String {
        fs::read_to_string(self.dir.path().join(name)).unwrap()
    }
}
