use super::*;
use crate::error::Error;
use crate::source::Profile;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// A store with a list of referrers and without manifests.
struct Empty {
    listed: Vec<Descriptor>,
    asked: AtomicUsize,
}

impl Store for Empty {
    fn roots(&self, _: &[Selector]) -> Result<Vec<Root>> {
        Ok(Vec::new())
    }

    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Err(Error::not_found(format!("no manifest {}", at.digest)))
    }

    fn open(&self, _: &Descriptor, _: u64) -> Result<Box<dyn Read + Send + '_>> {
        Err(Error::not_found("no blob"))
    }

    fn find(&self, _: &Digest) -> Result<Option<Descriptor>> {
        Ok(None)
    }

    fn referrers(&self, _: &Digest) -> Result<ReferrerList> {
        Ok(ReferrerList::from(self.listed.clone()))
    }
}

/// A store at another host. A question is answered when others were asked at the same time: both about the first image,
/// and all about the others.
struct Far {
    first: usize,
    all: usize,
    asked: Mutex<usize>,
    changed: Condvar,
}

impl Far {
    fn wait_for_others(&self) -> Result<()> {
        let mut asked = self.asked.lock().unwrap();
        *asked += 1;
        self.changed.notify_all();
        let wanted = if *asked <= self.first { self.first } else { self.all };
        let longest = Duration::from_secs(20);
        let (_asked, waited) = self.changed.wait_timeout_while(asked, longest, |asked| *asked < wanted).unwrap();
        if waited.timed_out() { Err(Error::failed("asked alone")) } else { Ok(()) }
    }
}

impl Store for Far {
    fn roots(&self, _: &[Selector]) -> Result<Vec<Root>> {
        Ok(Vec::new())
    }

    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        Err(Error::not_found(format!("no manifest {}", at.digest)))
    }

    fn open(&self, _: &Descriptor, _: u64) -> Result<Box<dyn Read + Send + '_>> {
        Err(Error::not_found("no blob"))
    }

    fn find(&self, _: &Digest) -> Result<Option<Descriptor>> {
        Ok(None)
    }

    fn referrers(&self, _: &Digest) -> Result<ReferrerList> {
        self.wait_for_others().map(|()| ReferrerList::default())
    }

    fn digest_tagged(&self, _: &Digest) -> Result<Vec<(String, Descriptor)>> {
        self.wait_for_others().map(|()| Vec::new())
    }

    fn profile(&self) -> Profile {
        Profile { is_remote: true, parallel_reads: 4, ..Profile::default() }
    }
}

/// An image of one manifest for each of `layers`.
fn image(layers: &[&str]) -> Image {
    let config = Descriptor::of(media_type::OCI_CONFIG, b"{}");
    let layer = |text: &&str| Descriptor::of(media_type::OCI_LAYER, text.as_bytes());
    let tree: Vec<Manifest> = layers.iter().map(|text| Manifest::synthesise(&config, &[layer(text)])).collect();
    Image {
        names: vec![],
        source_digest: tree[tree.len() - 1].digest(),
        tree,
        synthesised: false,
        lost_manifest: None,
        foreign_layers: vec![],
        narrowed: None,
        original: None,
        attached: vec![],
        is_current: false,
    }
}

/// An image of two manifests, for each of which a store lists `listed`: the number of requests for manifests.
fn requests_for(listed: Vec<Descriptor>) -> (usize, Found) {
    let store = Empty { listed, asked: AtomicUsize::new(0) };
    let found = attached_to(&image(&["one", "two"]), &store, &[], &Cancel::default()).unwrap();
    (store.asked.into_inner(), found)
}

fn entry(content: u32, size: u64) -> Descriptor {
    Descriptor { size, ..Descriptor::of(media_type::OCI_MANIFEST, &content.to_le_bytes()) }
}

#[test]
fn a_manifest_that_cannot_be_read_is_asked_for_once() {
    let (requests, found) = requests_for(vec![entry(1, 500), entry(1, 500), entry(2, 500)]);
    assert_eq!((requests, found.unreadable.len()), (2, 2));
}

#[test]
fn manifests_that_cannot_be_read_count_too() {
    let size = 4 << 20;
    let (requests, found) = requests_for((0..1000).map(|nth| entry(nth, size)).collect());
    assert_eq!(requests as u64, MAX_ATTACHED_BYTES / size);
    assert!(found.left_out.is_some());
}

#[test]
fn a_store_at_another_host_is_asked_in_parallel() {
    // Each manifest needs two questions.
    let store = Far { first: 2, all: 2 + 4, asked: Mutex::default(), changed: Condvar::new() };
    let found = attached_to(&image(&["one", "two", "three"]), &store, &[], &Cancel::default()).unwrap();
    assert_eq!(found.unreadable, [""; 0]);

    let store = Far { first: 2, all: 2 + 6, asked: Mutex::default(), changed: Condvar::new() };
    let images = ["one", "two", "three", "four"].map(|layer| image(&[layer]));
    for found in attached_to_each(&images, &store, &[], &Cancel::default()).unwrap() {
        assert_eq!(found.unreadable, [""; 0]);
    }
}
