//! containerd's directory off a disk that somebody has been at.

use super::images::plain;
use super::support::program::fixture;
use super::target::Target;
use imgmv::internals::containerd::ContainerdStore;
use imgmv::{Kind, Source};
use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const BLOBS: &str = "io.containerd.content.v1.content/blobs/sha256";
const DATABASE: &str = "io.containerd.metadata.v1.bolt/meta.db";

/// A directory that is right, but for what `change` does to its database.
fn disk(change: impl FnOnce(&mut Vec<u8>)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for folder in [BLOBS, "io.containerd.metadata.v1.bolt"] {
        fs::create_dir_all(dir.path().join(folder)).unwrap();
    }
    for blob in fs::read_dir(fixture("layout/blobs/sha256")).unwrap().flatten() {
        fs::copy(blob.path(), dir.path().join(BLOBS).join(blob.file_name())).unwrap();
    }
    let mut bytes = Vec::new();
    let packed = fs::File::open(fixture("bolt/ctr21.meta.db.gz")).unwrap();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
    change(&mut bytes);
    fs::write(dir.path().join(DATABASE), bytes).unwrap();
    dir
}

fn open(dir: &Path) -> imgmv::Result<Source> {
    ContainerdStore::open(dir, Some("default")).map(|store| Source::Store(Arc::new(store)))
}

fn blobs(dir: &Path) -> Vec<PathBuf> {
    let mut blobs: Vec<PathBuf> = fs::read_dir(dir.join(BLOBS)).unwrap().map(|blob| blob.unwrap().path()).collect();
    blobs.sort();
    blobs
}

#[test]
fn blobs_that_are_not_what_their_names_say_are_refused() {
    let spoil: [fn(&Path); 5] = [
        |blob| {
            let mut bytes = fs::read(blob).unwrap();
            bytes[20] ^= 1;
            fs::write(blob, bytes).unwrap();
        },
        |blob| fs::write(blob, b"").unwrap(),
        |blob| fs::File::options().write(true).open(blob).unwrap().set_len(1 << 40).unwrap(),
        |blob| {
            fs::remove_file(blob).unwrap();
            symlink("/dev/zero", blob).unwrap();
        },
        |blob| {
            fs::remove_file(blob).unwrap();
            fs::create_dir(blob).unwrap();
        },
    ];
    let honest = disk(|_| {});
    let target = Target::new();
    target.take(open(honest.path()).unwrap()).unwrap();
    assert_eq!(target.sound(), 2);
    for which in 0..blobs(honest.path()).len() {
        for spoil in spoil {
            let dir = disk(|_| {});
            spoil(&blobs(dir.path())[which]);
            let error = Target::new().refuse(open(dir.path()));
            assert_eq!(error.kind(), Kind::Invalid, "{error}");
            assert!(plain(&error.to_string()), "{error:?}");
        }
    }
}

#[test]
fn a_damaged_database_names_nothing_wrong() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for round in 0..150 {
        let dir = disk(|bytes| {
            for _ in 0..20 {
                // Into pages that are in use, where it hurts.
                let (page, at) = (2 + next(60), next(if round % 2 == 0 { 64 } else { 4096 }));
                bytes[page * 4096 + at] = next(256) as u8;
            }
        });
        let target = Target::new();
        if let Err(error) = open(dir.path()).and_then(|source| target.take(source)) {
            assert!(plain(&error.to_string()), "{error:?}");
        }
        target.sound();
    }
}
