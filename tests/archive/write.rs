//! The universal form: what is in it, that it is the same for the same images, and that a file appears whole or not.

use crate::make::*;
use crate::memory::{Memory, layer};
use crate::relay::{Pipe, files};
use imgmv::internals::archive::{ArchiveSink, Input, open};
use imgmv::internals::image::media_type;
use imgmv::{Descriptor, Manifest, Name, Naming, Options, Platform, Source, Store};
use serde_json::{Value, json};
use std::{fs, path::Path, sync::Arc};

fn sample() -> Memory {
    let mut memory = Memory::default();
    let single = memory.image("linux/amd64", &[layer(1, 100_000), layer(2, 3_000_000)]);
    memory.name("docker.io/library/app:2", &single);
    memory.name("docker.io/library/app:latest", &single);
    let host = Platform::host().to_string();
    let other = if host == "linux/arm64" { "linux/amd64" } else { "linux/arm64" };
    let here = memory.image(&host, &[layer(1, 100_000), layer(3, 1000)]);
    let there = memory.image(other, &[layer(4, 1000)]);
    let index = memory.index(&[there, here]);
    memory.name("ghcr.io/org/multi:1", &index);
    memory
}

fn source(memory: &Memory) -> Source {
    Source::Store(Arc::new(memory.clone()))
}

fn written(memory: &Memory) -> Vec<u8> {
    let pipe = Pipe::default();
    run(source(memory), &ArchiveSink::to_writer(Box::new(pipe.clone()), "pipe"), &Options::default()).unwrap();
    pipe.bytes()
}

fn silent() -> Arc<imgmv::Silent> {
    Arc::new(imgmv::Silent)
}

fn names_in(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn everything_is_in_it_once_and_the_lists_come_last() {
    let memory = sample();
    let entries = files(&written(&memory));
    let names: Vec<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[0], "oci-layout");
    assert_eq!(names[names.len() - 2..], ["index.json", "manifest.json"]);
    assert_eq!(names.len(), memory.blobs.len() + 3);
    for (digest, bytes) in &memory.blobs {
        assert!(entries.contains(&(digest.blob_path(), bytes.clone())));
    }
    let index: Value = serde_json::from_slice(&entries[names.len() - 2].1).unwrap();
    let annotations = &index["manifests"][0]["annotations"];
    assert_eq!(annotations["io.containerd.image.name"], "docker.io/library/app:2");
    assert_eq!(annotations["org.opencontainers.image.ref.name"], "2");
    let list: Value = serde_json::from_slice(&entries[names.len() - 1].1).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(list[0]["RepoTags"], json!(["docker.io/library/app:2", "docker.io/library/app:latest"]));
    let host = Manifest::parse(memory.blobs[&memory.roots[2].descriptor.digest].clone(), &memory.roots[2].descriptor);
    let host = host.unwrap().children()[1].clone();
    let host = Manifest::parse(memory.blobs[&host.digest].clone(), &host).unwrap();
    assert_eq!(list[1]["Config"], host.config().unwrap().digest.blob_path());
    assert_eq!(list[1]["Layers"][1], host.layers()[1].digest.blob_path());
}

#[test]
fn the_same_images_give_the_same_bytes_in_a_pipe_and_in_a_file() {
    let memory = sample();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.tar");
    run(source(&memory), &ArchiveSink::to_file(&path).unwrap(), &Options::default()).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert!(bytes == written(&memory));
    let mut turned = memory.clone();
    turned.roots.swap(0, 1);
    assert!(bytes == written(&turned));
    let again = Pipe::default();
    run(
        open(&Input::File(path), silent()).unwrap(),
        &ArchiveSink::to_writer(Box::new(again.clone()), "pipe"),
        &Options::default(),
    )
    .unwrap();
    let same = |bytes: &[u8]| {
        let mut all = files(bytes);
        all.sort();
        all
    };
    assert!(same(&again.bytes()) == same(&bytes));
}

#[test]
fn an_archive_cut_anywhere_loads_nowhere() {
    let bytes = written(&sample());
    for at in (0..bytes.len() - 1024).step_by(9973).chain([bytes.len() - 1025, bytes.len() - 1100]) {
        assert!(store(bytes[..at].to_vec()).is_err(), "cut at {at}");
    }
}

#[test]
fn layers_whose_digest_comes_late_get_their_headers_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.tar");
    let image = Image::new(2);
    let sink = ArchiveSink::to_file(&path).unwrap();
    run(streamed(old(&image, &["old:1"])), &sink, &Options::default()).unwrap();
    let read = store(fs::read(&path).unwrap()).unwrap();
    assert_eq!(read.roots(&[]).unwrap()[0].descriptor.digest, image.raw_manifest().digest());
    assert_eq!(names_in(folder.path()), ["out.tar"]);
}

#[test]
fn a_file_is_replaced_whole_at_the_end_and_left_alone_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.tar");
    fs::write(&path, b"before").unwrap();
    let mut broken = sample();
    let layer = broken.blobs.values().map(Vec::len).max().unwrap();
    let digest = *broken.blobs.iter().find(|(_, bytes)| bytes.len() == layer).unwrap().0;
    broken.blobs.get_mut(&digest).unwrap()[5000] ^= 1;
    let sink = ArchiveSink::to_file(&path).unwrap();
    assert!(run(source(&broken), &sink, &Options::default()).is_err());
    drop(sink);
    assert_eq!(fs::read(&path).unwrap(), b"before");
    assert!(names_in(folder.path()).iter().all(|name| name == "out.tar" || name.starts_with(".out.tar.imgmv-")));
    let sink = ArchiveSink::to_file(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"before");
    run(source(&sample()), &sink, &Options::default()).unwrap();
    assert!(fs::read(&path).unwrap() == written(&sample()));
    assert_eq!(names_in(folder.path()), ["out.tar"]);
}

