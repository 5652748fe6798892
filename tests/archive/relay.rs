//! An old archive passes a pipe in its own form: once, re-tagged, and never whole where it does not hold together.

use crate::make::*;
use imgmv::internals::archive::ArchiveSink;
use imgmv::{Digest, Kind, Name, Naming, Options, Result, Selector, Store};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    sync::{Arc, Mutex},
};

/// What came out of a pipe.
#[derive(Clone, Default)]
pub struct Pipe(pub Arc<Mutex<Vec<u8>>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Pipe {
    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

fn relayed(bytes: Vec<u8>, options: &Options) -> (Vec<u8>, Result<imgmv::Report>) {
    let pipe = Pipe::default();
    let sink = ArchiveSink::to_writer(Box::new(pipe.clone()), "the pipe");
    let report = run(streamed(bytes), &sink, options);
    drop(sink);
    (pipe.bytes(), report)
}

fn renamed(name: &str) -> Options {
    Options { naming: Naming::Names(vec![Name::new(name).unwrap()]), ..Options::default() }
}

/// Names and content of an archive's files, by another reader than the one under test.
pub fn files(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(bytes);
    let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), content)
    };
    archive.entries().unwrap().map(read).collect()
}

#[test]
fn an_old_archive_keeps_its_form_and_gets_the_new_name() {
    for file in ["hello-docker20.tar", "hello-podman-docker.tar", "hello-crane.tar", "hello-crane-legacy.tar"] {
        let (out, report) = relayed(fixture(file), &renamed("registry.lan:5000/team/app:9"));
        let (before, after) = (files(&fixture(file)), files(&out));
        let (last, content) = after.last().unwrap();
        let list: Value = serde_json::from_slice(content).unwrap();
        assert_eq!((last.as_str(), &list[0]["RepoTags"]), ("manifest.json", &json!(["registry.lan:5000/team/app:9"])));
        for (name, content) in &before {
            if !["manifest.json", "repositories"].contains(&name.as_str()) {
                assert!(after.contains(&(name.clone(), content.clone())), "{file}: {name}");
            }
        }
        let store = store(out).unwrap();
        let root = &store.roots(&[]).unwrap()[0];
        assert_eq!(root.name.as_ref().unwrap().as_str(), "registry.lan:5000/team/app:9");
        assert_eq!(report.unwrap().images[0].digest, root.descriptor.digest);
    }
}

#[test]
fn names_are_kept_spelled_in_full_and_the_others_left_out() {
    let options = Options { selectors: vec![Selector::Name("hello-imgmv:latest".into())], ..Options::default() };
    let (out, _) = relayed(fixture("two-images-docker20.tar"), &options);
    let after = files(&out);
    let find = |name: &str| &after.iter().find(|(other, _)| other == name).unwrap().1;
    let list: Value = serde_json::from_slice(find("manifest.json")).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!(list[0]["RepoTags"], json!(["docker.io/library/hello-imgmv:latest"]));
    let repositories: Value = serde_json::from_slice(find("repositories")).unwrap();
    assert_eq!(repositories.as_object().unwrap().keys().collect::<Vec<_>>(), ["docker.io/library/hello-imgmv"]);
}

#[test]
fn what_does_not_match_its_config_never_gets_a_list() {
    let image = Image::new(2);
    let mut files = image.old_files();
    let layer = files.iter().position(|(name, _)| name.ends_with("layer.tar")).unwrap();
    files[layer].1[3000] ^= 1;
    for list_first in [false, true] {
        let mut files = files.clone();
        let at = if list_first { 0 } else { files.len() };
        files.insert(at, saved(json!([image.saved(&["app:2"])])));
        let (out, report) = relayed(tar(&files), &Options::default());
        assert_eq!(report.unwrap_err().kind(), Kind::Invalid);
        assert!(!out.windows(13).any(|window| window == b"manifest.json"));
        assert!(store(out).is_err());
    }
}

#[test]
fn a_cut_old_archive_never_gets_a_list() {
    let bytes = old(&Image::new(2), &["app:2"]);
    for at in (600..bytes.len() - 1100).step_by(1999) {
        let (out, report) = relayed(bytes[..at].to_vec(), &Options::default());
        assert_eq!(report.unwrap_err().kind(), Kind::Invalid);
        assert!(store(out).is_err());
    }
}

#[test]
fn two_images_never_become_one_name() {
    let (out, report) = relayed(fixture("two-images-docker20.tar"), &renamed("app:9"));
    assert_eq!(report.unwrap_err().kind(), Kind::Usage);
    assert!(store(out).is_err());
}

#[test]
fn a_layout_in_a_pipe_becomes_the_universal_form() {
    let (out, report) = relayed(fixture("hello-skopeo-oci.tar"), &renamed("app:9"));
    let digest = report.unwrap().images[0].digest;
    let store = store(out).unwrap();
    assert_eq!(store.roots(&[Selector::Name("app:9".into())]).unwrap()[0].descriptor.digest, digest);
    assert_eq!(store.find(&digest).unwrap().map(|found| found.digest), Some::<Digest>(digest));
}
