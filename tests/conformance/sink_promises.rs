//! The promises of `Sink`, in the order of its documentation.

use crate::memory::{Memory, layer};
use crate::sinks::{Place, check};
use crate::support::noise::noise;
use imgmv::internals::transfer::{Budget, TransferContext, transfer};
use imgmv::{
    Begin, BlobWriter, Cancel, Claim, Compress, Descriptor, Digest, Error, Finish, Image, Kind, Manifest, Missing,
    Name, Options, Order, Platform, Report, Result, Silent, Sink, Source, Upcoming, Verified, copy,
};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

/// An image of two layers under the tag `tag`; the layers and the manifest depend on `seed`.
pub struct Sent {
    pub memory: Memory,
    pub image: Image,
}

impl Sent {
    pub fn new(seed: u8, tag: &str) -> Sent {
        let mut memory = Memory::default();
        let root = memory.image(&Platform::host().to_string(), &[layer(seed, 10_000), layer(100, 3_000)]);
        let name = format!("docker.io/t/app:{tag}");
        memory.name(&name, &root);
        let root = memory.roots[0].descriptor.clone();
        let manifest = Manifest::parse(memory.blobs[&root.digest].clone(), &root).unwrap();
        let image = Image {
            names: vec![Name::new(name).unwrap()],
            lost_manifest: None,
            source_digest: manifest.digest(),
            tree: vec![manifest],
            synthesised: false,
            foreign_layers: Vec::new(),
            narrowed: None,
            original: None,
            attached: Vec::new(),
            is_current: false,
        };
        Sent { memory, image }
    }

    pub fn blobs(&self) -> Vec<Descriptor> {
        self.image.blobs().cloned().collect()
    }

    pub fn missing(&self, sink: &dyn Sink, dry_run: bool) -> Result<Missing> {
        let images = std::slice::from_ref(&self.image);
        sink.missing(Upcoming::Blobs { images, blobs: self.blobs(), source: &self.memory, dry_run })
    }

    pub fn bytes(&self, blob: &Descriptor) -> &[u8] {
        &self.memory.blobs[&blob.digest]
    }

    /// Sends what the sink does not have, without the manifest.
    fn send_blobs(&self, sink: &dyn Sink) {
        for blob in self.missing(sink, false).unwrap().blobs {
            send(sink, self.bytes(&blob)).unwrap();
        }
    }

    /// Makes a copy with the engine.
    pub fn copy(&self, sink: &dyn Sink) -> Result<Report> {
        let options = Options { compress: Compress::Keep, ..Options::default() };
        let source = Source::Store(Arc::new(self.memory.clone()));
        copy(source, sink, &options, None, &Silent, &Cancel::default())
    }

    fn is_complete(&self, place: &Place, tag: &str) {
        let contents = (place.contents)();
        contents.verify();
        assert_eq!(contents.tags.get(tag), Some(&self.image.root().digest()), "{:?}", contents.tags);
        assert!(self.memory.blobs.keys().all(|digest| contents.blobs.contains_key(digest)));
    }
}

pub fn claim(bytes: &[u8]) -> Claim {
    Claim { digest: Some(Digest::of(bytes)), size: Some(bytes.len() as u64) }
}

pub fn begin<'a>(sink: &'a dyn Sink, claim: &Claim) -> Box<dyn BlobWriter + 'a> {
    match sink.begin(claim, None).unwrap() {
        Begin::Write(writer) => writer,
        Begin::Held => panic!("held, but not stored"),
    }
}

/// Transfers `bytes`, which may not be those that `claim` announces.
pub fn transfer_to(writer: Box<dyn BlobWriter + '_>, claim: &Claim, bytes: &[u8]) -> Result<Verified> {
    let (cancel, stop, budget) = (Cancel::default(), AtomicBool::new(false), Budget::default());
    let context = TransferContext {
        watch: &Silent,
        cancel: &cancel,
        stop: &stop,
        id: 0,
        threads: 1,
        buffer_bytes: budget.buffer_bytes(),
        replay_bytes: budget.replay_bytes(),
    };
    let mut open = |from: u64| Ok(Box::new(&bytes[from as usize..]) as Box<dyn Read + Send>);
    transfer(claim, &mut open, writer, &context)
}

/// Sends a blob; false where the sink has it.
pub fn send(sink: &dyn Sink, bytes: &[u8]) -> Result<bool> {
    match sink.begin(&claim(bytes), None)? {
        Begin::Held => Ok(false),
        Begin::Write(writer) => transfer_to(writer, &claim(bytes), bytes).map(|_| true),
    }
}

#[test]
fn a_copy_arrives_complete() {
    check("a_copy_arrives_complete", |place| {
        let sent = Sent::new(1, "1");
        sent.copy(&*(place.open)()).unwrap();
        sent.is_complete(place, "1");
    });
}

// `capabilities`

