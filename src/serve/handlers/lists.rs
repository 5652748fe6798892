//! Paged lists of repositories, tags and referrers (distribution-spec, "Content Discovery").

use crate::image::{Digest, media_type};
use crate::serve::http::errors::{ApiError, ErrorCode};
use crate::serve::http::reply::{HandlerResult, add_header, blocking, text};
use crate::serve::http::request::RequestHead;
use crate::serve::server::Server;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The maximum and default number of entries of a page.
const MAX_PAGE_ENTRIES: usize = 1000;
/// The size limit of a page of referrers, since annotations can have any length.
const MAX_REFERRERS_BYTES: usize = 2 << 20;

/// Handles `/v2/_catalog`: all repositories.
pub async fn catalog(server: &Arc<Server>, request: RequestHead) -> HandlerResult {
    let catalog = server.catalog.clone();
    let names = blocking(move || catalog.repositories()).await??;
    let page = Page::select(&request, names)?;
    Ok(page.response("/v2/_catalog", |names| json!({ "repositories": names })))
}

/// Handles `/v2/<name>/tags/list`: the tags in lexical order.
pub async fn tags(server: &Arc<Server>, request: RequestHead, name: String) -> HandlerResult {
    let tags = server.with_repository(request.repository(&name), |repository| repository.tags()).await?;
    let page = Page::select(&request, tags.into_iter().collect())?;
    Ok(page.response(&format!("/v2/{name}/tags/list"), |tags| json!({ "name": name, "tags": tags })))
}

struct Page {
    entries: Vec<String>,
    size: usize,
    /// Further entries follow this page.
    more: bool,
}

impl Page {
    /// Selects the page of `all` that the query parameters `n` and `last` request.
    fn select(request: &RequestHead, all: BTreeSet<String>) -> Result<Page, ApiError> {
        let size = match request.query.value("n") {
            None => MAX_PAGE_ENTRIES,
            Some(n) => {
                let wrong =
                    || ApiError::bad_request(ErrorCode::Unsupported, "invalid n; use a number of entries, 0 or more");
                n.parse::<u64>().map_err(|_| wrong())?.min(MAX_PAGE_ENTRIES as u64) as usize
            }
        };
        let last = request.query.value("last").unwrap_or_default().to_owned();
        let mut rest = all.into_iter().filter(|name| *name > last).peekable();
        let entries: Vec<String> = rest.by_ref().take(size).collect();
        Ok(Page { more: size > 0 && rest.peek().is_some(), entries, size })
    }

    fn response(
        &self,
        path: &str,
        json: impl Fn(&[String]) -> Value,
    ) -> hyper::Response<crate::serve::http::response::ResponseBody> {
        let mut response = text("application/json", json(&self.entries).to_string());
        if let Some(last) = self.entries.last().filter(|_| self.more) {
            add_header(&mut response, "link", &format!("<{path}?n={}&last={last}>; rel=\"next\"", self.size));
        }
        response
    }
}

/// Handles `/v2/<name>/referrers/<digest>`: an index, empty if the digest has no referrers.
pub async fn referrers(server: &Arc<Server>, request: RequestHead, name: String, subject: Digest) -> HandlerResult {
    let found =
        server.with_repository(request.repository(&name), move |repository| repository.referrers(&subject)).await;
    let mut all = match found {
        // A registry that supports this API must not respond with 404.
        Err(api_error) if api_error.code == ErrorCode::NameUnknown => Vec::new(),
        found => found?,
    };
    all.sort_by_key(|referrer| referrer.digest);
    let kinds: Vec<&str> = request.query.values("artifactType").filter(|kind| !kind.is_empty()).collect();
    if !kinds.is_empty() {
        all.retain(|referrer| referrer.artifact_type.as_deref().is_some_and(|own| kinds.contains(&own)));
    }
    if let Some(last) = request.query.value("last").and_then(|last| last.parse::<Digest>().ok()) {
        all.retain(|referrer| referrer.digest > last);
    }
    let (mut entries, mut size, mut more) = (Vec::new(), 0, None);
    for referrer in all {
        let value = json!(referrer);
        size += value.to_string().len();
        if size > MAX_REFERRERS_BYTES && !entries.is_empty() {
            break;
        }
        more = Some(referrer.digest);
        entries.push(value);
    }
    let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries });
    let mut response = text(media_type::OCI_INDEX, index.to_string());
    if !kinds.is_empty() {
        add_header(&mut response, "oci-filters-applied", "artifactType");
    }
    if let Some(last) = more.filter(|_| size > MAX_REFERRERS_BYTES) {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("last", &last.to_string());
        for kind in kinds {
            query.append_pair("artifactType", kind);
        }
        let next = format!("</v2/{name}/referrers/{subject}?{}>; rel=\"next\"", query.finish());
        add_header(&mut response, "link", &next);
    }
    Ok(response)
}