#[test]
fn an_archive_may_be_written_over_the_one_it_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.tar");
    let image = Image::new(2);
    fs::write(&path, old(&image, &["app:2"])).unwrap();
    let source = open(&Input::File(path.clone()), silent()).unwrap();
    let options = Options { naming: Naming::Names(vec![Name::new("app:3").unwrap()]), ..Options::default() };
    run(source, &ArchiveSink::to_file(&path).unwrap(), &options).unwrap();
    let read = store(fs::read(&path).unwrap()).unwrap();
    assert_eq!(read.names().unwrap()[0].as_str(), "app:3");
}

#[test]
fn what_is_there_and_no_file_is_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("link.tar");
    let real = folder.path().join("real.tar");
    fs::write(&real, b"before").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    run(source(&sample()), &ArchiveSink::to_file(&link).unwrap(), &Options::default()).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::read(&real).unwrap() == written(&sample()));
    run(source(&sample()), &ArchiveSink::to_file(Path::new("/dev/null")).unwrap(), &Options::default()).unwrap();
    assert!(ArchiveSink::to_file(folder.path()).is_err());
    assert!(ArchiveSink::to_file(&folder.path().join("none/out.tar")).is_err());
}

#[test]
fn artifacts_and_images_for_others_are_not_in_dockers_list() {
    let mut memory = Memory::default();
    let config = memory.keep("application/vnd.oci.empty.v1+json", b"{}".to_vec());
    let chart = memory.keep("application/vnd.example.chart", b"chart".to_vec());
    let manifest = Manifest::synthesise(&config, &[chart]);
    memory.blobs.insert(manifest.digest(), manifest.bytes.clone());
    memory.name("ghcr.io/org/chart:1", &manifest.descriptor);
    let foreign = memory.image("windows/s390x", &[layer(9, 100)]);
    let index = memory.index(&[foreign]);
    memory.name("ghcr.io/org/foreign:1", &index);
    let entries = files(&written(&memory));
    assert_eq!(entries.last().unwrap().0, "index.json");
    assert!(store(written(&memory)).is_ok());
}

#[test]
fn bare_tags_stay_out_of_dockers_list_and_images_without_a_name_are_kept() {
    let mut memory = Memory::default();
    let one = memory.image("linux/amd64", &[layer(1, 100)]);
    let two = memory.image("linux/amd64", &[layer(2, 100)]);
    memory.name("v1", &one);
    memory.roots.push(imgmv::Root::new(None, Descriptor { platform: None, ..two }));
    let bytes = written(&memory);
    let entries = files(&bytes);
    let list: Value = serde_json::from_slice(&entries.last().unwrap().1).unwrap();
    assert_eq!((&list[0]["RepoTags"], &list[1]["RepoTags"]), (&Value::Null, &Value::Null));
    let roots = store(bytes).unwrap().roots(&[]).unwrap();
    let names: Vec<Option<String>> = roots.iter().map(|root| root.name.as_ref().map(Name::to_string)).collect();
    assert_eq!(names.len(), 2);
    assert!(names.contains(&Some("v1".into())) && names.contains(&None));
}

#[test]
fn long_digests_get_their_own_folder() {
    let mut memory = Memory::default();
    let bytes = layer(5, 5000);
    let digest = imgmv::Hasher::new(imgmv::internals::image::Algorithm::Sha512).with(&bytes).finish();
    let raw = Descriptor::new(media_type::OCI_LAYER, digest, bytes.len() as u64);
    memory.blobs.insert(digest, bytes);
    let config = memory.keep(media_type::OCI_CONFIG, br#"{"os":"linux","architecture":"amd64"}"#.to_vec());
    let manifest = Manifest::synthesise(&config, &[raw]);
    memory.blobs.insert(manifest.digest(), manifest.bytes.clone());
    memory.name("docker.io/library/long:1", &manifest.descriptor);
    let out = written(&memory);
    assert!(files(&out).iter().any(|(name, _)| *name == format!("blobs/sha512/{}", digest.hex())));
    let back = Pipe::default();
    run(stored(out).unwrap(), &ArchiveSink::to_writer(Box::new(back.clone()), "pipe"), &Options::default()).unwrap();
    assert!(back.bytes() == written(&memory));
}

#[test]
fn a_layer_that_comes_twice_without_a_digest_is_written_once() {
    let image = Image::new(2);
    let mut archive = image.old_files();
    archive.push(("copy/layer.tar".into(), image.raw[0].clone()));
    let mut list = image.saved(&["app:2"]);
    list["Layers"][0] = json!("copy/layer.tar");
    archive.push(saved(json!([list])));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.tar");
    run(streamed(tar(&archive)), &ArchiveSink::to_file(&path).unwrap(), &Options::default()).unwrap();
    let names: Vec<String> = files(&fs::read(&path).unwrap()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.iter().filter(|name| **name == blob(&image.raw[0])).count(), 1);
    assert_eq!(names.len(), 4 + 3, "{names:?}");
}

#[test]
fn a_pipe_that_was_cut_inside_a_blob_is_never_ended() {
    let mut broken = sample();
    let (digest, _) = broken.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let digest = *digest;
    broken.blobs.get_mut(&digest).unwrap()[5000] ^= 1;
    let pipe = Pipe::default();
    let sink = ArchiveSink::to_writer(Box::new(pipe.clone()), "pipe");
    assert!(run(source(&broken), &sink, &Options::default()).is_err());
    assert!(imgmv::Sink::finish(&sink).is_err());
    drop(sink);
    assert!(store(pipe.bytes()).is_err());
    assert!(!pipe.bytes().windows(10).any(|window| window == b"index.json"));
}
