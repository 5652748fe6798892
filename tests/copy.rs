//! The engine's promises, between a store or a stream and a sink in memory.

#[path = "support/memory.rs"]
mod memory;

use imgmv::internals::image::media_type;
use imgmv::internals::tarball::ArchiveStore;
use imgmv::{
    Cancel, Descriptor, Digest, Kind, Name, Naming, Options, Order, Platform, Platforms, Report, Result, Selector,
    Shape, Silent, SinkCapabilities, Source, Sparse, Store, copy,
};
use memory::{Kept, Memory, layer, takes};
use std::sync::Arc;

fn run(source: Source, sink: &Kept, options: &Options) -> Result<Report> {
    copy(source, sink, options, None, &Silent, &Cancel::default())
}

fn stored(memory: &Memory) -> Source {
    Source::Store(Arc::new(memory.clone()))
}

/// `app:2` of two layers and `multi:1` for three platforms, one of which nests.
fn sample() -> (Memory, Descriptor, Descriptor) {
    let mut memory = Memory::default();
    let single = memory.image("linux/amd64", &[layer(1, 100_000), layer(2, 3_000_000)]);
    memory.name("docker.io/library/app:2", &single);
    let arm = memory.image("linux/arm64", &[layer(3, 1000)]);
    let inner = memory.image("linux/s390x", &[layer(4, 1000)]);
    let nested = memory.index(&[inner]);
    let multi = memory.index(&[single.clone(), arm, nested]);
    memory.name("docker.io/library/multi:1", &multi);
    (memory, single, multi)
}

fn only(text: &[&str]) -> Platforms {
    Platforms::Only(text.iter().map(|text| text.parse::<Platform>().unwrap()).collect())
}

fn selector(name: &str) -> Options {
    Options { selectors: vec![Selector::Name(name.to_owned())], ..Options::default() }
}

#[test]
fn everything_arrives_and_names_come_last() {
    let (memory, single, multi) = sample();
    for order in [Order::Parallel(3), Order::Sequential] {
        let sink = Kept::new(SinkCapabilities { order, ..takes() });
        let report = run(stored(&memory), &sink, &Options::default()).unwrap();
        let state = sink.state();
        assert_eq!(state.names["docker.io/library/app:2"], single.digest);
        assert_eq!(state.names["docker.io/library/multi:1"], multi.digest);
        for (digest, bytes) in &memory.blobs {
            assert!(state.blobs[digest] == *bytes);
        }
        let first_name = state.log.iter().position(|what| what == "name").unwrap();
        assert!(!state.log[first_name..].contains(&"blob".to_owned()));
        assert_eq!((report.images.len(), state.finished), (2, 1));
        assert_eq!(report.transferred.blobs, 7);
    }
}

#[test]
fn a_second_copy_moves_no_blob() {
    let (memory, ..) = sample();
    let sink = Kept::new(takes());
    run(stored(&memory), &sink, &Options::default()).unwrap();
    let log = sink.state().log.len();
    let report = run(stored(&memory), &sink, &Options::default()).unwrap();
    assert_eq!((report.transferred.blobs, report.existing.blobs), (0, 7));
    assert_eq!(sink.state().log.len(), log);
}

#[test]
fn a_wrong_blob_publishes_nothing() {
    let (mut memory, single, _) = sample();
    let manifest = imgmv::Manifest::parse(memory.blobs[&single.digest].clone(), &single).unwrap();
    memory.blobs.get_mut(&manifest.layers()[1].digest).unwrap()[5000] ^= 1;
    for order in [Order::Parallel(3), Order::Sequential] {
        let sink = Kept::new(SinkCapabilities { order, ..takes() });
        assert_eq!(run(stored(&memory), &sink, &Options::default()).unwrap_err().kind(), Kind::Invalid);
        let state = sink.state();
        assert!(
            state.names.is_empty() && state.finished == 0 && !state.blobs.contains_key(&manifest.layers()[1].digest)
        );
    }
}

#[test]
fn one_platform_of_an_index_is_the_image_itself_or_below_the_index() {
    let (memory, single, multi) = sample();
    for (platform, shape, named) in
        [("linux/amd64", Shape::AsFound, multi.digest), ("linux/amd64/v3", Shape::Whole, single.digest)]
    {
        let sink = Kept::new(SinkCapabilities { shape, ..takes() });
        run(stored(&memory), &sink, &Options { platforms: only(&[platform]), ..selector("multi:1") }).unwrap();
        assert_eq!(sink.state().names["docker.io/library/multi:1"], named);
        assert_eq!(sink.state().manifests, [single.digest, multi.digest]);
        assert_eq!(sink.state().blobs.len(), 5);
    }
    let sink = Kept::new(takes());
    let narrow = Options { platforms: only(&["linux/amd64"]), sparse: Sparse::Narrow, ..selector("multi:1") };
    run(stored(&memory), &sink, &narrow).unwrap();
    assert_eq!(sink.state().names["docker.io/library/multi:1"], single.digest);
    assert_eq!(sink.state().blobs.len(), 4);
}

