//! docker's own directory as dockerd leaves it, written by hand: the store of one graph driver.
#![allow(dead_code)]

use super::tar_split::{Parts, split};
use imgmv::Digest;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A data root.
pub struct DockerDir {
    pub dir: TempDir,
    driver: &'static str,
    repositories: Value,
}

impl DockerDir {
    /// Without an image.
    pub fn new(driver: &'static str) -> DockerDir {
        let docker = DockerDir { dir: TempDir::new().unwrap(), driver, repositories: json!({}) };
        fs::create_dir_all(docker.image().join("imagedb/content/sha256")).unwrap();
        docker.write_names();
        docker
    }

    /// `image/DRIVER`
    pub fn image(&self) -> PathBuf {
        self.dir.path().join("image").join(self.driver)
    }

    /// Adds the image of `layers`, tars, under `names`. Returns its ID.
    pub fn add(&mut self, names: &[&str], layers: &[Vec<u8>]) -> Digest {
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        self.add_config(names, config.to_string().as_bytes(), layers)
    }

    /// Adds the image with the config `config` and `layers`.
    pub fn add_config(&mut self, names: &[&str], config: &[u8], layers: &[Vec<u8>]) -> Digest {
        let id = Digest::of(config);
        put(&self.config(&id), config);
        let mut parent: Option<Digest> = None;
        for layer in layers {
            parent = Some(self.add_layer(layer, parent));
        }
        for name in names {
            self.name(name, &id);
        }
        id
    }

    /// The config of the image `id`.
    pub fn config(&self, id: &Digest) -> PathBuf {
        self.image().join(format!("imagedb/content/sha256/{}", id.hex()))
    }

    /// Gives `id` a name.
    pub fn name(&mut self, name: &str, id: &Digest) {
        let repository = name.split('@').next().unwrap();
        let repository = match repository.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => repository,
            _ => repository,
        };
        self.repositories[repository][name] = json!(id);
        self.write_names();
    }

    /// Removes a repository's names.
    pub fn unname(&mut self, repository: &str) {
        self.repositories.as_object_mut().unwrap().remove(repository);
        self.write_names();
    }

    fn write_names(&self) {
        let text = json!({ "Repositories": self.repositories }).to_string();
        fs::write(self.image().join("repositories.json"), text).unwrap();
    }

    /// Adds a layer above `parent`. Returns its chain ID.
    fn add_layer(&self, tar: &[u8], parent: Option<Digest>) -> Digest {
        let diff_id = Digest::of(tar);
        let chain = parent.map_or(diff_id, |parent| Digest::of(format!("{parent} {diff_id}").as_bytes()));
        let parts = split(tar);
        let cache_id = Digest::of(chain.to_string().as_bytes()).hex();
        let record = self.record(&chain);
        put(&record.join("cache-id"), cache_id.as_bytes());
        put(&record.join("diff"), diff_id.to_string().as_bytes());
        let size: usize = parts.files.iter().map(|(_, content)| content.len()).sum();
        put(&record.join("size"), size.to_string().as_bytes());
        put(&record.join("tar-split.json.gz"), &parts.compressed());
        if let Some(parent) = parent {
            put(&record.join("parent"), parent.to_string().as_bytes());
        }
        self.extract(&parts, &cache_id);
        chain
    }

    fn extract(&self, parts: &Parts, cache_id: &str) {
        let files = self.files(cache_id);
        fs::create_dir_all(&files).unwrap();
        for (name, content) in &parts.files {
            put(&files.join(OsStr::from_bytes(name)), content);
        }
    }

    fn files(&self, cache_id: &str) -> PathBuf {
        match self.driver {
            "vfs" => self.dir.path().join("vfs/dir").join(cache_id),
            driver => self.dir.path().join(driver).join(cache_id).join("diff"),
        }
    }

    /// The record of the layer `chain`.
    pub fn record(&self, chain: &Digest) -> PathBuf {
        self.image().join("layerdb/sha256").join(chain.hex())
    }

    /// The files of the layer `chain`.
    pub fn files_of(&self, chain: &Digest) -> PathBuf {
        self.files(&fs::read_to_string(self.record(chain).join("cache-id")).unwrap())
    }
}

fn put(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A tar of regular files.
pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar.into_inner().unwrap()
}
