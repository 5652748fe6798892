//! A web server in a few lines, for tests: one thread a connection, HTTP/1.1 with keep-alive, bodies by length or in
//! chunks, plain or TLS. It knows nothing of registries.
#![allow(dead_code)]

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// A request without its body.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: String,
    /// Without the query.
    pub path: String,
    pub query: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The status it was answered with; 0 until then, and where the connection was broken instead.
    pub status: u16,
    /// Of its body, as far as it was read.
    pub received: u64,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// A parameter of the query, decoded.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let pairs = url::form_urlencoded::parse(self.query.as_bytes());
        pairs.into_iter().find(|(own, _)| own == name).map(|(_, value)| value.into_owned())
    }
}

/// What a body is made of.
pub enum Body {
    None,
    Bytes(Vec<u8>),
    /// `bytes[from..to]`, of which only `cut` are sent before the connection breaks (announced are all).
    Part {
        bytes: Arc<Vec<u8>>,
        from: usize,
        to: usize,
        cut: Option<usize>,
    },
    /// As `Part`, but after `cut` bytes the connection stays and says nothing.
    Stalled {
        bytes: Arc<Vec<u8>>,
        cut: usize,
    },
    /// Chunks for ever.
    Endless,
}

pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Body,
    /// The connection ends behind it.
    pub close: bool,
}

impl Response {
    pub fn new(status: u16) -> Response {
        Response { status, headers: Vec::new(), body: Body::None, close: false }
    }
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Response {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
    pub fn body(mut self, body: Body) -> Response {
        self.body = body;
        self
    }
    pub fn json(status: u16, text: &str) -> Response {
        Response::new(status).with("Content-Type", "application/json").body(Body::Bytes(text.as_bytes().to_vec()))
    }
}

/// What answers. `None` breaks the connection off.
pub type Answer = Arc<dyn Fn(&mut Request, &mut dyn Read) -> Option<Response> + Send + Sync>;

/// Certificates of `tests/support/tls`.
pub enum Tls {
    Server,
    /// Only clients with a certificate of the test authority.
    Mutual,
    /// A certificate and its key, in PEM form.
    Own(&'static [u8], &'static [u8]),
}

/// A server; ends when dropped.
pub struct Web {
    pub address: SocketAddr,
    /// How many were accepted.
    pub connections: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

impl Web {
    pub fn start(tls: Option<Tls>, answer: Answer) -> Web {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
        let address = listener.local_addr().expect("a bound socket has an address");
        let stopped = Arc::new(AtomicBool::new(false));
        let connections: Arc<AtomicUsize> = Arc::default();
        let count = connections.clone();
        let (stop, tls) = (stopped.clone(), tls.map(|tls| Arc::new(server_config(tls))));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                count.fetch_add(1, Ordering::SeqCst);
                let (answer, tls) = (answer.clone(), tls.clone());
                thread::spawn(move || {
                    let _ = stream.set_nodelay(true);
                    let stream: Box<dyn Stream> = match tls {
                        None => Box::new(stream),
                        Some(config) => {
                            let Ok(session) = rustls::ServerConnection::new(config) else { return };
                            Box::new(rustls::StreamOwned::new(session, stream))
                        }
                    };
                    let _ = converse(stream, &answer);
                });
            }
        });
        Web { address, connections, stopped }
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn server_config(tls: Tls) -> rustls::ServerConfig {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let certificate = |pem: &[u8]| CertificateDer::from_pem_slice(pem).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().expect("the usual versions of TLS");
    let (chain, key): (&[u8], &[u8]) = match &tls {
        Tls::Own(chain, key) => (chain, key),
        Tls::Server | Tls::Mutual => (include_bytes!("tls/server.crt"), include_bytes!("tls/server.key")),
    };
    let builder = match tls {
        Tls::Server | Tls::Own(..) => builder.with_no_client_auth(),
        Tls::Mutual => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(certificate(include_bytes!("tls/ca.crt"))).expect("an authority");
            let roots = Arc::new(roots);
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        }
    };
    let key = PrivateKeyDer::from_pem_slice(key).expect("a key");
    builder.with_single_cert(vec![certificate(chain)], key).expect("certificate and key")
}