#[test]
fn several_platforms_are_a_smaller_index() {
    let (memory, _, multi) = sample();
    let sink = Kept::new(SinkCapabilities { shape: Shape::Whole, ..takes() });
    let options = Options { platforms: only(&["linux/amd64", "linux/s390x"]), ..selector("multi:1") };
    let report = run(stored(&memory), &sink, &options).unwrap();
    assert_ne!(report.images[0].digest, multi.digest);
    let platforms: Vec<String> = report.images[0].platforms.iter().map(Platform::to_string).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/s390x"]);
}

#[test]
fn a_platform_that_is_not_there_is_named_with_those_that_are() {
    let (memory, ..) = sample();
    for name in ["multi:1", "app:2"] {
        let sink = Kept::new(takes());
        let error = run(stored(&memory), &sink, &Options { platforms: only(&["linux/riscv64"]), ..selector(name) })
            .unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.to_string().contains("linux/amd64"), "{error}");
    }
}

#[test]
fn an_engine_keeps_the_index_with_its_own_platform_below() {
    let (memory, single, multi) = sample();
    let sink = Kept::new(SinkCapabilities { shape: Shape::Sparse("linux/amd64".parse().unwrap()), ..takes() });
    run(stored(&memory), &sink, &selector("multi:1")).unwrap();
    assert_eq!(sink.state().names["docker.io/library/multi:1"], multi.digest);
    assert_eq!(sink.state().manifests, [single.digest, multi.digest]);
    let sink = Kept::new(SinkCapabilities { shape: Shape::One("linux/amd64".parse().unwrap()), ..takes() });
    run(stored(&memory), &sink, &selector("multi:1")).unwrap();
    assert_eq!(sink.state().names["docker.io/library/multi:1"], single.digest);
}

#[test]
fn an_index_of_which_the_source_has_one_image_goes_as_it_is_or_as_that_image() {
    let (mut memory, single, multi) = sample();
    memory.lacks = true;
    let kept = imgmv::Manifest::parse(memory.blobs[&single.digest].clone(), &single).unwrap();
    let mut keep = vec![single.digest, multi.digest];
    keep.extend(kept.blobs().iter().map(|blob| blob.digest));
    memory.blobs.retain(|digest, _| keep.contains(digest));
    let layout = Kept::new(takes());
    run(stored(&memory), &layout, &selector("multi:1")).unwrap();
    assert_eq!(layout.state().names["docker.io/library/multi:1"], multi.digest);
    let archive = Kept::new(SinkCapabilities { shape: Shape::Whole, ..takes() });
    run(stored(&memory), &archive, &selector("multi:1")).unwrap();
    assert_eq!(archive.state().names["docker.io/library/multi:1"], single.digest);
}

#[test]
fn a_name_is_given_on_the_way() {
    let (memory, single, _) = sample();
    let names = vec![Name::new("new.example/x:1").unwrap(), Name::new("new.example/x:2").unwrap()];
    let sink = Kept::new(takes());
    run(stored(&memory), &sink, &Options { naming: Naming::Names(names.clone()), ..selector("app:2") }).unwrap();
    assert_eq!(sink.state().names.keys().cloned().collect::<Vec<_>>(), ["new.example/x:1", "new.example/x:2"]);
    assert_eq!(sink.state().names["new.example/x:1"], single.digest);
    let several = Options { naming: Naming::Names(names), ..Options::default() };
    assert_eq!(run(stored(&memory), &Kept::new(takes()), &several).unwrap_err().kind(), Kind::Usage);
}

#[test]
fn a_stream_arrives_as_a_store_does() {
    let (memory, single, multi) = sample();
    let sink = Kept::new(takes());
    run(memory.streamed(), &sink, &Options::default()).unwrap();
    let state = sink.state();
    assert_eq!(state.names["docker.io/library/app:2"], single.digest);
    assert_eq!(state.names["docker.io/library/multi:1"], multi.digest);
    assert!(memory.blobs.keys().all(|digest| state.blobs.contains_key(digest)));
}

#[test]
fn a_stream_without_digests_arrives_as_a_store_does() {
    let mut memory = Memory::default();
    let image = memory.image("linux/amd64", &[layer(1, 100_000), layer(2, 3_000_000)]);
    memory.name("docker.io/library/app:2", &image);
    let sink = Kept::new(takes());
    run(memory.streamed_old_form(), &sink, &Options::default()).unwrap();
    let state = sink.state();
    assert_eq!(state.names["docker.io/library/app:2"], image.digest);
    assert!(memory.blobs.keys().all(|digest| state.blobs.contains_key(digest)));
}

