//! What belongs to images goes with them into a tree and out of it: referrers by the referrers tag, and cosign's tags.

use super::*;
use serde_json::{Value, json};

const SIGNATURE: &str = "application/vnd.test.signature";

fn referrers_tag(of: &Digest) -> String {
    format!("sha256-{}", of.hex())
}

/// A referrer of `subject`, which the layout lists without a name.
fn referrer(memory: &mut Memory, subject: &Descriptor, content: &[u8]) -> Descriptor {
    let config = memory.keep("application/vnd.oci.empty.v1+json", b"{}".to_vec());
    let layer = memory.keep("application/octet-stream", content.to_vec());
    let document = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": SIGNATURE, "config": config,
        "layers": [layer], "annotations": { "note": "signed" },
        "subject": Descriptor { platform: None, ..subject.clone() },
    });
    let manifest = memory.keep(media_type::OCI_MANIFEST, document.to_string().into_bytes());
    memory.roots.push(imgmv::Root::new(None, manifest.clone()));
    manifest
}

/// `memory` as a layout, which finds referrers.
fn layout(dir: &Dir, memory: &Memory) -> Arc<dyn Store> {
    let path = dir.at("layout");
    fs::create_dir_all(path.join("blobs/sha256")).unwrap();
    fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    for (digest, bytes) in &memory.blobs {
        fs::write(path.join(digest.blob_path()), bytes).unwrap();
    }
    let entry = |root: &imgmv::Root| {
        let mut entry = root.descriptor.clone();
        if let Some(name) = &root.name {
            entry.annotate("io.containerd.image.name", name.as_str());
        }
        entry
    };
    let entries: Vec<Descriptor> = memory.roots.iter().map(entry).collect();
    let index = json!({ "schemaVersion": 2, "manifests": entries });
    fs::write(path.join("index.json"), index.to_string()).unwrap();
    Arc::new(imgmv::internals::layout::LayoutStore::open(&path).unwrap())
}

/// The sample with a signature of the index, one of an image below it, one of that signature, and one under cosign's tag.
struct SignedSample {
    memory: Memory,
    index: Descriptor,
    /// Subject and referrer.
    referrers: [(Digest, Descriptor); 3],
    cosign: Descriptor,
}

fn signed_sample() -> SignedSample {
    let mut memory = sample();
    let index = memory.roots[0].descriptor.clone();
    let child = manifest(&memory, 0).children()[0].clone();
    let of_index = referrer(&mut memory, &index, b"of the index");
    let of_child = referrer(&mut memory, &child, b"of the child");
    let of_signature = referrer(&mut memory, &of_index, b"of the signature");
    let cosign = memory.image("linux/amd64", &[layer(9, 10)]);
    memory.name(&format!("quay.io/t/multi:{}.sig", referrers_tag(&index.digest)), &cosign);
    let referrers = [(index.digest, of_index.clone()), (child.digest, of_child), (of_index.digest, of_signature)];
    SignedSample { memory, index, referrers, cosign }
}

/// The list of the referrers of `subject` in `repository`.
fn listed(dir: &Dir, repository: &str, subject: &Digest) -> Value {
    let tags = dir.tree.tags(repository);
    serde_json::from_slice(&fs::read(dir.tree.data(&tags[&referrers_tag(subject)])).unwrap()).unwrap()
}