#[test]
fn the_capabilities_are_plausible() {
    check("the_capabilities_are_plausible", |place| {
        let capabilities = (place.open)().capabilities();
        assert!(!matches!(capabilities.order, Order::Parallel(0)), "{capabilities:?}");
        assert_ne!(capabilities.large_uploads, Some(0));
        assert!(capabilities.compress.is_none_or(|coding| !capabilities.unsupported.contains(&coding)));
    });
}

// `published`

#[test]
fn published_is_the_digest_or_none() {
    check("published_is_the_digest_or_none", |place| {
        let sent = Sent::new(1, "1");
        let name = &sent.image.names[0];
        let sink = (place.open)();
        assert_eq!(sink.published(name).unwrap(), None);
        sent.copy(&*sink).unwrap();
        let digest = sent.image.root().digest();
        assert!(sink.published(name).unwrap().is_none_or(|found| found == digest));
    });
}

// `missing`

#[test]
fn missing_writes_nothing_and_keeps_the_order() {
    check("missing_writes_nothing_and_keeps_the_order", |place| {
        let sent = Sent::new(1, "1");
        let sink = (place.open)();
        let missing = sent.missing(&*sink, false).unwrap();
        assert_eq!((missing.blobs, missing.resume_first), (sent.blobs(), None));
        assert_eq!((place.contents)(), Default::default());
    });
}

#[test]
fn a_stored_blob_is_held_by_the_next_run() {
    check("a_stored_blob_is_held_by_the_next_run", |place| {
        let sent = Sent::new(1, "1");
        sent.copy(&*(place.open)()).unwrap();
        let other = Sent::new(2, "2");
        let sink = (place.open)();
        // Only one layer is common.
        let new: Vec<Descriptor> = other.blobs().into_iter().filter(|blob| !sent.blobs().contains(blob)).collect();
        assert_eq!(new.len(), 2);
        let begun = |blob: &Descriptor| matches!(sink.begin(&Claim::from(blob), None).unwrap(), Begin::Write(_));
        let missing = other.missing(&*sink, false).unwrap().blobs;
        assert_eq!(missing.into_iter().filter(begun).collect::<Vec<_>>(), new);
        assert_eq!(other.missing(&*(place.open)(), true).unwrap().blobs, new, "in a dry run");
    });
}

// `begin`

#[test]
fn a_committed_blob_is_held_in_the_same_run() {
    check("a_committed_blob_is_held_in_the_same_run", |place| {
        let sent = Sent::new(1, "1");
        let sink = (place.open)();
        sent.missing(&*sink, false).unwrap();
        let bytes = sent.bytes(&sent.blobs()[0]).to_vec();
        assert!(send(&*sink, &bytes).unwrap());
        assert!(!send(&*sink, &bytes).unwrap());
    });
}

/// Plants `damage` of a stored layer; the next run sends the layer again.
fn replaces(place: &Place, damage: impl Fn(&mut Vec<u8>)) {
    let sent = Sent::new(1, "1");
    sent.copy(&*(place.open)()).unwrap();
    let bytes = sent.bytes(sent.image.root().layers().first().unwrap());
    let mut damaged = bytes.to_vec();
    damage(&mut damaged);
    place.plant.as_ref().expect("the row has `plant`")(Digest::of(bytes), &damaged);
    let sink = (place.open)();
    assert!(send(&*sink, bytes).unwrap(), "held");
    assert_eq!((place.contents)().blobs[&Digest::of(bytes)], bytes);
}

#[test]
fn a_blob_of_another_size_is_sent_again() {
    check("a_blob_of_another_size_is_sent_again", |place| replaces(place, |bytes| bytes.truncate(100)));
}

#[test]
fn a_damaged_blob_is_sent_again() {
    check("a_damaged_blob_is_sent_again", |place| replaces(place, |bytes| bytes[700] ^= 1));
}

#[test]
fn the_order_bounds_the_writers() {
    check("the_order_bounds_the_writers", |place| {
        let sink = (place.open)();
        let [one, other] = [1, 2].map(|seed| noise(seed, 5_000));
        let first = begin(&*sink, &claim(&one));
        match sink.capabilities().order {
            Order::Sequential => {
                assert!(sink.begin(&claim(&other), None).is_err(), "two writers");
                transfer_to(first, &claim(&one), &one).unwrap();
                assert!(send(&*sink, &other).unwrap());
            }
            Order::Parallel(_) => {
                assert!(send(&*sink, &other).unwrap());
                transfer_to(first, &claim(&one), &one).unwrap();
                let stored = (place.contents)().blobs;
                assert!([one, other].iter().all(|bytes| stored.contains_key(&Digest::of(bytes))));
            }
        }
    });
}

