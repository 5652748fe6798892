//! The labels by which containerd's garbage collection finds what a manifest needs (containerd,
//! docs/garbage-collection.md), and the records of images.

use super::call::{Scope, unary};
use super::connection::Connection;
use super::messages::{ContentInfo, Descriptor as Pointer, FieldMask, Image, PutImageRequest, UpdateContentRequest};
use super::status::{Failure, code};
use crate::image::{Descriptor, Digest, Manifest, Name};
use std::collections::HashMap;
use std::sync::Arc;

const MAX_ANSWER_BYTES: usize = 4 << 20;

/// The labels of `manifest`: one for its config and for each layer and child.
pub(super) fn of_manifest(manifest: &Manifest) -> HashMap<String, String> {
    let reference = |kind: &str| format!("containerd.io/gc.ref.content.{kind}");
    let layers = manifest.layers().iter().enumerate().filter(|(_, layer)| !layer.is_foreign());
    let layers = layers.map(|(at, layer)| (reference(&format!("l.{at}")), layer));
    let children = manifest.children().iter().enumerate().map(|(at, child)| (reference(&format!("m.{at}")), child));
    let config = manifest.config().map(|config| (reference("config"), config));
    config.into_iter().chain(layers).chain(children).map(|(key, to)| (key, to.digest.to_string())).collect()
}

/// The label of a config that keeps the snapshot `chain` of `snapshotter`.
pub(super) fn of_config(snapshotter: &str, chain: &Digest) -> HashMap<String, String> {
    HashMap::from([(format!("containerd.io/gc.ref.snapshot.{snapshotter}"), chain.to_string())])
}

/// Adds `labels` to the blob `digest`. Its other labels stay.
pub(super) fn add(
    connection: &Arc<Connection>,
    scope: &Scope,
    digest: &Digest,
    labels: HashMap<String, String>,
) -> Result<(), Failure> {
    if labels.is_empty() {
        return Ok(());
    }
    let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
    let info = ContentInfo { digest: digest.to_string(), size: 0, labels };
    let request = UpdateContentRequest { info: Some(info), update_mask: Some(FieldMask { paths }) };
    let method = "containerd.services.content.v1.Content/Update";
    unary(connection, method, scope, &request, MAX_ANSWER_BYTES).map(|_| ())
}

/// Makes `name` point at `target`; the labels of an existing record stay.
pub(super) fn put_image(
    connection: &Arc<Connection>,
    scope: &Scope,
    name: &Name,
    target: &Descriptor,
) -> Result<(), Failure> {
    let target = Pointer {
        media_type: target.media_type.clone(),
        digest: target.digest.to_string(),
        size: i64::try_from(target.size).unwrap_or(i64::MAX),
    };
    let image = Some(Image { name: name.to_string(), target: Some(target) });
    let create = PutImageRequest { image: image.clone(), update_mask: None };
    let update = PutImageRequest { image, update_mask: Some(FieldMask { paths: vec!["target".to_owned()] }) };
    let call = |name: &str, request: &PutImageRequest| {
        let method = format!("containerd.services.images.v1.Images/{name}");
        unary(connection, &method, scope, request, MAX_ANSWER_BYTES).map(|_| ())
    };
    // Another client may create or delete the record between the two calls.
    for _ in 0..2 {
        match call("Create", &create) {
            Err(failure) if failure.is(code::ALREADY_EXISTS) => {}
            done => return done,
        }
        match call("Update", &update) {
            Err(failure) if failure.is(code::NOT_FOUND) => {}
            done => return done,
        }
    }
    call("Create", &create)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_refers_to_all_that_it_needs() {
        let blob = |text: &str| Descriptor::of("application/vnd.oci.image.layer.v1.tar", text.as_bytes());
        let manifest = Manifest::synthesise(&blob("c"), &[blob("a"), blob("b")]);
        let labels = of_manifest(&manifest);
        let label = |kind: &str| labels[&format!("containerd.io/gc.ref.content.{kind}")].clone();
        assert_eq!(labels.len(), 3);
        assert_eq!(label("config"), Digest::of(b"c").to_string());
        assert_eq!((label("l.0"), label("l.1")), (Digest::of(b"a").to_string(), Digest::of(b"b").to_string()));
    }
}