/// Requests and answers until one side has had enough.
fn converse(stream: Box<dyn Stream>, answer: &Answer) -> io::Result<()> {
    let mut stream = BufReader::with_capacity(64 << 10, stream);
    loop {
        let Some(mut request) = head(&mut stream)? else {
            return Ok(());
        };
        let mut body = BodyReader::of(&request, &mut stream);
        let response = answer(&mut request, &mut body);
        let Some(response) = response else {
            return Ok(());
        };
        // What the answerer did not read is no part of the next request.
        let unwanted = body.expected;
        let left = if unwanted { 0 } else { io::copy(&mut (&mut body).take(1 << 20), &mut io::sink())? };
        let close = response.close || unwanted || left == 1 << 20;
        if !send(stream.get_mut(), &request, response, close)? || close {
            return Ok(());
        }
    }
}

fn head(stream: &mut impl Read) -> io::Result<Option<Request>> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 || bytes.len() > 64 << 10 {
            return Ok(None);
        }
        bytes.push(byte[0]);
        // The first byte of a TLS handshake: whoever speaks it hears what a plain server would say.
        if bytes[0] == 0x16 {
            return Ok(None);
        }
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    if !parsed.parse(&bytes).is_ok_and(|status| status.is_complete()) {
        return Ok(None);
    }
    let target = parsed.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Some(Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: parsed.headers.iter().map(|h| (h.name.to_ascii_lowercase(), text(h.value))).collect(),
        ..Request::default()
    }))
}

type Connection = BufReader<Box<dyn Stream>>;

struct BodyReader<'a> {
    stream: &'a mut Connection,
    /// Bytes left of the body, or of the chunk in hand.
    left: u64,
    chunked: bool,
    ended: bool,
    /// The client waits to hear that its body is wanted.
    expected: bool,
}

impl<'a> BodyReader<'a> {
    fn of(request: &Request, stream: &'a mut Connection) -> Self {
        let chunked = request.header("transfer-encoding").is_some_and(|coding| coding.contains("chunked"));
        let length = request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        let (left, ended) = if chunked { (0, false) } else { (length, length == 0) };
        BodyReader { stream, left, chunked, ended, expected: request.header("expect").is_some() }
    }
}

impl Read for BodyReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if std::mem::take(&mut self.expected) {
            self.stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            self.stream.get_mut().flush()?;
        }
        if !self.ended && self.chunked && self.left == 0 {
            self.left = u64::from_str_radix(line(self.stream)?.trim(), 16).map_err(io::Error::other)?;
            if self.left == 0 {
                line(self.stream)?;
                self.ended = true;
            }
        }
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        let most = self.left.min(buffer.len() as u64) as usize;
        let n = self.stream.read(&mut buffer[..most])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= n as u64;
        if self.left == 0 {
            if self.chunked {
                line(self.stream)?;
            } else {
                self.ended = true;
            }
        }
        Ok(n)
    }
}

fn line(stream: &mut impl Read) -> io::Result<String> {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        text.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
}

/// Writes an answer; false where its connection has to end.
fn send(stream: &mut dyn Stream, request: &Request, response: Response, close: bool) -> io::Result<bool> {
    let mut head = format!("HTTP/1.1 {} X\r\n", response.status);
    for (name, value) in &response.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if close {
        head += "Connection: close\r\n";
    }
    let has_length = response.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = match &response.body {
        Body::None => Some(0),
        Body::Bytes(bytes) => Some(bytes.len()),
        Body::Part { from, to, .. } => Some(to - from),
        Body::Stalled { bytes, .. } => Some(bytes.len()),
        Body::Endless => None,
    };
    match length {
        Some(length) if !has_length && !matches!(response.status, 204 | 304) => {
            head += &format!("Content-Length: {length}\r\n");
        }
        None => head += "Transfer-Encoding: chunked\r\n",
        _ => {}
    }
    head += "\r\n";
    stream.write_all(head.as_bytes())?;
    if request.method == "HEAD" {
        stream.flush()?;
        return Ok(true);
    }
    match response.body {
        Body::None => {}
        Body::Bytes(bytes) => stream.write_all(&bytes)?,
        Body::Part { bytes, from, to, cut } => {
            let rest = &bytes[from..to];
            let sent = cut.unwrap_or(rest.len()).min(rest.len());
            stream.write_all(&rest[..sent])?;
            stream.flush()?;
            return Ok(sent == rest.len());
        }
        Body::Stalled { bytes, cut } => {
            stream.write_all(&bytes[..cut.min(bytes.len())])?;
            stream.flush()?;
            // Until the client has had enough and closes.
            let _ = stream.read(&mut [0]);
            return Ok(false);
        }
        Body::Endless => {
            let chunk = [&b"10000\r\n"[..], &[b'x'; 0x10000], b"\r\n"].concat();
            loop {
                stream.write_all(&chunk)?;
            }
        }
    }
    stream.flush()?;
    Ok(true)
}
