//! The proof before an image gets its name: containerd has every blob that the copy stored or skipped. The lease keeps
//! them from the garbage collection, but not from a user who deletes one.

use super::call::{Call, Scope};
use super::connection::Connection;
use super::frames::MAX_MESSAGE_BYTES;
use super::listing;
use super::messages::{ContentInfo, ListContentRequest};
use super::status::Failure;
use crate::image::{Descriptor, Digest};
use std::collections::HashMap;
use std::sync::Arc;

/// Blobs in one call.
const BLOBS_PER_CALL: usize = 1000;
/// Messages in the answer to one call; containerd puts 100 blobs into each.
const MAX_MESSAGES: usize = 2 * BLOBS_PER_CALL;

/// The first of `blobs` that the namespace of `scope` does not have with its size; `None` if it has all.
pub(super) fn first_missing(
    connection: &Arc<Connection>,
    scope: &Scope,
    blobs: &[Descriptor],
) -> Result<Option<Digest>, Failure> {
    for asked in blobs.chunks(BLOBS_PER_CALL) {
        let found = sizes(connection, scope, asked)?;
        let is_missing = |blob: &&Descriptor| found.get(&blob.digest) != Some(&blob.size);
        if let Some(missing) = asked.iter().find(is_missing) {
            return Ok(Some(missing.digest));
        }
    }
    Ok(None)
}

/// The sizes of those of `asked` that containerd has.
fn sizes(connection: &Arc<Connection>, scope: &Scope, asked: &[Descriptor]) -> Result<HashMap<Digest, u64>, Failure> {
    let filters = asked.iter().map(|blob| format!("digest==\"{}\"", blob.digest)).collect();
    let mut call = Call::start(connection, "containerd.services.content.v1.Content/List", scope, MAX_MESSAGE_BYTES)?;
    call.send(&ListContentRequest { filters }, true)?;
    let mut found: HashMap<Digest, u64> = asked.iter().map(|blob| (blob.digest, u64::MAX)).collect();
    for _ in 0..MAX_MESSAGES {
        let Some(message) = call.receive_bytes()? else { return Ok(found) };
        listing::entries(message, "blobs", |info: ContentInfo| {
            let digest = info.digest.parse::<Digest>().ok();
            if let (Some(known), Ok(size)) =
                (digest.and_then(|digest| found.get_mut(&digest)), u64::try_from(info.size))
            {
                *known = size;
            }
        })?;
    }
    Err(Failure::protocol("does not end its list of blobs"))
}
