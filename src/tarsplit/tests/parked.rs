//! Readers between two reads.

use super::{LABEL, Layer, file};
use crate::disk::rooted::{Resolution, Rooted};
use crate::error::Result;
use crate::image::Digest;
use crate::tarsplit::{LayerTar, Measured, MeasuredLayers, ParkedReaders, Recorded, StoredLayer, measure};
use std::io::Read;

/// A layer on the disk, measured.
struct Stored {
    layer: Layer,
    split: Vec<u8>,
    measured: Measured,
}

impl Stored {
    fn new() -> Stored {
        let layer = Layer::new();
        let split = layer.parts.compressed();
        let measured = measure(file(&split), Recorded::Tar(layer.tar.len() as u64), LABEL).unwrap();
        Stored { layer, split, measured }
    }

    fn open(&self) -> Result<LayerTar<'static>> {
        let rooted = Rooted::open(self.layer.dir.path(), Resolution::Kernel)?;
        let diff_id = Digest::of(&self.layer.tar);
        LayerTar::new(file(&self.split), &self.measured, diff_id, LABEL, move |name| rooted.file(name))
    }
}

#[test]
fn a_layer_that_is_opened_for_each_buffer_is_read_once() {
    let stored = Stored::new();
    let (layer, readers) = (&stored.layer, ParkedReaders::default());
    let opened = std::cell::Cell::new(0);
    let open = || {
        opened.set(opened.get() + 1);
        stored.open()
    };
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 10_000]);
    while bytes.len() < layer.tar.len() {
        let mut reader = readers.read(0, bytes.len() as u64, open).unwrap();
        let read = reader.read(&mut buffer).unwrap();
        bytes.extend_from_slice(&buffer[..read]);
    }
    assert!(bytes == layer.tar);
    assert_eq!(opened.get(), 1);
    readers.read(0, 7, open).unwrap();
    assert_eq!(opened.get(), 2, "another offset");
    assert_eq!(readers.read(0, layer.tar.len() as u64, open).unwrap().read(&mut buffer).unwrap(), 0);
}

/// Each reader of a round takes its turn between two reads of every other one.
#[test]
fn more_readers_than_fit_do_not_all_start_again() {
    const READERS: usize = 140;
    let stored = Stored::new();
    let (layer, readers) = (&stored.layer, ParkedReaders::default());
    let (mut opened, mut read) = ([0; READERS], [0; READERS]);
    let mut buffer = vec![0; 100_000];
    while read.iter().any(|read| *read < layer.tar.len()) {
        for nth in 0..READERS {
            let open = || {
                opened[nth] += 1;
                stored.open()
            };
            read[nth] += readers.read(nth, read[nth] as u64, open).unwrap().read(&mut buffer).unwrap();
        }
    }
    assert_eq!(read, [layer.tar.len(); READERS]);
    let once = opened.iter().filter(|opened| **opened == 1).count();
    assert!(once >= 60, "{once} of {READERS} were opened once");
}

#[test]
fn a_client_that_is_gone_makes_room() {
    let stored = Stored::new();
    let readers = ParkedReaders::default();
    let opened = std::cell::Cell::new(0);
    let open = || {
        opened.set(opened.get() + 1);
        stored.open()
    };
    // Every place is taken, and nothing continues there.
    (0..150).for_each(|nth| drop(readers.read(nth, 0, open).unwrap()));
    opened.set(0);
    for at in 0..1500 {
        readers.read(1000, at, open).unwrap().read_exact(&mut [0]).unwrap();
    }
    let before = opened.replace(0);
    for at in 1500..3000 {
        readers.read(1000, at, open).unwrap().read_exact(&mut [0]).unwrap();
    }
    assert!(before < 1100 && opened.get() == 0, "{before}, then {}", opened.get());
}

#[test]
fn the_size_of_a_layer_is_that_of_its_own_tar_split() {
    let layer = Layer::new();
    let stored = |split: &std::fs::File| StoredLayer {
        label: LABEL.to_owned(),
        recorded: Recorded::Unknown,
        tar_split_path: String::new(),
        tar_split: split.try_clone().unwrap(),
        files: Rooted::open(layer.dir.path(), Resolution::Kernel).unwrap(),
    };
    let sizes = MeasuredLayers::default();
    let (right, lying) = (file(&layer.parts.compressed()), file(br#"{"type":1,"name":"f","size":7,"position":0}"#));
    assert_eq!(sizes.of(stored(&lying)).unwrap().bytes, 7);
    assert_eq!(sizes.of(stored(&right)).unwrap().bytes, layer.tar.len() as u64);
    // Its offset is at its end now: it is not read a second time.
    assert_eq!(sizes.of(stored(&right)).unwrap().bytes, layer.tar.len() as u64);
}
