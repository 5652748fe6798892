//! Foreign (nondistributable) layers, fetched from the `urls` of their descriptors (descriptor.md) if the user asks for
//! it. The image's author chose these hosts, so they are not trusted: HTTPS only, also after a redirect, with a valid
//! certificate; no credentials and no client certificate; at most as many bytes as the descriptor announces. The copy
//! hashes them like those of any blob.

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::image::Descriptor;
use crate::source::{Profile, Store, Wrapper};
use crate::transport::registry::http::transport_error::{TransportError, from_body};
use crate::transport::registry::http::{Call, HostKind, Http, Payload, Response};
use crate::transport::registry::options::{Access, Credentials, Insecure};
use std::io::{self, Read};
use std::sync::Arc;
use ureq::http::{Method, header};
use url::Url;

/// The maximum number of URLs tried per layer.
const MAX_URLS: usize = 4;
const MAX_REDIRECTS: usize = 5;

/// A store that fetches its missing foreign layers from their `urls`.
pub struct ForeignStore {
    store: Arc<dyn Store>,
    http: Arc<Http>,
    /// The number of retries after a broken connection, per layer.
    retries: u32,
}

impl ForeignStore {
    /// Wraps `store`. Time-outs, retries and proxies are those of `access`; its credentials are not used.
    pub fn new(store: Arc<dyn Store>, access: Access, cancel: &Cancel) -> ForeignStore {
        let retries = access.retries;
        let access =
            Access { credentials: Credentials::Anonymous, insecure: Insecure::No, client_cert: None, ..access };
        ForeignStore { store, http: Arc::new(Http::new("", access, cancel)), retries }
    }
}

/// The usable URLs of `layer`.
fn usable_urls(layer: &Descriptor) -> impl Iterator<Item = Url> {
    let urls = layer.urls.iter().flatten().filter_map(|url| Url::parse(url).ok());
    urls.filter(is_plain_https).take(MAX_URLS)
}

fn is_plain_https(url: &Url) -> bool {
    url.scheme() == "https" && url.username().is_empty() && url.password().is_none()
}

/// Reads a layer; after a broken connection it resumes at the offset.
struct ForeignLayerReader {
    http: Arc<Http>,
    layer: Descriptor,
    at: u64,
    retries_left: u32,
    body: Box<dyn Read + Send>,
}

impl Read for ForeignLayerReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let why = match self.body.read(buffer) {
                Ok(0) if self.at < self.layer.size && !buffer.is_empty() => "the connection was closed".to_owned(),
                Ok(n) => {
                    self.at += n as u64;
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                Err(error) => match from_body(error) {
                    TransportError::Permanent(error) | TransportError::TunnelRefused(error) => return Err(error.into()),
                    TransportError::Transient(why) | TransportError::Unreachable(why) => why,
                    TransportError::NotTls => "it does not speak TLS".to_owned(),
                },
            };
            if self.retries_left == 0 {
                let digest = self.layer.digest;
                return Err(Error::network(format!("foreign layer {digest}: the connection broke: {why}")).into());
            }
            self.retries_left -= 1;
            self.body = fetch(&self.http, &self.layer, self.at)?;
        }
    }
}

/// Opens `layer` at offset `from`, at the first URL that has it.
fn fetch(http: &Http, layer: &Descriptor, from: u64) -> Result<Box<dyn Read + Send>> {
    let mut why = Vec::new();
    for url in usable_urls(layer) {
        let host = url.host_str().unwrap_or_default().to_owned();
        match ask(http, url, from) {
            Ok(response) => return positioned(response, from),
            Err(error) => why.push(format!("{host}: {error}")),
        }
    }
    let what = format!("foreign layer {} cannot be fetched from its urls", layer.digest);
    Err(Error::several(crate::Kind::Network, &what, &why))
}

/// Sends `GET` to `url` and follows redirects.
fn ask(http: &Http, mut url: Url, from: u64) -> std::result::Result<Response, String> {
    for _ in 0..=MAX_REDIRECTS {
        let mut call = Call::new(Method::GET, url.clone());
        if from > 0 {
            call = call.with(header::RANGE, &format!("bytes={from}-"));
        }
        let response = http.send(&call, &mut Payload::Nothing, HostKind::Other).map_err(|fault| match fault {
            TransportError::Permanent(error) | TransportError::TunnelRefused(error) => error.to_string(),
            TransportError::Transient(why) | TransportError::Unreachable(why) => why,
            TransportError::NotTls => "it does not speak TLS".to_owned(),
        })?;
        match response.status {
            200 | 206 => return Ok(response),
            301 | 302 | 303 | 307 | 308 => {
                let target = response.header("location").and_then(|to| url.join(to).ok());
                url = target.filter(is_plain_https).ok_or("it redirects to a URL that is not https")?;
            }
            status => return Err(format!("status {status}")),
        }
    }
    Err(format!("more than {MAX_REDIRECTS} redirects"))
}

/// The body of `response` at offset `from` of the layer; if the server ignored the range, the bytes before it are
/// discarded.
fn positioned(response: Response, from: u64) -> Result<Box<dyn Read + Send>> {
    let honoured = response.header("content-range").is_some_and(|range| range.starts_with(&format!("bytes {from}-")));
    let (status, host) = (response.status, response.url.host_str().unwrap_or_default().to_owned());
    if status == 206 && !honoured {
        return Err(Error::network(format!("the response of {host} has another range than requested")));
    }
    let mut body = response.into_reader();
    if status == 200 {
        io::copy(&mut (&mut body).take(from), &mut io::sink())?;
    }
    Ok(Box::new(body))
}

impl Wrapper for ForeignStore {
    fn wrapped(&self) -> &dyn Store {
        &*self.store
    }
    fn open_blob(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        if !is_downloadable(blob) || self.store.find(&blob.digest)?.is_some() {
            return self.store.open(blob, from);
        }
        let (http, layer) = (self.http.clone(), blob.clone());
        let body = fetch(&http, &layer, from)?;
        Ok(Box::new(ForeignLayerReader { http, layer, at: from, retries_left: self.retries, body }))
    }
    fn change(&self, profile: Profile) -> Profile {
        Profile { downloads: is_downloadable, empty_message: Profile::default().empty_message, ..profile }
    }
}

fn is_downloadable(layer: &Descriptor) -> bool {
    layer.is_foreign() && usable_urls(layer).next().is_some()
}
