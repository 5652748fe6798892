//! The images in containerd's database: `v1/<namespace>/images/<name>/target/{digest,mediatype,size}` (containerd,
//! core/metadata/buckets.go).

use super::bolt::{Bolt, Bucket, Item, Pages};
use super::live::read_live;
use crate::error::{Error, Result};
use crate::image::{Descriptor, MAX_NAMES};
use std::cell::Cell;

const SCHEMA: &[u8] = b"v1";

/// An image name in a namespace.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub namespace: String,
    /// As in the database, unchecked.
    pub name: String,
    pub target: Descriptor,
}

/// The namespaces and images of one state of the database.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub namespaces: Vec<String>,
    pub records: Vec<Record>,
}

/// Lists the images in the bytes of a database.
pub fn images_in(database: &[u8]) -> Result<Vec<Record>> {
    Ok(listing(&database)?.records)
}

/// Lists the namespaces and images of one consistent state of the database.
pub(super) fn listing(pages: &dyn Pages) -> Result<Listing> {
    read_live(pages, read)
}

pub(super) fn read(bolt: &Bolt<'_>) -> Result<Listing> {
    let Some(schema) = bolt.bucket(&bolt.root(), SCHEMA)? else {
        return Err(Error::invalid("the database has no bucket v1; it is not containerd's metadata"));
    };
    let mut listing = Listing::default();
    bolt.each(&schema, &mut |namespace, item| {
        let Item::Bucket(bucket) = item else { return Ok(()) };
        let namespace = text(namespace)?;
        if let Some(images) = bolt.bucket(&bucket, b"images")? {
            read_images(bolt, &images, &namespace, &mut listing.records)?;
        }
        listing.namespaces.push(namespace);
        match listing.namespaces.len() > MAX_NAMES {
            true => Err(Error::invalid(format!("the database has more than {MAX_NAMES} namespaces"))),
            false => Ok(()),
        }
    })?;
    Ok(listing)
}

fn read_images(bolt: &Bolt<'_>, images: &Bucket, namespace: &str, records: &mut Vec<Record>) -> Result<()> {
    let left = Cell::new(MAX_NAMES.saturating_sub(records.len()));
    bolt.each(images, &mut |name, item| {
        let Item::Bucket(image) = item else { return Ok(()) };
        let Some(target) = bolt.bucket(&image, b"target")? else { return Ok(()) };
        let field = |key: &[u8]| Ok::<_, Error>(bolt.value(&target, key)?.unwrap_or_default());
        let digest = text(&field(b"digest")?)?.parse()?;
        let size = varint(&field(b"size")?).and_then(|size| u64::try_from(size).ok());
        let size = size.ok_or_else(|| Error::invalid(format!("the database has no size for {digest}")))?;
        let target = Descriptor::new(text(&field(b"mediatype")?)?, digest, size);
        left.set(
            left.get()
                .checked_sub(1)
                .ok_or_else(|| Error::invalid(format!("the database has more than the {MAX_NAMES} images allowed")))?,
        );
        records.push(Record { namespace: namespace.to_owned(), name: text(name)?, target });
        Ok(())
    })
}

fn text(bytes: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::invalid("the database has a name that is not UTF-8"))?;
    Ok(text.to_owned())
}

/// Parses a varint of Go's `encoding/binary`: seven bits per byte, lowest first, the sign in the lowest bit.
fn varint(bytes: &[u8]) -> Option<i64> {
    let mut number: u64 = 0;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f).checked_shl(7 * at as u32)?;
        if byte & 0x80 == 0 {
            return Some((number >> 1) as i64 ^ -((number & 1) as i64));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::containerd::bolt::tests::fixture;
    use std::collections::BTreeMap;

    #[test]
    fn every_image_is_what_ctr_says_it_is() {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Image {
            digest: String,
            media_type: String,
            size: u64,
        }
        #[derive(serde::Deserialize)]
        struct Namespace {
            images: BTreeMap<String, Image>,
        }
        for name in ["ctr16", "ctr21", "ctr16-many", "ctr21-many"] {
            let said = std::fs::read(format!("fixtures/bolt/{name}.json")).unwrap();
            let said: BTreeMap<String, Namespace> = serde_json::from_slice(&said).unwrap();
            let listing = listing(&&fixture(name)[..]).unwrap();
            let with_images = |namespace: &&String| said[*namespace].images.is_empty() || said.contains_key(*namespace);
            assert!(said.keys().filter(with_images).all(|namespace| listing.namespaces.contains(namespace)));
            let mut expected = Vec::new();
            for (namespace, held) in &said {
                for (name, image) in &held.images {
                    let digest = image.digest.parse().unwrap();
                    let target = Descriptor::new(image.media_type.as_str(), digest, image.size);
                    expected.push(Record { namespace: namespace.clone(), name: name.clone(), target });
                }
            }
            assert_eq!(listing.records, expected, "{name}");
        }
    }

    #[test]
    fn gos_varints_are_read() {
        for (bytes, number) in [
            (&[0][..], Some(0)),
            (&[0xd8, 0x04], Some(300)),
            (&[1], Some(-1)),
            (&[], None),
            (&[0x80; 12], None),
            (&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Some(i64::MAX)),
        ] {
            assert_eq!(varint(bytes), number);
        }
    }
}
