//! A repository's tags (distribution-spec, "Listing Tags"), page after page, within bounds.

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

/// In bytes, of one page.
const MAX_PAGE: u64 = 4 << 20;
const MAX_PAGES: usize = 2000;
/// What is asked for on one page; registries give fewer as they like.
const PAGE: usize = 1000;

/// Every tag of `repository`, in the registry's order. What is not a tag is skipped, which is said.
pub fn list(wire: &RegistryClient, repository: &str) -> Result<Vec<String>> {
    let (scope, what) = (Scope::Pull(repository.to_owned()), format!("repository {repository}"));
    let mut next = Some(wire.url(&format!("{repository}/tags/list?n={PAGE}"))?);
    let (mut tags, mut skipped) = (Vec::new(), Skipped::default());
    let mut known = HashSet::new();
    for _ in 0..MAX_PAGES {
        let Some(url) = next else {
            skipped.say(&*wire.watch, &format!("the tags of {}/{repository}", wire.host), "a tag");
            return Ok(tags);
        };
        let (answer, bytes) = wire.document(&Call::new(Method::GET, url), &scope, &what, MAX_PAGE)?;
        let entries = entries(&bytes)
            .ok_or_else(|| Error::invalid(format!("{} lists the tags of {repository} in no form known", wire.host)))?;
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
            return Err(Error::invalid(format!("{repository} at {} has more than {MAX_NAMES} tags", wire.host)));
        }
        // A page without tags that names a next page would go on for ever.
        next = if is_last { None } else { next_page(wire, &answer)? };
        if next.is_some() && !is_new {
            let host = &wire.host;
            return Err(Error::invalid(format!(
                "{host} lists the tags of {repository} in a circle: a page has no new tag"
            )));
        }
    }
    Err(Error::invalid(format!("{} lists the tags of {repository} on more than {MAX_PAGES} pages", wire.host)))
}

/// The entries of one page, of whatever kind each is. `tags` is null, or missing, where a repository has none.
fn entries(page: &[u8]) -> Option<Vec<Value>> {
    let mut page = json_tree(page).ok()?;
    match page.get_mut("tags").map(Value::take) {
        Some(Value::Array(entries)) => Some(entries),
        Some(Value::Null) => Some(Vec::new()),
        None if page.get("name").is_some() => Some(Vec::new()),
        _ => None,
    }
}

/// The page that `Link: <…>; rel="next"` names (RFC 8288), which has to be the registry's own.
pub fn next_page(wire: &RegistryClient, answer: &Response) -> Result<Option<Url>> {
    for link in answer.headers("link") {
        let Some((target, parameters)) = link.trim().strip_prefix('<').and_then(|link| link.split_once('>')) else {
            continue;
        };
        if !parameters.to_ascii_lowercase().replace(['"', ' '], "").contains("rel=next") {
            continue;
        }
        let url = wire.location(&answer.url, target)?;
        if url.origin() != wire.api()?.origin() {
            let to = url.host_str().unwrap_or_default();
            return Err(Error::invalid(format!("{} puts the next page of a list on another host, {to}", wire.host)));
        }
        return Ok(Some(url));
    }
    Ok(None)
}
