//! A repository's tags (distribution-spec, "Listing Tags"), page after page, within bounds.

use super::http::{Answer, Call};
use super::token::Scope;
use super::wire::Wire;
use crate::error::{Error, Result};
use crate::image::{MAX_NAMES, is_tag};
use serde::Deserialize;
use ureq::http::Method;
use url::Url;

/// In bytes, of one page.
const MAX_PAGE: u64 = 4 << 20;
const MAX_PAGES: usize = 2000;
/// What is asked for on one page; registries give fewer as they like.
const PAGE: usize = 1000;

#[derive(Deserialize)]
struct Page {
    /// Null where a repository has no tags.
    tags: Option<Vec<String>>,
}

/// Every tag of `repository`, in the registry's order.
pub fn list(wire: &Wire, repository: &str) -> Result<Vec<String>> {
    let (scope, what) = (Scope::Pull(repository.to_owned()), format!("repository {repository}"));
    let mut next = Some(wire.url(&format!("{repository}/tags/list?n={PAGE}"))?);
    let mut tags: Vec<String> = Vec::new();
    for _ in 0..MAX_PAGES {
        let Some(url) = next else {
            return Ok(tags);
        };
        let (answer, bytes) = wire.document(&Call::new(Method::GET, url), &scope, &what, MAX_PAGE)?;
        let page: Page = serde_json::from_slice(&bytes)
            .map_err(|_| Error::invalid(format!("{} lists the tags of {repository} in no form known", wire.host)))?;
        let before = tags.len();
        for tag in page.tags.unwrap_or_default() {
            if !is_tag(&tag) {
                return Err(Error::invalid(format!("{} lists {tag:?} among the tags of {repository}", wire.host)));
            }
            tags.push(tag);
        }
        if tags.len() > MAX_NAMES {
            return Err(Error::invalid(format!("{repository} at {} has more than {MAX_NAMES} tags", wire.host)));
        }
        // A page without tags that names a next page would go on for ever.
        next = if tags.len() == before { None } else { next_page(wire, &answer)? };
    }
    Err(Error::invalid(format!("{} lists the tags of {repository} on more than {MAX_PAGES} pages", wire.host)))
}

/// The page that `Link: <…>; rel="next"` names (RFC 8288), which has to be the registry's own.
pub fn next_page(wire: &Wire, answer: &Answer) -> Result<Option<Url>> {
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
