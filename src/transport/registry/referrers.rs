//! The referrers of an image (distribution-spec, "Listing Referrers"): by the API, or by the referrers tag if the
//! registry has no such API ("Referrers Tag Schema"). `referrers_tag` then keeps the tag up to date.

use super::auth::token::Scope;
use super::http::Call;
use super::http::client::RegistryClient;
use super::pull::manifest;
use super::pull::manifest::ManifestRef;
use super::pull::skipped::Skipped;
use super::pull::tags;
use super::pull::tags::next_page;
use crate::error::{Error, Kind, Result};
use crate::image::{
    Descriptor, Digest, MAX_COPIED_REFERRERS, MAX_MANIFEST_BYTES, digest_tags, is_digest_tag, json_tree, media_type,
    referrers_tag,
};
use crate::source::ReferrerList;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use ureq::http::{Method, header};

const MAX_PAGES: usize = 200;
/// The maximum number of entries that are read of a list; one more than a copy takes, so that it sees that there are more.
pub const MAX_REFERRERS: usize = MAX_COPIED_REFERRERS + 1;
/// The maximum number of pages of a list of tags that is read in place of three requests for each subject.
const MAX_TAG_PAGES: usize = 3;

/// The digest tags of a repository; `None` if the list cannot be had.
type ListedTags = Option<HashSet<String>>;

/// The properties of a repository's referrers API and of its tags, so that each is asked for once.
#[derive(Default)]
pub struct ReferrersMemory {
    /// Whether the registry has the referrers API, once it was asked.
    has_api: OnceLock<bool>,
    /// The number of subjects whose digest tags were asked for.
    subjects: AtomicUsize,
    /// Tags that the repository has, known before its tags were listed.
    seen_tags: Mutex<HashSet<String>>,
    /// The digest tags of the repository, once they were listed.
    digest_tags: Mutex<Option<ListedTags>>,
}

impl ReferrersMemory {
    /// Records that the repository has `tag`, so that a list without it is not trusted.
    pub fn saw_tag(&self, tag: &str) {
        self.seen_tags.lock().unwrap_or_else(PoisonError::into_inner).insert(tag.to_owned());
    }

    /// The digest tags among `tags`, a list of all tags. `None` for a list that is not complete: it is empty, or without a
    /// tag that the repository has. Some registries list only what they cached, or nothing.
    fn digest_tags_of(&self, tags: Vec<String>) -> ListedTags {
        let listed: HashSet<String> = tags.into_iter().collect();
        let seen = self.seen_tags.lock().unwrap_or_else(PoisonError::into_inner);
        let is_complete = !listed.is_empty() && seen.is_subset(&listed);
        is_complete.then(|| listed.into_iter().filter(|tag| is_digest_tag(tag)).collect())
    }
}

/// Lists the manifests that refer to `subject`, at most [`MAX_REFERRERS`].
pub fn list(
    client: &RegistryClient,
    repository: &str,
    subject: &Digest,
    memory: &ReferrersMemory,
) -> Result<ReferrerList> {
    if memory.has_api.get() == Some(&false) {
        return by_tag(client, repository, subject);
    }
    if let Some(found) = by_api(client, repository, subject)? {
        let _ = memory.has_api.set(true);
        return Ok(found);
    }
    let found = by_tag(client, repository, subject)?;
    let _ = memory.has_api.set(false);
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

/// The tags of [`digest_tags`] for `subject` that the repository may have: all three for the first subject, and from the
/// second on those of a list of all tags, which costs one request for many subjects, unless that list is not complete.
pub fn possible_digest_tags(
    client: &RegistryClient,
    repository: &str,
    subject: &Digest,
    memory: &ReferrersMemory,
) -> Result<Vec<String>> {
    let wanted = digest_tags(subject);
    if memory.subjects.fetch_add(1, Ordering::Relaxed) == 0 {
        return Ok(wanted.to_vec());
    }
    // Locked while the tags are listed, since others wait for the same list.
    let mut known = memory.digest_tags.lock().unwrap_or_else(PoisonError::into_inner);
    if known.is_none() {
        let listed = match tags::list_within(client, repository, MAX_TAG_PAGES) {
            Ok(None) => None,
            Ok(Some(tags)) => memory.digest_tags_of(tags),
            Err(error) if matches!(error.kind(), Kind::Network | Kind::Interrupted) => return Err(error),
            Err(_) => None,
        };
        *known = Some(listed);
    }
    Ok(match known.as_ref().and_then(Option::as_ref) {
        Some(listed) => wanted.into_iter().filter(|tag| listed.contains(tag)).collect(),
        None => wanted.to_vec(),
    })
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