fn digests(list: &Value) -> Vec<String> {
    list["manifests"].as_array().unwrap().iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_belongs_to_an_image_goes_into_the_tree_and_out_of_it() {
    let dir = Dir::new();
    let SignedSample { memory, index, referrers, cosign } = signed_sample();
    put(layout(&dir, &memory), &dir.sink()).unwrap();
    // Two images, cosign's tag and three lists, each of which leads to what exists.
    assert_eq!(dir.tree.resolves(), 6);
    assert_eq!(dir.tree.tags("t/multi")[&format!("{}.sig", referrers_tag(&index.digest))], cosign.digest);
    for (subject, one) in &referrers {
        let list = listed(&dir, "t/multi", subject);
        assert_eq!(digests(&list), [one.digest.to_string()]);
        let entry = &list["manifests"][0];
        assert_eq!((&entry["artifactType"], &entry["annotations"]["note"]), (&json!(SIGNATURE), &json!("signed")));
    }
    assert_eq!(dir.tree.tags("library/app").len(), 1);
    // The tree is a source of all that, for one image and for all.
    for text in [&["t/multi:1"][..], &[]] {
        let other = Dir::new();
        let store = dir.store();
        let selectors = text.iter().map(|text| by_name(text)).collect();
        let options = Options { compress: Compress::Keep, selectors, ..Options::default() };
        copy(Source::Store(Arc::new(store)), &other.sink(), &options, None, &Silent, &Cancel::default()).unwrap();
        for (subject, one) in &referrers {
            assert_eq!(digests(&listed(&other, "t/multi", subject)), [one.digest.to_string()], "{text:?}");
        }
        assert_eq!(other.tree.tags("t/multi").len(), 5, "{text:?}");
        assert_eq!(other.tree.resolves(), if text.is_empty() { 6 } else { 5 });
    }
    // A second copy changes nothing.
    let before = dir.tree.blobs();
    put(layout(&dir, &memory), &dir.sink()).unwrap();
    assert!(dir.tree.blobs() == before);
}

#[test]
fn a_referrer_gets_into_each_repository_that_gets_its_subject() {
    let dir = Dir::new();
    let SignedSample { mut memory, index, referrers, .. } = signed_sample();
    memory.name("quay.io/other/copy:2", &index);
    put(layout(&dir, &memory), &dir.sink()).unwrap();
    for repository in ["t/multi", "other/copy"] {
        for (subject, one) in &referrers {
            assert_eq!(digests(&listed(&dir, repository, subject)), [one.digest.to_string()], "{repository}");
            assert!(dir.tree.revision_link(repository, &one.digest).exists(), "{repository}");
        }
    }
}

/// Clients of the registry have listed other referrers, with fields that imgmv does not know.
#[test]
fn a_list_that_exists_keeps_its_entries_and_fields() {
    let dir = Dir::new();
    let SignedSample { memory, index, referrers, .. } = signed_sample();
    let theirs = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "x-field": 7,
        "manifests": [{ "mediaType": "a/b", "digest": Digest::of(b"theirs"), "size": 6, "x-more": true }, null],
    });
    let theirs = theirs.to_string().into_bytes();
    dir.tree.put_manifest("t/multi", &Digest::of(&theirs), &theirs);
    dir.tree.put_tag("t/multi", &referrers_tag(&index.digest), &Digest::of(&theirs));
    let error = put(layout(&dir, &memory), &dir.sink()).unwrap_err();
    // An entry that is no descriptor would be lost for others: nothing is written.
    assert!(error.to_string().contains("a list of referrers"), "{error}");
    assert_eq!(dir.tree.tags("t/multi")[&referrers_tag(&index.digest)], Digest::of(&theirs));

    let theirs = String::from_utf8(theirs).unwrap().replace(",null", "").into_bytes();
    dir.tree.put_manifest("t/multi", &Digest::of(&theirs), &theirs);
    dir.tree.put_tag("t/multi", &referrers_tag(&index.digest), &Digest::of(&theirs));
    put(layout(&dir, &memory), &dir.sink()).unwrap();
    let list = listed(&dir, "t/multi", &index.digest);
    assert_eq!(digests(&list), [Digest::of(b"theirs").to_string(), referrers[0].1.digest.to_string()]);
    assert_eq!((&list["x-field"], &list["manifests"][0]["x-more"]), (&json!(7), &json!(true)));
}

#[test]
fn a_tag_that_is_not_a_list_and_a_damaged_list_are_not_replaced() {
    let dir = Dir::new();
    let SignedSample { memory, index, .. } = signed_sample();
    let tag = referrers_tag(&index.digest);
    let app = memory.roots[1].descriptor.digest;
    let damaged = Digest::of(b"before");
    for (found, bytes, told) in [
        (app, &memory.blobs[&app][..], "it is not an image index"),
        (index.digest, &memory.blobs[&index.digest][..], "is the image itself"),
        (damaged, b"after", "is damaged"),
    ] {
        dir.tree.put_manifest("t/multi", &found, bytes);
        dir.tree.put_tag("t/multi", &tag, &found);
        let error = put(layout(&dir, &memory), &dir.sink()).unwrap_err();
        assert!(error.to_string().contains(told), "{told}: {error}");
        assert_eq!(dir.tree.tags("t/multi")[&tag], found);
        assert!(!dir.tree.tags("t/multi").contains_key("1"), "the image has its tag without its signature");
    }
    // A garbage collection removed the list: a new one is made.
    fs::remove_file(dir.tree.data(&damaged)).unwrap();
    put(layout(&dir, &memory), &dir.sink()).unwrap();
    assert_eq!(digests(&listed(&dir, "t/multi", &index.digest)).len(), 1);
}

/// Several copies sign one image at the same time: each entry stays.
#[test]
fn writers_side_by_side_lose_no_entry() {
    let dir = Dir::new();
    let base = one(1, 1_000, "h.lan/t/app:1");
    let image = base.roots[0].descriptor.clone();
    let layouts: Vec<(Arc<dyn Store>, Digest, Dir)> = (0..6u8)
        .map(|nth| {
            let mut memory = base.clone();
            let signature = referrer(&mut memory, &image, &[nth]);
            let own = Dir::new();
            (layout(&own, &memory), signature.digest, own)
        })
        .collect();
    fs::create_dir(dir.tree.root()).unwrap();
    std::thread::scope(|scope| {
        for (store, ..) in &layouts {
            scope.spawn(|| put(store.clone(), &dir.sink()).unwrap());
        }
    });
    let found = digests(&listed(&dir, "t/app", &image.digest));
    assert!(layouts.iter().all(|(_, digest, _)| found.contains(&digest.to_string())), "{found:?}");
    assert_eq!((found.len(), dir.tree.resolves()), (6, 2));
}
