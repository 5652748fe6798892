//! What refers to an image (distribution-spec, "Listing Referrers"): by the API, and by the tag that stands in for it
//! where a registry has no such API ("Referrers Tag Schema"), which is then kept up to date here.

use super::auth::token::Scope;
use super::http::Call;
use super::http::client::RegistryClient;
use super::pull::manifest;
use super::pull::manifest::At;
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

/// Everything that refers to `subject`.
pub fn list(wire: &RegistryClient, repository: &str, subject: &Digest) -> Result<Vec<Descriptor>> {
    let (scope, what) = (Scope::Pull(repository.to_owned()), format!("referrers of {repository}@{subject}"));
    let mut next = Some(wire.url(&format!("{repository}/referrers/{subject}"))?);
    let (mut all, mut skipped) = (Vec::new(), Skipped::default());
    for page in 0..MAX_PAGES {
        let Some(url) = next else {
            skipped.say(&*wire.watch, &format!("the {what} at {}", wire.host), "a descriptor");
            return Ok(all);
        };
        let call = Call::new(Method::GET, url).with(header::ACCEPT, media_type::OCI_INDEX);
        let (answer, bytes) = match wire.document(&call, &scope, &what, MAX_MANIFEST_BYTES) {
            Ok(page) => page,
            // No such API, in the words of different registries.
            Err(error) if page == 0 && matches!(error.kind(), Kind::NotFound | Kind::Failed) => {
                return by_tag(wire, repository, subject);
            }
            Err(error) => return Err(error),
        };
        all.extend(entries(&bytes, &mut skipped).ok_or_else(|| no_list(wire, &what))?);
        if all.len() + skipped.count() > MAX_REFERRERS {
            break;
        }
        next = next_page(wire, &answer)?;
    }
    Err(Error::invalid(format!("{} has too many {what}", wire.host)))
}

/// The tag that stands in for the API: `sha256-<hex>`.
fn tag(subject: &Digest) -> String {
    // A tag has at most 128 characters; a sha512 digest does not fit as it is.
    subject.to_string().replacen(':', "-", 1).chars().take(128).collect()
}

/// The index under the tag that stands in for the API, with `manifest` listed in it; `None` where it is listed already
/// or refers to nothing ("Pushing Manifests with Subject").
pub fn with_listed(wire: &RegistryClient, repository: &str, manifest: &Manifest) -> Result<Option<(String, Manifest)>> {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Shown {
        artifact_type: Option<String>,
        annotations: Option<BTreeMap<String, String>>,
    }
    let Some(subject) = &manifest.subject else {
        return Ok(None);
    };
    let mut listed = by_tag(wire, repository, &subject.digest)?;
    if listed.len() >= MAX_REFERRERS || listed.iter().any(|own| own.digest == manifest.digest()) {
        return Ok(None);
    }
    let shown: Shown = serde_json::from_slice(&manifest.bytes).unwrap_or_default();
    let mut entry = manifest.descriptor.clone();
    entry.artifact_type = shown.artifact_type.or_else(|| manifest.config().map(|config| config.media_type.clone()));
    entry.annotations = shown.annotations;
    listed.push(entry);
    let text = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": listed }).to_string();
    Ok(Some((tag(&subject.digest), Manifest::from_bytes(text.into_bytes(), media_type::OCI_INDEX)?)))
}

/// The entries of an index that are descriptors. `None` where `index` is not one.
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

fn no_list(wire: &RegistryClient, what: &str) -> Error {
    Error::invalid(format!("{} lists the {what} in no form known", wire.host))
}

fn by_tag(wire: &RegistryClient, repository: &str, subject: &Digest) -> Result<Vec<Descriptor>> {
    match manifest::fetch(wire, repository, At::Tag(&tag(subject))) {
        Ok((_, bytes)) => {
            let (what, mut skipped) = (format!("referrers of {repository}@{subject}"), Skipped::default());
            let found = entries(&bytes, &mut skipped).ok_or_else(|| no_list(wire, &what))?;
            skipped.say(&*wire.watch, &format!("the {what} at {}", wire.host), "a descriptor");
            Ok(found)
        }
        Err(error) if error.kind() == Kind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
