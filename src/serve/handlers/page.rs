//! `/`: an HTML page that lists the images and their pull commands. It has no scripts and no external resources, and
//! escapes all text that comes from an image.

use crate::error::Result;
use crate::image::{Config, Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest};
use crate::message::printable;
use crate::serve::backend::catalog::{Catalog, Repository, RepositoryRequest, Search, TagOrDigest};
use crate::serve::http::errors::{ApiError, ErrorCode};
use crate::serve::http::reply::{HandlerResult, add_header, blocking, text};
use crate::serve::http::request::RequestHead;
use crate::serve::server::Server;
use base64::Engine as _;
use hyper::StatusCode;
use hyper::header;
use std::fmt::Write as _;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The maximum number of repositories on a page.
const MAX_REPOSITORIES: usize = 100;
/// The maximum number of tags of each repository in the list.
const MAX_TAGS_PER_REPOSITORY: usize = 10;
/// The maximum number of tags on the page of one repository.
const MAX_TAGS_OF_ONE_REPOSITORY: usize = 1000;
/// The maximum number of platforms of an image.
const MAX_PLATFORMS: usize = 20;
/// The time for reading images; the remaining tags are listed without platforms.
const PAGE_TIMEOUT: Duration = Duration::from_secs(3);

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
color:#222;background:#fff}h1{font-size:1.4rem}h2{font-size:1.1rem;margin:2rem 0 .3rem}table{border-collapse:collapse;\
width:100%}th,td{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0;border-top:1px solid #ccc}\
code{background:#eee;padding:.1rem .3rem;overflow-wrap:anywhere}@media(prefers-color-scheme:dark){body{color:#ddd;\
background:#1b1b1b}code{background:#333}th,td{border-color:#444}a{color:#8bf}}";

/// Handles `/` for clients that accept HTML.
pub async fn page(server: &Arc<Server>, request: RequestHead) -> HandlerResult {
    let accept = request.header(header::ACCEPT).unwrap_or_default();
    if !accept.to_ascii_lowercase().contains("text/html") {
        let message = "this path has only a page for browsers; the API is at /v2/";
        return Err(ApiError::not_found(ErrorCode::Unsupported, message));
    }
    // The page reads one manifest at a time, and each may be large.
    let _memory = server.manifest_memory.reserve(MAX_MANIFEST_BYTES).await;
    let host = request.header(header::HOST).filter(|host| is_plain(host)).unwrap_or("HOST").to_owned();
    let catalog = server.catalog.clone();
    let builder = PageBuilder { catalog, host, user: request.user.clone(), deadline: Instant::now() + PAGE_TIMEOUT };
    let only = request.query.value("repository").map(str::to_owned);
    let last = request.query.value("last").unwrap_or_default().to_owned();
    let html = blocking(move || match only {
        Some(name) => builder.repository_page(&name),
        None => builder.list_page(&last),
    });
    let html = html.await??;
    let found = html.is_some();
    let html = html.unwrap_or_else(|| html_document("<p>Repository not found. <a href=\"/\">All repositories</a></p>"));
    let mut response = text("text/html; charset=utf-8", html);
    if !found {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        base64::engine::general_purpose::STANDARD.encode(sha256(STYLE.as_bytes()))
    );
    add_header(&mut response, "content-security-policy", &policy);
    add_header(&mut response, "referrer-policy", "no-referrer");
    add_header(&mut response, "cache-control", "no-store");
    Ok(response)
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    match Digest::of(bytes) {
        Digest::Sha256(bytes) => bytes.to_vec(),
        Digest::Sha512(bytes) => bytes.to_vec(),
    }
}

/// The state for building one page.
struct PageBuilder {
    catalog: Catalog,
    /// The host name in the browser's request.
    host: String,
    user: Option<String>,
    deadline: Instant,
}

impl PageBuilder {
    fn repository(&self, name: &str) -> Result<Option<Arc<dyn Repository>>> {
        self.catalog.repository(&RepositoryRequest {
            name: name.to_owned(),
            ns: None,
            user: self.user.clone(),
            search: Search::Local,
        })
    }

    fn repository_page(&self, name: &str) -> Result<Option<String>> {
        let Some(repository) = crate::serve::http::route::repository_name(name)
            .ok()
            .map(|name| self.repository(&name))
            .transpose()?
            .flatten()
        else {
            return Ok(None);
        };
        let mut body = "<p><a href=\"/\">All repositories</a></p>".to_owned();
        self.add_repository(&mut body, name, &*repository, MAX_TAGS_OF_ONE_REPOSITORY);
        Ok(Some(html_document(&body)))
    }

    fn list_page(&self, last: &str) -> Result<Option<String>> {
        let names = self.catalog.repositories()?;
        let mut names = names.iter().filter(|name| name.as_str() > last).peekable();
        let mut body = String::new();
        if names.peek().is_none() {
            body += "<p>No images yet.</p>";
        }
        let listed: Vec<&String> = names.by_ref().take(MAX_REPOSITORIES).collect();
        for name in &listed {
            match self.repository(name) {
                Ok(Some(repository)) => self.add_repository(&mut body, name, &*repository, MAX_TAGS_PER_REPOSITORY),
                Ok(None) => {}
                Err(error) => drop(write!(body, "<h2>{}</h2><p>{}</p>", escaped(name), escaped(&error.to_string()))),
            }
        }
        if let Some(last) = listed.last().filter(|_| names.peek().is_some()) {
            let _ = write!(body, "<p><a href=\"/?last={}\">More repositories</a></p>", escaped(last));
        }
        Ok(Some(html_document(&body)))
    }

    fn add_repository(&self, body: &mut String, name: &str, repository: &dyn Repository, max_tags: usize) {
        let (name, mut tags) = (escaped(name), repository.tags().unwrap_or_default());
        tags.sort();
        let _ = write!(body, "<h2>{name}</h2>");
        if tags.is_empty() {
            *body += "<p>No tags.</p>";
            return;
        }
        *body += "<table><tr><th>Tag<th>Platform and size<th>Pull</tr>";
        for tag in tags.iter().take(max_tags) {
            let platforms = match Instant::now() < self.deadline {
                true => platforms(repository, tag).unwrap_or_default(),
                false => Vec::new(),
            };
            let listed: Vec<String> = platforms.iter().map(|text| escaped(text)).collect();
            let _ = write!(
                body,
                "<tr><td>{tag}<td>{}<td><code>docker pull {}/{name}:{tag}</code></tr>",
                listed.join("<br>"),
                escaped(&self.host),
                tag = escaped(tag)
            );
        }
        *body += "</table>";
        if tags.len() > max_tags {
            let _ = write!(body, "<p><a href=\"/?repository={name}\">All {} tags</a></p>", tags.len());
        }
    }
}

/// One line for each platform of the image at `tag`.
fn platforms(repository: &dyn Repository, tag: &str) -> Result<Vec<String>> {
    let Some(manifest) = repository.manifest(&TagOrDigest::Tag(tag.to_owned()))? else { return Ok(Vec::new()) };
    if manifest.children().is_empty() {
        return Ok(vec![line(&platform_of(repository, &manifest).unwrap_or_default(), Some(size(&manifest)))]);
    }
    let mut lines = Vec::new();
    for child in manifest.children().iter().take(MAX_PLATFORMS) {
        let found = repository.manifest(&TagOrDigest::Digest(child.digest))?;
        let platform = child.platform.as_ref().map(ToString::to_string).unwrap_or_default();
        lines.push(line(&platform, found.as_ref().map(size)));
    }
    Ok(lines)
}

fn line(platform: &str, size: Option<u64>) -> String {
    let platform = if platform.is_empty() { "unknown" } else { platform };
    match size {
        Some(size) => format!("{platform}, {}", human_size(size)),
        None => format!("{platform}, not here"),
    }
}

fn size(manifest: &Manifest) -> u64 {
    manifest.blobs().iter().map(|blob| blob.size).sum()
}

/// The platform in an image's config; `None` if the manifest is not an image.
fn platform_of(repository: &dyn Repository, manifest: &Manifest) -> Option<String> {
    let config: &Descriptor = manifest.config().filter(|config| config.size <= MAX_MANIFEST_BYTES)?;
    let size = repository.blob(&config.digest).ok()??;
    let mut bytes = Vec::new();
    repository.open(&config.digest, size, 0).ok()?.take(size.min(MAX_MANIFEST_BYTES)).read_to_end(&mut bytes).ok()?;
    let config = Config::parse(&bytes).ok().filter(|config| !config.architecture.is_empty())?;
    Some(config.platform().to_string())
}

fn human_size(size: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let (mut size, mut unit) = (size as f64 / 1024.0, units[0]);
    for next in &units[1..] {
        if size < 1024.0 {
            break;
        }
        (size, unit) = (size / 1024.0, next);
    }
    format!("{size:.1} {unit}")
}

fn html_document(body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>Images</title><style>{STYLE}</style><h1>Images</h1>{body}</html>\n"
    )
}

/// Escapes text for HTML, also inside an attribute.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in printable(text).chars().take(1024) {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            c => safe.push(c),
        }
    }
    safe
}

fn is_plain(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".:-[]".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_says_is_only_ever_text() {
        let strange = "<script>alert('x')</script> & \"y\"\x1b[2J";
        let safe = escaped(strange);
        assert_eq!(safe, "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;y&quot;?[2J");
        assert!(is_plain("registry.lan:5000") && is_plain("[::1]:5000"));
        assert!(!is_plain("a b") && !is_plain("a\"><script>") && !is_plain(""));
    }

    #[test]
    fn sizes_are_told_in_a_unit_that_people_read() {
        assert_eq!([100, 5 << 20, 3 << 30].map(human_size), ["0.1 KiB", "5.0 MiB", "3.0 GiB"]);
    }
}
