//! Unpacking an image into containerd's snapshots, as `ctr images import` and CRI do: one snapshot for each layer, named
//! by the chain of diff IDs up to it.

use super::call::{Call, Scope, finish_unary, unary};
use super::connection::Connection;
use super::frames::{MAX_MESSAGE_BYTES, decode};
use super::messages::{
    ApplyRequest, ApplyResponse, CommitSnapshotRequest, Descriptor as Pointer, Mount, PrepareSnapshotRequest,
    PrepareSnapshotResponse, SnapshotRequest,
};
use super::status::{Failure, code, shortened};
use crate::image::{Descriptor, Digest};
use std::collections::HashMap;
use std::sync::Arc;

/// The bytes of a layer that containerd unpacks in a second on the slowest host that is waited for.
const MIN_UNPACK_RATE: u64 = 1 << 20;
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Unpacks layers with one snapshotter.
pub(super) struct Unpacker<'u> {
    pub connection: &'u Arc<Connection>,
    /// With the lease of the copy, which keeps the snapshots until the image refers to them.
    pub scope: &'u Scope,
    pub snapshotter: &'u str,
}

impl Unpacker<'_> {
    /// Unpacks `layers` with the diff IDs `diff_ids`, lowest first; both are of the same length. Returns the name of the
    /// uppermost snapshot; `None` without a layer.
    pub fn unpack(&self, layers: &[Descriptor], diff_ids: &[Digest]) -> Result<Option<Digest>, Failure> {
        let mut below: Option<Digest> = None;
        for (layer, diff_id) in layers.iter().zip(diff_ids) {
            let chain = match below {
                None => *diff_id,
                Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
            };
            if !self.exists(&chain)? {
                self.unpack_layer(layer, diff_id, below, &chain)?;
            }
            below = Some(chain);
        }
        Ok(below)
    }

    fn exists(&self, chain: &Digest) -> Result<bool, Failure> {
        match self.call("Stat", &self.snapshot(chain.to_string())) {
            Ok(_) => Ok(true),
            Err(failure) if failure.is(code::NOT_FOUND) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    fn unpack_layer(
        &self,
        layer: &Descriptor,
        diff_id: &Digest,
        below: Option<Digest>,
        chain: &Digest,
    ) -> Result<(), Failure> {
        let lease = self.scope.lease.as_deref().unwrap_or("imgmv");
        let key = format!("{lease}-extract {chain}");
        let request = PrepareSnapshotRequest {
            snapshotter: self.snapshotter.to_owned(),
            key: key.clone(),
            parent: below.map(|below| below.to_string()).unwrap_or_default(),
            labels: HashMap::from([("containerd.io/snapshot.ref".to_owned(), chain.to_string())]),
        };
        let mounts = match self.call("Prepare", &request) {
            // A snapshotter may have the layer from elsewhere.
            Err(failure) if failure.is(code::ALREADY_EXISTS) && self.exists(chain)? => return Ok(()),
            answer => decode::<PrepareSnapshotResponse>(answer?)?.mounts,
        };
        let done = self.apply(layer, mounts, diff_id).and_then(|()| self.commit(&key, chain));
        if done.is_err() {
            // The lease removes it later if this fails.
            let _ = self.call("Remove", &self.snapshot(key));
        }
        done
    }

    /// Unpacks `layer` into `mounts`, and compares the digest of what was unpacked.
    fn apply(&self, layer: &Descriptor, mounts: Vec<Mount>, diff_id: &Digest) -> Result<(), Failure> {
        let pointer = Pointer {
            media_type: layer.media_type.clone(),
            digest: layer.digest.to_string(),
            size: i64::try_from(layer.size).unwrap_or(i64::MAX),
        };
        let method = "containerd.services.diff.v1.Diff/Apply";
        let mut call = Call::start(self.connection, method, self.scope, MAX_MESSAGE_BYTES)?;
        call.wait_for_work(layer.size, MIN_UNPACK_RATE);
        let answer = finish_unary(&mut call, &ApplyRequest { diff: Some(pointer), mounts })?;
        let applied = decode::<ApplyResponse>(answer)?.applied.unwrap_or_default().digest;
        match applied == diff_id.to_string() {
            true => Ok(()),
            false => Err(Failure::protocol(format!(
                "unpacked {} as {:?} instead of the diff ID {diff_id} of the config",
                layer.digest,
                shortened(&applied)
            ))),
        }
    }

    fn commit(&self, key: &str, chain: &Digest) -> Result<(), Failure> {
        let snapshotter = self.snapshotter.to_owned();
        let request = CommitSnapshotRequest { snapshotter, name: chain.to_string(), key: key.to_owned() };
        match self.call("Commit", &request) {
            // Another client unpacked the same layer at the same time.
            Err(failure) if failure.is(code::ALREADY_EXISTS) => {
                self.call("Remove", &self.snapshot(key.to_owned())).map(|_| ())
            }
            answer => answer.map(|_| ()),
        }
    }

    fn snapshot(&self, key: String) -> SnapshotRequest {
        SnapshotRequest { snapshotter: self.snapshotter.to_owned(), key }
    }

    fn call(&self, name: &str, request: &impl prost::Message) -> Result<bytes::Bytes, Failure> {
        let method = format!("containerd.services.snapshots.v1.Snapshots/{name}");
        unary(self.connection, &method, self.scope, request, MAX_ANSWER_BYTES)
    }
}
