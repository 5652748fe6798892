//! The tags of a repository (distribution-spec, "Listing Tags"): all pages, within limits.
//!
//! Tags are passed on as the bytes of a page arrive; the memory depends neither on their number nor on the length of a
//! page: docker-registry 2.8 sends all tags in one. A list that failed, repeats a page or has too many pages is an
//! error, never a shorter list.

use super::skipped::Skipped;
use super::tag_page::{self, PageEnd};
use crate::error::{Error, Result};
use crate::image::{MAX_NAMES, is_tag};
use crate::source::TagListing;
use crate::transport::registry::auth::token::Scope;
use crate::transport::registry::http::client::RegistryClient;
use crate::transport::registry::http::{Call, Response};
use serde_json::Value;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use ureq::http::Method;
use url::Url;

/// More than a million tags of the maximum length.
const MAX_PAGE_BYTES: u64 = 256 << 20;
const MAX_PAGES: usize = 2000;
/// A million tags on pages of 10.
const MAX_VISITED_PAGES: usize = 100_000;
/// The number of tags requested per page; registries may return fewer.
const TAGS_PER_PAGE: usize = 1000;

/// Lists every tag of `repository`, in the registry's order. Entries that are not tags are skipped and reported.
pub fn list(client: &RegistryClient, repository: &str) -> Result<Vec<String>> {
    list_within(client, repository, MAX_PAGES)?.ok_or_else(|| too_many_pages(client, repository, MAX_PAGES))
}

/// As [`list`]; `None` if the list has more than `max_pages` pages.
pub fn list_within(client: &RegistryClient, repository: &str, max_pages: usize) -> Result<Option<Vec<String>>> {
    let (mut tags, mut known) = (Vec::new(), HashSet::new());
    let listing = visit_within(client, repository, max_pages, &mut |tag| {
        if known.insert(tag.to_owned()) {
            tags.push(tag.to_owned());
        }
        match tags.len() > MAX_NAMES {
            true => Err(Error::invalid(format!("{repository} at {} has more than {MAX_NAMES} tags", client.host))),
            false => Ok(()),
        }
    })?;
    Ok(listing.map(|_| tags))
}

/// Calls `visit` for each tag of `repository` as the bytes arrive. Entries that are not tags are skipped, reported and
/// counted. A tag may be visited twice: a page that breaks is requested again from its start.
///
/// # Errors
/// The first error of `visit`, and that of a page. Some tags were visited before it.
pub fn visit(
    client: &RegistryClient,
    repository: &str,
    visit: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<TagListing> {
    visit_within(client, repository, MAX_VISITED_PAGES, visit)?
        .ok_or_else(|| too_many_pages(client, repository, MAX_VISITED_PAGES))
}

fn too_many_pages(client: &RegistryClient, repository: &str, max_pages: usize) -> Error {
    Error::invalid(format!("{}: the tags of {repository} have more than {max_pages} pages", client.host))
}

/// As [`visit`]; `None` if the list has more than `max_pages` pages.
fn visit_within(
    client: &RegistryClient,
    repository: &str,
    max_pages: usize,
    visit: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<Option<TagListing>> {
    let scope = Scope::Pull(repository.to_owned());
    let mut url = client.url(&format!("{repository}/tags/list?n={TAGS_PER_PAGE}"))?;
    let (mut skipped, mut pages) = (Skipped::default(), HashSet::new());
    for _ in 0..max_pages {
        let call = Call::new(Method::GET, url);
        let (response, page) = client.read_body(&call, &scope, &format!("repository {repository}"), |response| {
            Page::read(response, repository, skipped.clone(), visit)
        })?;
        let entries = match page.end {
            PageEnd::List(entries) => entries,
            PageEnd::Stopped(error) => return Err(error),
            PageEnd::NotAList => {
                return Err(Error::invalid(format!(
                    "{}: the response for the tags of {repository} is not a tag list",
                    client.host
                )));
            }
        };
        skipped = page.skipped;
        if entries > 0 && !pages.insert(page.hash) {
            let host = &client.host;
            return Err(Error::invalid(format!(
                "{host}: the pages of the tags of {repository} form a loop: the registry sent a page twice"
            )));
        }
        let next = next_page(client, &response)?;
        let may_be_cut = if next.is_some() { entries == 0 } else { entries == TAGS_PER_PAGE };
        // Empty pages that each name a next page would never end.
        let Some(next) = next.filter(|_| entries > 0) else {
            skipped.report(&*client.watch, &format!("tags of {}/{repository}", client.host), "a tag");
            return Ok(Some(TagListing { skipped: skipped.count(), may_be_cut }));
        };
        url = next;
    }
    Ok(None)
}

/// One page that was read to its end, or to an error of the visitor.
struct Page {
    end: PageEnd,
    /// Of all entries.
    hash: u64,
    /// The skipped entries up to this page.
    skipped: Skipped,
}

impl Page {
    /// Visits the tags of the page in `response`. Fails if the body breaks or is too long.
    fn read(
        response: &mut Response,
        repository: &str,
        mut skipped: Skipped,
        visit: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Page> {
        let mut hasher = DefaultHasher::new();
        let body = response.reader(MAX_PAGE_BYTES, &format!("the list of tags of {repository}"))?;
        let end = tag_page::visit(body, &mut |entry| {
            entry.hash(&mut hasher);
            match &entry {
                Value::String(tag) if is_tag(tag) => visit(tag),
                other => {
                    skipped.add(other);
                    Ok(())
                }
            }
        })?;
        Ok(Page { end, hash: hasher.finish(), skipped })
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
