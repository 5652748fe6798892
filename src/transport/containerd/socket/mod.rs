//! containerd by its socket, as a source and as a destination.
//!
//! containerd's API is gRPC. `call`, `incoming` and `frames` are its calls over HTTP/2 (the crate h2), `messages` has the
//! few messages that imgmv uses, `status` how calls end. `connection` bridges from the copy's blocking threads to the one
//! thread that moves bytes, and connects again after a lost connection. `endpoint` is the way to the socket.
//!
//! **Reading** (`store`, `read`): one streamed call for each blob, from any offset. `ctr content get` asks for 32 KiB at
//! a time and is 5 to 20 times slower. A cut stream is started again at its byte.
//!
//! **Writing** (`sink`, `writer`, `ingest`): an ingest is named by its blob's digest, so that the next run finds it. It
//! is opened by asking for its state, since a write at offset 0 would truncate it. What the copy stores or finds is
//! kept by a lease (`lease`). Manifests get labels that refer to what they need (`labels`). Before an image is unpacked
//! (`unpack`, `images`) and named, containerd is asked for all of its blobs (`proof`). Then the lease is deleted, and the
//! image's own references keep everything.
//!
//! **The peer is hostile until checked.** Messages, lists, headers and times are bounded. Offsets, sizes and digests in
//! answers are compared with what was asked. Every digest of a source is hashed by the copy as always.

mod call;
mod connection;
mod endpoint;
mod frames;
pub(crate) mod hash_states;
mod host;
mod images;
mod incoming;
mod ingest;
mod labels;
mod lease;
mod listing;
mod messages;
mod proof;
mod read;
mod sink;
mod status;
mod store;
mod unpack;
mod writer;

pub use connection::{Connection, Limits};
pub use endpoint::LocalSocket;
pub(crate) use endpoint::{DEFAULT_SOCKET, ForwardedSocket};
pub use sink::SocketSink;
pub use store::SocketStore;

/// Decodes `received` as the bytes of answers, for a fuzz target: no answer may cause a panic or use much memory.
pub fn decode_answers(received: &[u8]) {
    let mut frames = frames::Frames::new(frames::MAX_MESSAGE_BYTES);
    for part in received.chunks(1000) {
        frames.push(part);
        while let Ok(Some(message)) = frames.next() {
            let mut records = Vec::new();
            let _ = listing::decode_images("default", message.clone(), &mut records);
            assert!(records.len() <= message.len(), "{} images in {} bytes", records.len(), message.len());
            let _ = listing::entries(message.clone(), "plugins", |_: messages::Plugin| {});
            let _ = frames::decode::<messages::ReadResponse>(message.clone());
            let _ = frames::decode::<messages::WriteResponse>(message.clone());
            let _ = frames::decode::<messages::InfoResponse>(message.clone());
            let _ = frames::decode::<messages::PrepareSnapshotResponse>(message.clone());
            let _ = frames::decode::<messages::ApplyResponse>(message);
        }
    }
    let mut headers = http::HeaderMap::new();
    if let Ok(value) = http::HeaderValue::from_bytes(received) {
        headers.insert("grpc-status", value.clone());
        headers.insert("grpc-message", value);
    }
    if let Some(status) = status::Status::read(&headers) {
        assert!(status.message.chars().all(|c| !c.is_control()), "{:?}", status.message);
    }
}
