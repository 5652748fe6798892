//! The referrers of an image (distribution-spec, "Listing Referrers"): by the API, or by the referrers tag if the
//! registry has no such API ("Referrers Tag Schema"). `referrers_tag` then keeps the tag up to date.

use super::auth::token::Scope;
use super::http::Call;
use super::http::client::RegistryClient;
use super::pull::manifest;
use super::pull::manifest::ManifestRef;
use super::pull::skipped::Skipped;
use super::pull::tags::next_page;
use super::referrers_memory::ReferrersMemory;
use crate::error::{Error, Kind, Result};
use crate::image::{
    Descriptor, Digest, MAX_COPIED_REFERRERS, MAX_MANIFEST_BYTES, json_tree, media_type, referrers_tag,
};
use crate::source::ReferrerList;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashSet;
use ureq::http::{Method, header};

const MAX_PAGES: usize = 200;
/// The maximum number of entries that are read of a list; one more than a copy takes, so that it sees that there are more.
pub const MAX_REFERRERS: usize = MAX_COPIED_REFERRERS + 1;
/// Lists the manifests that refer to `subject`, at most [`MAX_REFERRERS`].
pub fn list(
    client: &RegistryClient,
    repository: &str,
    subject: &Digest,
    memory: &ReferrersMemory,
) -> Result<ReferrerList> {
    if memory.has_api() == Some(false) {
        return by_tag(client, repository, subject);
    }
    if let Some(found) = by_api(client, repository, subject)? {
        memory.found_api(true);
        return Ok(found);
    }
    let found = by_tag(client, repository, subject)?;
    memory.found_api(false);
    Ok(found)
}

/// Lists by the API; `None` if the registry has none. Registries report that with different statuses, or with another
/// document.
fn by_api(client: &RegistryClient, repository: &str, subject: &Digest) -> Result<Option<ReferrerList>> {
    let (scope, what) = (Scope::Pull(repository.to_owned()), format!("referrers of {repository}@{subject}"));
    let mut next = Some(client.url(&format!("{repository}/referrers/{subject}"))?);
    let (mut all, mut skipped) = (Vec::new(), Skipped::default());
    let (mut known, mut incomplete) = (HashSet::new(), None);
    for page in 0.. {
        let Some(url) = next else { break };
        if page == MAX_PAGES {
            incomplete = Some(format!("the {what} at {} have more than {MAX_PAGES} pages", client.host));
            break;
        }
        let call = Call::new(Method::GET, url).with(header::ACCEPT, media_type::OCI_INDEX);
        let (response, bytes) = match client.document(&call, &scope, &what, MAX_MANIFEST_BYTES) {
            Err(error) if page == 0 && is_no_api(&error) => return Ok(None),
            answer => answer?,
        };
        let before = all.len();
        let entries = match entries(&bytes, &mut skipped).map_err(|why| error_at(client, &what, &why))? {
            None if page == 0 => return Ok(None),
            entries => entries.ok_or_else(|| not_an_index(client, &what))?,
        };
        all.extend(entries.into_iter().filter(|entry| known.insert(entry.digest)));
        if all.len() + skipped.count() >= MAX_REFERRERS {
            break;
        }
        next = next_page(client, &response)?;
        // Pages without a new entry would never end.
        if next.is_some() && all.len() == before {
            incomplete =
                Some(format!("a page of the {what} at {} has no new entry, but names a next page", client.host));
            break;
        }
    }
    all.truncate(MAX_REFERRERS);
    Ok(Some(without_skipped(client, &what, &skipped, ReferrerList { entries: all, incomplete })))
}

/// Reports the entries that were skipped; they make `list` incomplete.
fn without_skipped(client: &RegistryClient, what: &str, skipped: &Skipped, list: ReferrerList) -> ReferrerList {
    let what = format!("{what} at {}", client.host);
    skipped.report(&*client.watch, &what, "a descriptor");
    let why = (skipped.count() > 0).then(|| format!("not every entry of the {what} is a descriptor"));
    ReferrerList { incomplete: list.incomplete.or(why), ..list }
}

fn is_no_api(error: &Error) -> bool {
    error.is_web_page() || matches!(error.kind(), Kind::NotFound | Kind::Failed | Kind::Denied)
}

/// The valid descriptors of an index; the other entries go to `skipped`. `None` if `index` is not an index.
///
/// Fails for a document that is too large or nested too deep, which may be an index.
fn entries(index: &[u8], skipped: &mut Skipped) -> std::result::Result<Option<Vec<Descriptor>>, String> {
    if !index.trim_ascii_start().starts_with(b"{") {
        return Ok(None);
    }
    let index = json_tree(index)?;
    let list = match index.get("manifests") {
        Some(Value::Array(list)) => &list[..],
        Some(Value::Null) => &[],
        _ => return Ok(None),
    };
    let mut found = Vec::new();
    for entry in list {
        match Descriptor::deserialize(entry) {
            Ok(descriptor) => found.push(descriptor),
            Err(_) => skipped.add(entry),
        }
    }
    Ok(Some(found))
}

/// The error for a list of referrers (`what`) that cannot be used.
pub fn error_at(client: &RegistryClient, what: &str, why: &str) -> Error {
    Error::invalid(format!("{}: the list of the {what} cannot be used: {why}", client.host))
}

fn not_an_index(client: &RegistryClient, what: &str) -> Error {
    Error::invalid(format!("{}: the response for the {what} is not an image index", client.host))
}

/// Reads the index of the referrers tag; empty if the tag does not exist.
fn by_tag(client: &RegistryClient, repository: &str, subject: &Digest) -> Result<ReferrerList> {
    let Some(bytes) = fetch_tagged(client, repository, subject)? else { return Ok(ReferrerList::default()) };
    let (what, mut skipped) = (format!("referrers of {repository}@{subject}"), Skipped::default());
    let listed = entries(&bytes, &mut skipped).map_err(|why| error_at(client, &what, &why))?;
    let mut listed = listed.ok_or_else(|| not_an_index(client, &what))?;
    listed.truncate(MAX_REFERRERS);
    Ok(without_skipped(client, &what, &skipped, ReferrerList::from(listed)))
}

/// The bytes of the index of the referrers tag; `None` if there is none. GitLab resolves such a tag as the digest itself,
/// so what is not an index, or is the subject, is not a list of referrers.
pub fn fetch_tagged(client: &RegistryClient, repository: &str, subject: &Digest) -> Result<Option<Vec<u8>>> {
    match manifest::fetch(client, repository, ManifestRef::Tag(&referrers_tag(subject))) {
        Ok((found, _)) if found.digest == *subject || !media_type::is_index(&found.media_type) => Ok(None),
        Ok((_, bytes)) => Ok(Some(bytes)),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
