//! Nondistributable layers from where their descriptors say that they are (descriptor.md, "urls"), for a user who asked
//! for that. An image's author chose these hosts, so they are trusted with nothing: HTTPS only, also behind a redirect,
//! with a certificate that verifies; no credentials and no client certificate; no more bytes than the descriptor has,
//! which the engine hashes like any other blob's.

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::image::Descriptor;
use crate::source::{Profile, Store, Wrapper};
use crate::transport::registry::http::transport_error::{TransportError, from_body};
use crate::transport::registry::http::{Call, Http, Payload, PeerKind, Response};
use crate::transport::registry::options::{Access, Credentials, Insecure};
use std::io::{self, Read};
use std::sync::Arc;
use ureq::http::{Method, header};
use url::Url;

/// Addresses of one layer that are tried, at most.
const MAX_URLS: usize = 4;
const MAX_REDIRECTS: usize = 5;

/// A store whose missing nondistributable layers come from elsewhere.
pub struct ForeignStore {
    store: Arc<dyn Store>,
    http: Arc<Http>,
    /// Times that a layer is asked for again where it breaks off.
    retries: u32,
}

impl ForeignStore {
    /// `store`, with what it is without fetched as patiently as `access` says; who the user is stays out of it.
    pub fn new(store: Arc<dyn Store>, access: Access, cancel: &Cancel) -> ForeignStore {
        let retries = access.retries;
        let access = Access { credentials: Credentials::Nobody, insecure: Insecure::No, client_cert: None, ..access };
        ForeignStore { store, http: Arc::new(Http::new("", access, cancel)), retries }
    }
}

/// Where `layer` may be fetched from.
fn addresses(layer: &Descriptor) -> impl Iterator<Item = Url> {
    let urls = layer.urls.iter().flatten().filter_map(|url| Url::parse(url).ok());
    urls.filter(is_plain_https).take(MAX_URLS)
}

fn is_plain_https(url: &Url) -> bool {
    url.scheme() == "https" && url.username().is_empty() && url.password().is_none()
}

/// A layer on its way, asked for again at its byte where it breaks off.
struct Fetched {
    http: Arc<Http>,
    layer: Descriptor,
    at: u64,
    left: u32,
    body: Box<dyn Read + Send>,
}

impl Read for Fetched {
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
            if self.left == 0 {
                let digest = self.layer.digest;
                return Err(Error::network(format!("layer {digest} from elsewhere breaks off: {why}")).into());
            }
            self.left -= 1;
            self.body = fetch(&self.http, &self.layer, self.at)?;
        }
    }
}

/// The bytes of `layer` from `from` on, from the first address that gives them.
fn fetch(http: &Http, layer: &Descriptor, from: u64) -> Result<Box<dyn Read + Send>> {
    let mut why = Vec::new();
    for url in addresses(layer) {
        let host = url.host_str().unwrap_or_default().to_owned();
        match ask(http, url, from) {
            Ok(answer) => return positioned(answer, from),
            Err(said) => why.push(format!("{host}: {said}")),
        }
    }
    let what = format!("nondistributable layer {} cannot be fetched", layer.digest);
    Err(Error::several(crate::Kind::Network, &what, &why))
}

/// The answer of `url` or of where it leads.
fn ask(http: &Http, mut url: Url, from: u64) -> std::result::Result<Response, String> {
    for _ in 0..=MAX_REDIRECTS {
        let mut call = Call::new(Method::GET, url.clone());
        if from > 0 {
            call = call.with(header::RANGE, &format!("bytes={from}-"));
        }
        let answer = http.send(&call, &mut Payload::Nothing, PeerKind::Other).map_err(|fault| match fault {
            TransportError::Permanent(error) | TransportError::TunnelRefused(error) => error.to_string(),
            TransportError::Transient(why) | TransportError::Unreachable(why) => why,
            TransportError::NotTls => "it does not speak TLS".to_owned(),
        })?;
        match answer.status {
            200 | 206 => return Ok(answer),
            301 | 302 | 303 | 307 | 308 => {
                let target = answer.header("location").and_then(|to| url.join(to).ok());
                url = target.filter(is_plain_https).ok_or("it leads to what is not an https address")?;
            }
            status => return Err(format!("status {status}")),
        }
    }
    Err(format!("more than {MAX_REDIRECTS} redirects"))
}

/// The body of `answer` at byte `from` of the layer, whether or not the range was honoured.
fn positioned(answer: Response, from: u64) -> Result<Box<dyn Read + Send>> {
    let honoured = answer.header("content-range").is_some_and(|range| range.starts_with(&format!("bytes {from}-")));
    let (status, host) = (answer.status, answer.url.host_str().unwrap_or_default().to_owned());
    if status == 206 && !honoured {
        return Err(Error::network(format!("{host} answers with other bytes than it was asked for")));
    }
    let mut body = answer.into_reader();
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
        Ok(Box::new(Fetched { http, layer, at: from, left: self.retries, body }))
    }
    fn change(&self, profile: Profile) -> Profile {
        Profile { downloads: is_downloadable, empty_message: Profile::default().empty_message, ..profile }
    }
}

fn is_downloadable(layer: &Descriptor) -> bool {
    layer.is_foreign() && addresses(layer).next().is_some()
}
