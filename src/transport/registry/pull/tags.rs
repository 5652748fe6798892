//! The tags of a repository (distribution-spec, "Listing Tags"): all pages, within limits.

use super::skipped::Skipped;
use crate::error::{Error, Result};
use crate::image::{MAX_NAMES, is_tag, json_tree};
use crate::transport::registry::auth::token::Scope;
use crate::transport::registry::http::client::RegistryClient;
use crate::transport::registry::http::{Call, Response};
use serde_json::Value;
use std::collections::HashSet;
use ureq::http::Method;
use url::Url;

const MAX_PAGE_BYTES: u64 = 4 << 20;
const MAX_PAGES: usize = 2000;
/// The number of tags requested per page; registries may return fewer.
const TAGS_PER_PAGE: usize = 1000;

/// Lists every tag of `repository`, in the registry's order. Entries that are not tags are skipped and reported.
pub fn list(client: &RegistryClient, repository: &str) -> Result<Vec<String>> {
    let too_many =
        || Error::invalid(format!("{}: the tags of {repository} have more than {MAX_PAGES} pages", client.host));
    list_within(client, repository, MAX_PAGES)?.ok_or_else(too_many)
}

/// As [`list`]; `None` if the list has more than `max_pages` pages.
pub fn list_within(client: &RegistryClient, repository: &str, max_pages: usize) -> Result<Option<Vec<String>>> {
    let (scope, what) = (Scope::Pull(repository.to_owned()), format!("repository {repository}"));
    let mut next = Some(client.url(&format!("{repository}/tags/list?n={TAGS_PER_PAGE}"))?);
    let (mut tags, mut skipped) = (Vec::new(), Skipped::default());
    let mut known = HashSet::new();
    for _ in 0..max_pages {
        let Some(url) = next else {
            skipped.report(&*client.watch, &format!("tags of {}/{repository}", client.host), "a tag");
            return Ok(Some(tags));
        };
        let (response, bytes) = client.document(&Call::new(Method::GET, url), &scope, &what, MAX_PAGE_BYTES)?;
        let entries = entries(&bytes).ok_or_else(|| {
            Error::invalid(format!("{}: the response for the tags of {repository} is not a tag list", client.host))
        })?;
        let (is_last, mut is_new) = (entries.is_empty(), false);
        for entry in entries {
            match entry {
                Value::String(tag) if is_tag(&tag) => {
                    if known.insert(tag.clone()) {
                        is_new = true;
                        tags.push(tag);
                    }
                }
                other => {
                    is_new = true;
                    skipped.add(&other);
                }
            }
        }
        if tags.len() + skipped.count() > MAX_NAMES {
            return Err(Error::invalid(format!("{repository} at {} has more than {MAX_NAMES} tags", client.host)));
        }
        // Empty pages that each name a next page would never end.
        next = if is_last { None } else { next_page(client, &response)? };
        if next.is_some() && !is_new {
            let host = &client.host;
            return Err(Error::invalid(format!(
                "{host}: the pages of the tags of {repository} form a loop: a page has no new tag"
            )));
        }
    }
    match next {
        Some(_) => Ok(None),
        None => Ok(Some(tags)),
    }
}

/// The entries of one page, of any JSON type. A repository without tags may have `tags` null or missing.
fn entries(page: &[u8]) -> Option<Vec<Value>> {
    let mut page = json_tree(page).ok()?;
    match page.get_mut("tags").map(Value::take) {
        Some(Value::Array(entries)) => Some(entries),
        Some(Value::Null) => Some(Vec::new()),
        None if page.get("name").is_some() => Some(Vec::new()),
        _ => None,
    }
}

/// The next page, from `Link: <…>; rel="next"` (RFC 8288). It must be at the registry's own origin.
pub fn next_page(client: &RegistryClient, response: &Response) -> Result<Option<Url>> {
    for link in response.headers("link") {
        let Some((target, parameters)) = link.trim().strip_prefix('<').and_then(|link| link.split_once('>')) else {
            continue;
        };
        if !parameters.to_ascii_lowercase().replace(['"', ' '], "").contains("rel=next") {
            continue;
        }
        let url = client.location(&response.url, target)?;
        if url.origin() != client.api()?.origin() {
            let to = url.host_str().unwrap_or_default();
            return Err(Error::invalid(format!(
                "{}: the next page of a list is on another host ({to}); not followed",
                client.host
            )));
        }
        return Ok(Some(url));
    }
    Ok(None)
}
