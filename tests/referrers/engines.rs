//! A sink that cannot store referrers, as an engine: one message for what it does not get, and none where nothing belongs
//! to the image.

use crate::signed::Signed;
use crate::support::registry::Double;
use imgmv::{
    Begin, Cancel, Claim, Event, Finish, Manifest, Name, Naming, Options, Order, Origin, Referrers, Result, Shape,
    Sink, SinkCapabilities, Watch, copy, open_source,
};
use std::sync::{Arc, Mutex};

const NOTHING: [Vec<String>; 2] = [Vec::new(), Vec::new()];

/// An engine that has every blob.
struct Engine(Shape);

impl Sink for Engine {
    fn capabilities(&self) -> SinkCapabilities {
        SinkCapabilities {
            shape: self.0.clone(),
            order: Order::Sequential,
            large_uploads: None,
            compress: None,
            unsupported: &[],
            unnamed_blobs: false,
            unnamed_images: true,
            referrers: false,
            needs_replay: false,
        }
    }

    fn begin<'a>(&'a self, _: &Claim, _: Option<&Origin>) -> Result<Begin<'a>> {
        Ok(Begin::Held)
    }

    fn put_manifest(&self, _: &Manifest) -> Result<()> {
        Ok(())
    }

    fn publish(&self, _: Option<&Name>, _: &Manifest) -> Result<()> {
        Ok(())
    }

    fn finish(&self) -> Result<Finish> {
        Ok(Finish::Done)
    }
}

#[derive(Default)]
struct Said(Mutex<Vec<String>>);

impl Watch for Said {
    fn event(&self, event: Event<'_>) {
        if let Event::Info(text) = event {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }
}

/// What is said of referrers by a copy of the image at `from` into engines that store indexes, and that do not.
fn said(signed: &Signed, from: &str, wanted: bool) -> [Vec<String>; 2] {
    let arm64 = || "linux/arm64".parse().unwrap();
    [Shape::One(arm64()), Shape::Sparse(arm64())].map(|shape| {
        let (watch, cancel) = (Arc::new(Said::default()), Cancel::default());
        let (source, options) = open_source(&signed.world.word(from), watch.clone(), &cancel).unwrap();
        let (referrers, naming) = (Referrers { wanted, ..Referrers::default() }, Naming::Keep);
        let options = Options { referrers, naming, ..options };
        copy(source, &Engine(shape), &options, None, &*watch, &cancel).unwrap();
        let said = watch.0.lock().unwrap();
        said.iter().filter(|text| text.contains("referrer")).cloned().collect()
    })
}

#[test]
fn an_engine_gets_no_referrers_and_one_message_says_so() {
    let mut signed = Signed::new();
    let bare = signed.world.image("linux/arm64", b"bare");
    signed.world.name("2", &bare);
    signed.done(&["save", "oci:DIR/l:1", "-o", "DIR/all.tar"]);
    signed.done(&["save", "--platform", "linux/arm64", "oci:DIR/l:1", "-o", "DIR/one.tar"]);
    signed.done(&["save", "--platform", "linux/arm64", "oci:DIR/l:1", "-o", "DIR/one.tar.gz"]);
    signed.done(&["save", "oci:DIR/l:2", "-o", "DIR/bare.tar"]);
    for place in ["oci:DIR/l:1", "DIR/all.tar", "DIR/one.tar", "DIR/one.tar.gz"] {
        for said in said(&signed, place, true) {
            assert_eq!(said.len(), 1, "{place}: {said:?}");
            assert!(said[0].contains("2 signatures or other referrers are not copied"), "{place}: {said:?}");
        }
        assert_eq!(said(&signed, place, false), NOTHING, "{place}");
    }
    for place in ["oci:DIR/l:2", "DIR/bare.tar"] {
        assert_eq!(said(&signed, place, true), NOTHING, "{place}");
    }
}

/// A registry is not asked, so the message is a general one.
#[test]
fn an_engine_gets_no_referrers_of_a_registry() {
    let signed = Signed::new();
    let from = Double::start();
    let source = signed.push(&from);
    from.forget_requests();
    for said in said(&signed, &source, true) {
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("signatures and other referrers are not copied"), "{said:?}");
    }
    assert_eq!(said(&signed, &source, false), NOTHING);
    assert_eq!((from.count("GET", "/referrers/"), from.count("HEAD", "")), (0, 0));
}
