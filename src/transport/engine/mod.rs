//! Engines (nerdctl, docker, ctr, podman) on this host and on remote hosts. Only missing layers are sent.
//!
//! Two exchanges precede the bytes. `probe` finds the engine. `session` is one remote command for the rest: it reads
//! a query on standard input, answers, and passes the same input to the engine's load command. `scripts` has its
//! text for each engine: one line of POSIX sh, which contains only imgmv's own words and quoted program paths; names
//! and digests are sent as data. The query lists the content of this image; it never asks for a list of everything.
//!
//! `inventory` has the condition of each engine under which a layer may be skipped:
//!
//! | engine | a layer may be skipped if | source of the answer |
//! |---|---|---|
//! | docker's classic store | the engine has the chain of diff IDs up to it, in any compression | `docker image inspect`, filtered by awk |
//! | docker's containerd store | its blob is in the namespace that `docker info` names | ctr at the address that `docker info` names |
//! | containerd, nerdctl | its blob is in the namespace | ctr |
//! | podman | its blob is a layer's diff ID or compressed digest | its list of layers; one image at a time |
//!
//! `delta` decides once which layers are skipped. The archive omits a skipped layer: docker's containerd store would
//! store an empty placeholder.
//!
//! **Pins** protect skipped layers from garbage collection. In containerd a pin is one small blob whose labels refer to
//! all blobs of the image, present and expected: two commands for any number of layers, and concurrent copies do not
//! remove each other's pins. In docker's classic store a pin is a second tag on the image with the chain. podman has no
//! pins, so only verification protects it. A pin records its time and process. The session removes its own pin at its
//! end and sweeps pins of dead processes. After an interrupted load, containerd's pin keeps the blobs that had arrived;
//! the next run skips those and sweeps the pin.
//!
//! **Verification** (`verify`) is by content, since exit statuses are unreliable: docker's containerd store exits 0
//! after `Error unpacking image`, ctr after importing nothing, and both accept an unpacked image with missing blobs. So
//! ctr's check decides wherever ctr is available. `rename`: an image is loaded as `imgmv.invalid/loading:…`, verified,
//! and tagged last, so a failed load keeps the old tag. docker's classic store and podman name only complete images, so
//! they load under the final name (podman with one name only). `finish`: if a delta fails verification, the complete
//! image is sent, once (`Finish::SendAll`), unless that cannot help (connection lost, disk full).
//!
//! A streamed archive lists its layers at its end, so it is sent completely. docker is queried for the diff IDs before
//! it saves (`Stream::expected_diff_ids`). As a source, docker and podman save on their host and the archive is
//! streamed; containerd's blobs are read one by one (`fetch`, `ctr content get`), only the missing ones, four at once,
//! and a broken read resumes at its byte.
//!
//! `wire_compression` compresses for the connection only: the remote `zstd -dc` or `gzip -dc` runs before the engine,
//! so digests stay. The archive is split into chunks of 1 MiB, each a frame, compressed or stored. The first eight are
//! compressed; then both modes are timed, and the faster one is used for 128 MiB. A chunk that does not shrink is
//! stored, and so are the next seven.

pub(crate) mod address;
mod delta;
mod expected;
mod fetch;
mod fetch_blob;
mod finish;
mod inventory;
mod kind;
mod load;
mod missing;
mod probe;
mod rename;
mod saved;
mod scripts;
mod session;
mod sink;
mod verify;
mod wire_compression;

pub use fetch::FetchStore;
pub use kind::{DetectedEngine, Engine, Loader};
pub use probe::{detect, detect_with_address};
pub use saved::{list_names, save};
pub use sink::EngineSink;
pub use wire_compression::WireCompression;