#[test]
fn a_claim_without_a_digest_follows_the_capabilities() {
    check("a_claim_without_a_digest_follows_the_capabilities", |place| {
        let (sink, bytes) = ((place.open)(), noise(3, 5_000));
        match sink.begin(&Claim::default(), None) {
            Err(error) => {
                assert_eq!((error.kind(), sink.capabilities().unnamed_blobs), (Kind::Usage, false), "{error}");
            }
            Ok(Begin::Held) => panic!("a blob without a digest is held"),
            Ok(Begin::Write(writer)) => {
                assert!(sink.capabilities().unnamed_blobs);
                transfer_to(writer, &Claim::default(), &bytes).unwrap();
                sink.finish().unwrap();
                assert_eq!((place.contents)().blobs[&Digest::of(&bytes)], bytes);
            }
        }
    });
}

// `put_manifest`, `publish`, `finish`

#[test]
fn a_name_is_visible_only_after_it_is_published() {
    check("a_name_is_visible_only_after_it_is_published", |place| {
        let sent = Sent::new(1, "1");
        let sink = (place.open)();
        sent.send_blobs(&*sink);
        sink.put_manifest(sent.image.root()).unwrap();
        assert!((place.contents)().tags.is_empty());
        sink.publish(Some(&sent.image.names[0]), sent.image.root()).unwrap();
        assert_eq!(sink.finish().unwrap(), Finish::Done);
        sent.is_complete(place, "1");
    });
}

#[test]
fn a_manifest_may_be_stored_twice() {
    check("a_manifest_may_be_stored_twice", |place| {
        let sent = Sent::new(1, "1");
        let sink = (place.open)();
        sent.send_blobs(&*sink);
        for _ in 0..2 {
            sink.put_manifest(sent.image.root()).unwrap();
        }
        sink.publish(Some(&sent.image.names[0]), sent.image.root()).unwrap();
        sink.finish().unwrap();
        sent.is_complete(place, "1");
    });
}

#[test]
fn an_image_without_a_name_follows_the_capabilities() {
    check("an_image_without_a_name_follows_the_capabilities", |place| {
        let sent = Sent::new(1, "1");
        let sink = (place.open)();
        sent.send_blobs(&*sink);
        sink.put_manifest(sent.image.root()).unwrap();
        match sink.publish(None, sent.image.root()) {
            Ok(()) => {
                assert!(sink.capabilities().unnamed_images);
                sink.finish().unwrap();
                let contents = (place.contents)();
                assert!(contents.tags.is_empty() && contents.blobs.contains_key(&sent.image.root().digest()));
            }
            Err(error) => {
                assert_eq!((error.kind(), sink.capabilities().unnamed_images), (Kind::Usage, false), "{error}");
            }
        }
    });
}

#[test]
fn a_second_image_joins_the_first() {
    check("a_second_image_joins_the_first", |place| {
        let both = [Sent::new(1, "1"), Sent::new(2, "2")];
        both.iter().for_each(|sent| drop(sent.copy(&*(place.open)()).unwrap()));
        both.iter().zip(["1", "2"]).for_each(|(sent, tag)| sent.is_complete(place, tag));
        let moved = Sent::new(3, "1");
        moved.copy(&*(place.open)()).unwrap();
        moved.is_complete(place, "1");
    });
}

#[test]
fn two_copies_at_once_both_arrive() {
    check("two_copies_at_once_both_arrive", |place| {
        let both = [Sent::new(1, "1"), Sent::new(2, "2")];
        let sinks = [(place.open)(), (place.open)()];
        thread::scope(|scope| {
            for (sent, sink) in both.iter().zip(&sinks) {
                scope.spawn(|| sent.copy(&**sink).unwrap());
            }
        });
        both.iter().zip(["1", "2"]).for_each(|(sent, tag)| sent.is_complete(place, tag));
    });
}

// `aborted`, `raw_archive`

#[test]
fn an_aborted_copy_leaves_the_old_image() {
    check("an_aborted_copy_leaves_the_old_image", |place| {
        Sent::new(1, "1").copy(&*(place.open)()).unwrap();
        let before = (place.contents)();
        for why in [Error::network("the line is cut"), Error::invalid("the source is wrong")] {
            let (sent, sink) = (Sent::new(2, "1"), (place.open)());
            sent.missing(&*sink, false).unwrap();
            let bytes = noise(4, 600_000);
            let mut writer = begin(&*sink, &claim(&bytes));
            let (from, _) = writer.start(Default::default()).unwrap();
            writer.write(&bytes[from as usize..500_000]).unwrap();
            drop(writer);
            sink.aborted(&why);
            drop(sink);
            assert_eq!((place.contents)(), before, "{why}");
        }
    });
}

#[test]
fn raw_archive_is_refused_after_other_content() {
    check("raw_archive_is_refused_after_other_content", |place| {
        let sink = (place.open)();
        assert!(send(&*sink, &noise(5, 2_000)).unwrap());
        match sink.raw_archive() {
            Ok(raw) => assert!(raw.is_none()),
            Err(error) => assert_eq!(error.kind(), Kind::Usage, "{error}"),
        }
    });
}
