//! The namespaces and images that containerd lists. A list is decoded entry by entry, since a hostile list of empty
//! entries would need a hundred times the memory of its bytes.

use super::call::{Scope, unary};
use super::connection::Connection;
use super::frames::decode;
use super::messages::{Image, ListImagesRequest, ListNamespacesRequest, Namespace};
use super::status::Failure;
use crate::error::{Error, Result};
use crate::image::{Descriptor, MAX_NAMES};
use crate::transport::containerd::records::Record;
use bytes::{Buf, Bytes};
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use std::sync::Arc;

/// The longest list of images; containerd itself sends at most 16 MiB unless its configuration allows more.
const MAX_IMAGES_BYTES: usize = 64 << 20;
/// The longest list of namespaces.
const MAX_NAMESPACES_BYTES: usize = 1 << 20;
/// Each namespace costs a call.
const MAX_NAMESPACES: usize = 1000;
/// The field of the entries in every list of containerd's API.
const ENTRIES: u32 = 1;

/// Lists the namespaces, sorted.
pub(super) fn namespaces(connection: &Arc<Connection>) -> Result<Vec<Namespace>, Failure> {
    let method = "containerd.services.namespaces.v1.Namespaces/List";
    let answer = unary(connection, method, &Scope::default(), &ListNamespacesRequest {}, MAX_NAMESPACES_BYTES)?;
    let mut namespaces: Vec<Namespace> = Vec::new();
    entries(answer, "namespaces", |namespace| namespaces.push(namespace))?;
    if namespaces.len() > MAX_NAMESPACES {
        return Err(Failure::protocol(format!("has more than {MAX_NAMESPACES} namespaces")));
    }
    namespaces.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(namespaces)
}

/// Adds the images of `namespace` to `records`. An image whose target has no valid digest or size is an error.
pub(super) fn images(connection: &Arc<Connection>, namespace: &str, records: &mut Vec<Record>) -> Result<(), Failure> {
    let method = "containerd.services.images.v1.Images/List";
    let scope = Scope::namespace(namespace);
    let answer = unary(connection, method, &scope, &ListImagesRequest { filters: Vec::new() }, MAX_IMAGES_BYTES)?;
    decode_images(namespace, answer, records)
}

/// Adds the images of a received list to `records`.
pub(super) fn decode_images(namespace: &str, list: Bytes, records: &mut Vec<Record>) -> Result<(), Failure> {
    let mut wrong = None;
    entries(list, "images", |image: Image| match record(namespace, image) {
        Ok(record) => records.push(record),
        Err(error) => wrong = Some(error),
    })?;
    match wrong {
        Some(error) => Err(Failure::Other(error)),
        None if records.len() > MAX_NAMES => Err(Failure::protocol(format!("has more than {MAX_NAMES} images"))),
        None => Ok(()),
    }
}

fn record(namespace: &str, image: Image) -> Result<Record> {
    let target = image.target.unwrap_or_default();
    let wrong = |problem: &str| {
        Error::invalid(format!("containerd lists the image {:?} in the namespace {namespace:?} {problem}", image.name))
    };
    let digest = target.digest.parse().map_err(|error: Error| wrong(&format!("with a wrong digest: {error}")))?;
    let size = u64::try_from(target.size).map_err(|_| wrong("with a negative size"))?;
    let target = Descriptor::new(target.media_type.as_str(), digest, size);
    Ok(Record { namespace: namespace.to_owned(), name: image.name, target })
}

/// Decodes the entries of a list, and hands each to `each`.
pub(super) fn entries<M: Message + Default>(
    mut list: Bytes,
    what: &str,
    mut each: impl FnMut(M),
) -> Result<(), Failure> {
    let wrong = |error: prost::DecodeError| {
        Failure::protocol(format!("sent a list of {what} that cannot be decoded ({error})"))
    };
    let mut count = 0;
    while list.has_remaining() {
        let (field, wire) = decode_key(&mut list).map_err(wrong)?;
        if (field, wire) != (ENTRIES, WireType::LengthDelimited) {
            skip_field(wire, field, &mut list, DecodeContext::default()).map_err(wrong)?;
            continue;
        }
        let length = decode_varint(&mut list).map_err(wrong)?;
        let length = usize::try_from(length).ok().filter(|length| *length <= list.remaining());
        let Some(length) = length else {
            return Err(Failure::protocol(format!("sent a list of {what} that is cut off")));
        };
        count += 1;
        if count > MAX_NAMES {
            return Err(Failure::protocol(format!("has more than {MAX_NAMES} {what}")));
        }
        each(decode(list.split_to(length))?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[Image]) -> Bytes {
        let mut bytes = Vec::new();
        for image in entries {
            bytes.push(0x0a);
            bytes.extend(image.encode_length_delimited_to_vec());
        }
        bytes.into()
    }

    fn names(bytes: Bytes) -> Result<Vec<String>, String> {
        let mut names = Vec::new();
        let done = entries(bytes, "images", |image: Image| names.push(image.name));
        done.map_err(|failure| failure.into_error("containerd", "listing").to_string())?;
        Ok(names)
    }

    #[test]
    fn entries_are_decoded_one_by_one_and_other_fields_are_skipped() {
        let one = Image { name: "a:1".to_owned(), target: None };
        let mut bytes = vec![0x12, 0x02, b'x', b'y'];
        bytes.extend(list(&[one.clone(), one]));
        assert_eq!(names(bytes.into()).unwrap(), ["a:1", "a:1"]);
    }

    #[test]
    fn lists_that_lie_end_in_a_sentence() {
        let cut = Bytes::from_static(&[0x0a, 0x7f, 0x0a]);
        assert!(names(cut).unwrap_err().contains("cut off"));
        assert!(names(Bytes::from_static(&[0xff; 20])).unwrap_err().contains("cannot be decoded"));
        let many = Bytes::from([0x0a, 0x00].repeat(MAX_NAMES + 1));
        assert!(names(many).unwrap_err().contains("more than"));
    }
}