#[test]
fn a_stream_without_a_layer_publishes_nothing() {
    let (mut memory, single, _) = sample();
    let manifest = imgmv::Manifest::parse(memory.blobs[&single.digest].clone(), &single).unwrap();
    memory.blobs.remove(&manifest.layers()[0].digest);
    memory.roots.truncate(1);
    let sink = Kept::new(takes());
    assert_eq!(run(memory.streamed(), &sink, &Options::default()).unwrap_err().kind(), Kind::NotFound);
    assert!(sink.state().names.is_empty());
}

#[test]
fn an_archive_that_names_its_layers_late_passes_a_pipe_in_its_own_form() {
    let (memory, single, _) = sample();
    let sink = Kept::new(SinkCapabilities { unnamed_blobs: false, order: Order::Sequential, ..takes() });
    let report = run(memory.streamed_old_form(), &sink, &selector("app:2")).unwrap();
    let archive = sink.state().relayed.clone();
    let archive = ArchiveStore::open(archive, "relayed.tar", Arc::new(Silent)).unwrap();
    assert_eq!(archive.roots(&[]).unwrap()[0].descriptor.digest, single.digest);
    assert_eq!(archive.names().unwrap()[0].as_str(), "docker.io/library/app:2");
    assert_eq!(report.images[0].names[0].as_str(), "docker.io/library/app:2");
}

#[test]
fn a_delta_that_does_not_verify_is_sent_whole_once() {
    let (memory, ..) = sample();
    let sink = Kept::new(takes());
    sink.state().send_all = vec!["the layers over there are not those".to_owned()];
    run(stored(&memory), &sink, &Options::default()).unwrap();
    assert_eq!(sink.state().finished, 2);
    sink.state().send_all = vec!["again".to_owned(), "once".to_owned()];
    assert_eq!(run(stored(&memory), &sink, &Options::default()).unwrap_err().kind(), Kind::RemoteHost);
}

#[test]
fn a_plan_moves_nothing() {
    let (memory, ..) = sample();
    let sink = Kept::new(takes());
    let report = run(stored(&memory), &sink, &Options { dry_run: true, ..Options::default() }).unwrap();
    assert_eq!(report.transferred.blobs, 7);
    assert!(sink.state().log.is_empty() && sink.state().finished == 0);
}

#[test]
fn a_cancelled_copy_publishes_nothing() {
    let (memory, ..) = sample();
    let sink = Kept::new(takes());
    let cancel = Cancel::default();
    cancel.raise();
    let error = copy(stored(&memory), &sink, &Options::default(), None, &Silent, &cancel).unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted);
    assert!(sink.state().names.is_empty());
}

#[test]
fn content_embedded_in_a_descriptor_is_not_fetched() {
    let mut memory = Memory::default();
    let config = Descriptor { data: Some("e30=".to_owned()), ..Descriptor::of(media_type::OCI_CONFIG, b"{}") };
    let manifest = serde_json::json!({ "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": [] });
    let root = memory.keep(media_type::OCI_MANIFEST, manifest.to_string().into_bytes());
    memory.name("docker.io/library/app:2", &root);
    let sink = Kept::new(takes());
    run(stored(&memory), &sink, &Options::default()).unwrap();
    assert_eq!(sink.state().blobs[&Digest::of(b"{}")], b"{}");
}

#[test]
fn an_index_nested_without_end_is_refused() {
    let mut memory = Memory::default();
    let mut top = memory.image("linux/amd64", &[layer(1, 10)]);
    for _ in 0..30 {
        top = memory.index(&[Descriptor { platform: None, ..top }]);
    }
    memory.name("docker.io/library/deep:1", &top);
    let error = run(stored(&memory), &Kept::new(takes()), &Options::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
}

#[test]
fn raw_layers_are_packed_on_their_way_to_a_registry_unless_they_come_from_one() {
    let (mut memory, single, _) = sample();
    let sink = Kept::new(memory::takes_compressed());
    let report = run(stored(&memory), &sink, &selector("app:2")).unwrap();
    assert_ne!(report.images[0].digest, single.digest);
    memory.origin = Some(imgmv::Origin { host: "reg.lan".into(), repository: "app".into() });
    let sink = Kept::new(memory::takes_compressed());
    let report = run(stored(&memory), &sink, &selector("app:2")).unwrap();
    assert_eq!(report.images[0].digest, single.digest);
}

#[test]
fn a_copy_that_fails_ends_whatever_is_left_to_do() {
    let mut memory = Memory::default();
    let layers: Vec<Vec<u8>> = (0..60).map(|seed| layer(seed, 1000)).collect();
    let image = memory.image("linux/amd64", &layers);
    memory.name("docker.io/library/app:2", &image);
    for layer in &layers {
        memory.blobs.get_mut(&Digest::of(layer)).unwrap()[600] ^= 1;
    }
    assert_eq!(run(stored(&memory), &Kept::new(takes()), &Options::default()).unwrap_err().kind(), Kind::Invalid);
}
