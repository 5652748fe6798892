//! The referrers of an image (distribution-spec, "Listing Referrers"): by the API, or by the referrers tag if the
//! registry has no such API ("Referrers Tag Schema"). imgmv then keeps the tag up to date.

use super::auth::token::Scope;
use super::http::Call;
use super::http::client::RegistryClient;
use super::pull::manifest;
use super::pull::manifest::ManifestRef;
use super::pull::skipped::Skipped;
use super::pull::tags::next_page;
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest, json_tree, media_type};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use ureq::http::{Method, header};

const MAX_PAGES: usize = 200;
const MAX_REFERRERS: usize = 20_000;

/// Lists the manifests that refer to `subject`.
pub fn list(client: &RegistryClient, repository: &str, subject: &Digest) -> Result<Vec<Descriptor>> {
    let (scope, what) = (Scope::Pull(repository.to_owned()), format!("referrers of {repository}@{subject}"));
    let mut next = Some(client.url(&format!("{repository}/referrers/{subject}"))?);
    let (mut all, mut skipped) = (Vec::new(), Skipped::default());
    for page in 0..MAX_PAGES {
        let Some(url) = next else {
            skipped.report(&*client.watch, &format!("{what} at {}", client.host), "a descriptor");
            return Ok(all);
        };
        let call = Call::new(Method::GET, url).with(header::ACCEPT, media_type::OCI_INDEX);
        let (response, bytes) = match client.document(&call, &scope, &what, MAX_MANIFEST_BYTES) {
            Ok(page) => page,
            // The registry has no referrers API; registries report that with different statuses.
            Err(error) if page == 0 && matches!(error.kind(), Kind::NotFound | Kind::Failed) => {
                return by_tag(client, repository, subject);
            }
            Err(error) => return Err(error),
        };
        all.extend(entries(&bytes, &mut skipped).ok_or_else(|| not_an_index(client, &what))?);
        if all.len() + skipped.count() > MAX_REFERRERS {
            break;
        }
        next = next_page(client, &response)?;
    }
    Err(Error::invalid(format!("{}: more than {MAX_REFERRERS} {what}, or more than {MAX_PAGES} pages", client.host)))
}

/// The referrers tag: `sha256-<hex>`.
fn tag(subject: &Digest) -> String {
    // A tag has at most 128 characters, so a sha512 digest is cut.
    subject.to_string().replacen(':', "-", 1).chars().take(128).collect()
}

/// The referrers tag and its index with `manifest` added ("Pushing Manifests with Subject"). `None` if `manifest` is
/// listed already or has no subject.
pub fn with_listed(
    client: &RegistryClient,
    repository: &str,
    manifest: &Manifest,
) -> Result<Option<(String, Manifest)>> {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct ReferrerFields {
        artifact_type: Option<String>,
        annotations: Option<BTreeMap<String, String>>,
    }
    let Some(subject) = &manifest.subject else {
        return Ok(None);
    };
    let mut listed = by_tag(client, repository, &subject.digest)?;
    if listed.len() >= MAX_REFERRERS || listed.iter().any(|own| own.digest == manifest.digest()) {
        return Ok(None);
    }
    let fields: ReferrerFields = serde_json::from_slice(&manifest.bytes).unwrap_or_default();
    let mut entry = manifest.descriptor.clone();
    entry.artifact_type = fields.artifact_type.or_else(|| manifest.config().map(|config| config.media_type.clone()));
    entry.annotations = fields.annotations;
    listed.push(entry);
    let text = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": listed }).to_string();
    Ok(Some((tag(&subject.digest), Manifest::from_bytes(text.into_bytes(), media_type::OCI_INDEX)?)))
}

/// The valid descriptors of an index; the other entries go to `skipped`. `None` if `index` is not an index.
fn entries(index: &[u8], skipped: &mut Skipped) -> Option<Vec<Descriptor>> {
    let index = json_tree(index).ok()?;
    let list = match index.get("manifests")? {
        Value::Array(list) => &list[..],
        Value::Null => &[],
        _ => return None,
    };
    let mut found = Vec::new();
    for entry in list {
        match Descriptor::deserialize(entry) {
            Ok(descriptor) => found.push(descriptor),
            Err(_) => skipped.add(entry),
        }
    }
    Some(found)
}

fn not_an_index(client: &RegistryClient, what: &str) -> Error {
    Error::invalid(format!("{}: the response for the {what} is not an image index", client.host))
}

/// Reads the index of the referrers tag; empty if the tag does not exist.
fn by_tag(client: &RegistryClient, repository: &str, subject: &Digest) -> Result<Vec<Descriptor>> {
    match manifest::fetch(client, repository, ManifestRef::Tag(&tag(subject))) {
        Ok((_, bytes)) => {
            let (what, mut skipped) = (format!("referrers of {repository}@{subject}"), Skipped::default());
            let found = entries(&bytes, &mut skipped).ok_or_else(|| not_an_index(client, &what))?;
            skipped.report(&*client.watch, &format!("{what} at {}", client.host), "a descriptor");
            Ok(found)
        }
        Err(error) if error.kind() == Kind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
