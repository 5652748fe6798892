//! An archive on both its ways, in place and as it passes, into a sink that checks what it is given.

#[path = "../../tests/support/memory.rs"]
mod memory;

use imgmv::tarball::{ArchiveStore, ArchiveStream};
use imgmv::cancel::Cancel;
use imgmv::copy::{Options, copy};
use imgmv::image::{Digest, Manifest};
use imgmv::progress::Silent;
use imgmv::sink::{Order, SinkCapabilities};
use imgmv::copy::Source;
use memory::{Kept, State};
use std::io::Cursor;
use std::sync::Arc;

fn taken(source: imgmv::Result<Source>) -> Result<State, String> {
    let sink = Kept::new(SinkCapabilities { order: Order::Sequential, ..memory::takes() });
    let done = source.and_then(|source| copy(source, &sink, &Options::default(), None, &Silent, &Cancel::default()));
    done.map_err(|error| {
        let said = error.to_string();
        assert!(!said.chars().any(char::is_control), "{said:?}");
        said
    })?;
    let state = sink.state.into_inner().unwrap();
    for (name, root) in &state.names {
        assert!(state.blobs.contains_key(root), "{name} leads to {root}, which is not there");
    }
    for (digest, bytes) in &state.blobs {
        let found = imgmv::image::Hasher::new(digest.algorithm()).with(bytes).finish();
        assert_eq!(found, *digest);
    }
    for root in state.names.values() {
        whole(&state, root);
    }
    Ok(state)
}

fn whole(state: &State, root: &Digest) {
    let bytes = &state.blobs[root];
    let Ok(manifest) = Manifest::from_bytes(bytes.clone(), "") else { return };
    // Announced as something unknown it is carried, not looked into, unless it says itself what it is.
    if !bytes.windows(11).any(|text| text == b"\"mediaType\"") {
        return;
    }
    for blob in manifest.blobs() {
        assert_eq!(state.blobs.get(&blob.digest).map(|bytes| bytes.len() as u64), Some(blob.size));
    }
}

/// What both ways take, they take alike; what only one takes, is the one in place.
pub fn both_ways(bytes: &[u8]) {
    let store = ArchiveStore::open(bytes.to_vec(), "it", Arc::new(Silent));
    let store = taken(store.map(|store| Source::Store(Arc::new(store))));
    let stream = ArchiveStream::new(Box::new(Cursor::new(bytes.to_vec())), "it");
    let stream = taken(Ok(Source::Stream(Box::new(stream))));
    match (store, stream) {
        (Ok(store), Ok(stream)) => assert_eq!(store.names, stream.names),
        // A stream that had to hash everything finds blobs under any name.
        (Err(store), Ok(_)) if store.contains("not in the archive") || store.contains("is missing, although a manifest") => {}
        (Err(store), Ok(_)) => panic!("only the stream was taken; the file: {store}"),
        _ => {}
    }
}
