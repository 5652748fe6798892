//! A bad line to a good registry: a proxy on loopback that passes HTTP/1.1 on to one server, does to it what it was
//! told to, and counts requests, connections and bytes in both directions.
//!
//! ```ignore
//! let line = Proxy::start(&double.host());
//! line.does(Fault::once("GET", "/blobs/", Ill::Cut { after: 4 << 20, end: End::Rst }));
//! assert_eq!(line.seen("GET", "/blobs/").len(), 2);
//! ```
#![allow(dead_code)]

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It is closed.
    Fin,
    /// It is reset.
    Rst,
}

/// What happens to one request. Bytes are those of the body.
#[derive(Debug, Clone)]
pub enum Ill {
    /// Nothing: what is to befall the requests after it waits for its turn.
    Pass,
    /// The answer breaks off.
    Cut {
        after: u64,
        end: End,
    },
    /// The request's body breaks off.
    CutUpload {
        after: u64,
        end: End,
    },
    /// The answer goes no further; the connection stays.
    Stall {
        after: u64,
    },
    /// The answer announces less than there is, and keeps to it.
    Short {
        by: u64,
    },
    /// One bit of the answer flips.
    Flip {
        at: u64,
    },
    /// The server is not asked.
    Status {
        status: u16,
        retry_after: Option<String>,
    },
    /// The server sees no credentials, as if they had expired.
    Expired,
    RangeIgnored,
    /// The server is not asked: 416.
    RangeRefused,
    /// The answer begins a byte earlier than it was asked to.
    RangeWrong,
}

/// An ill that befalls requests of a method with a part in their path, so many times.
#[derive(Debug, Clone)]
pub struct Fault {
    pub method: String,
    pub part: String,
    pub times: usize,
    pub ill: Ill,
}

impl Fault {
    pub fn times(times: usize, method: &str, part: &str, ill: Ill) -> Fault {
        Fault { method: method.to_owned(), part: part.to_owned(), times, ill }
    }
    pub fn once(method: &str, part: &str, ill: Ill) -> Fault {
        Fault::times(1, method, part, ill)
    }
    /// Of those, only the requests for this blob.
    pub fn of(self, blob: &impl ToString) -> Fault {
        Fault { part: blob.to_string(), ..self }
    }
}

/// What every connection is like.
#[derive(Debug, Clone, Copy, Default)]
pub struct Line {
    /// Before each request reaches the server.
    pub latency: Duration,
    /// Bytes a second of one connection, both ways together.
    pub rate: Option<u64>,
    /// Bytes, both ways together, after which a connection ends.
    pub cut_every: Option<(u64, End)>,
}

/// A request that came through, or was answered here.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub method: String,
    /// Without the query.
    pub path: String,
    pub range: Option<String>,
    pub status: u16,
    /// Bytes of its body and of its answer's that were passed on.
    pub up: u64,
    pub down: u64,
}

impl Seen {
    /// Where its range begins; 0 where it has none.
    pub fn from(&self) -> u64 {
        let begins = |range: &str| range.strip_prefix("bytes=")?.split_once('-')?.0.parse().ok();
        self.range.as_deref().and_then(begins).unwrap_or(0)
    }
}

/// Bytes on the wire, heads included.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traffic {
    pub connections: usize,
    pub up: u64,
    pub down: u64,
    /// Requests that were under way at the same time, at most.
    pub most_at_once: usize,
}

type Hook = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    line: Line,
    faults: Vec<Fault>,
    seen: Vec<Seen>,
    traffic: Traffic,
    at_once: usize,
    hook: Option<(u64, Hook)>,
    /// Who has connected, and how many of them are still there.
    met: HashSet<SocketAddr>,
    open: usize,
}

/// The running proxy; ends when dropped.
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    stopped: Arc<AtomicBool>,
    hooked: Arc<AtomicBool>,
}

impl Proxy {
    /// In front of `server` (`HOST:PORT`, plain HTTP).
    pub fn start(server: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (state, stopped): (Arc<Mutex<State>>, Arc<AtomicBool>) = Default::default();
        let (server, shared, stop) = (server.to_owned(), state.clone(), stopped.clone());
        thread::spawn(move || {
            for client in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(client), server, state) = (client, server.clone(), shared.clone()) else { continue };
                {
                    let mut state = lock(&state);
                    state.met.extend(client.peer_addr());
                    state.open += 1;
                }
                thread::spawn(move || {
                    let _ = converse(client, &server, &state);
                    lock(&state).open -= 1;
                });
            }
        });
        Proxy { address, state, stopped, hooked: Arc::default() }
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// `http://127.0.0.1:PORT`.
    pub fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn is(&self, line: Line) {
        lock(&self.state).line = line;
    }

    pub fn does(&self, fault: Fault) {
        lock(&self.state).faults.push(fault);
    }

    /// Nothing is wrong any more, and nothing was seen.
    pub fn forget(&self) {
        let mut state = lock(&self.state);
        (state.line, state.faults, state.seen, state.hook) = Default::default();
        state.traffic = Traffic::default();
    }

    pub fn forget_and<T>(&self, then: impl FnOnce() -> T) -> T {
        self.forget();
        then()
    }

    /// Waits until the hook of [`Proxy::after`] has been called.
    pub fn hooked(&self) {
        while !self.hooked.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until everybody who has connected so far is gone, and what they asked last is answered: a request of a
    /// process that was killed may still lie in a socket.
    pub fn left_alone(&self) {
        let last = TcpStream::connect(self.address).expect("the proxy listens");
        let own = last.local_addr().expect("a connected socket has an address");
        drop(last);
        while !lock(&self.state).met.contains(&own) || lock(&self.state).open > 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Calls `hook` when `bytes` have passed in either direction, before the next one does.
    pub fn after(&self, bytes: u64, hook: impl FnOnce() + Send + 'static) {
        self.hooked.store(false, Ordering::SeqCst);
        let hooked = self.hooked.clone();
        let mut state = lock(&self.state);
        let passed = state.traffic.up + state.traffic.down;
        let told = move || {
            hook();
            hooked.store(true, Ordering::SeqCst);
        };
        state.hook = Some((passed + bytes, Box::new(told)));
    }

    pub fn seen(&self, method: &str, part: &str) -> Vec<Seen> {
        let fits = |seen: &&Seen| (method.is_empty() || seen.method == method) && seen.path.contains(part);
        self.settle();
        lock(&self.state).seen.iter().filter(fits).cloned().collect()
    }

    /// Waits until no request is under way: a client may have its answer before it is written down here.
    fn settle(&self) {
        for _ in 0..30_000 {
            if lock(&self.state).at_once == 0 {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// What has passed so far, also of requests that are under way.
    pub fn traffic_now(&self) -> Traffic {
        lock(&self.state).traffic
    }

    pub fn traffic(&self) -> Traffic {
        self.settle();
        lock(&self.state).traffic
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request's or an answer's first lines.
struct Head {
    first: String,
    headers: Vec<(String, String)>,
}

impl Head {
    /// `None` at the end of the connection, and for whoever speaks TLS.
    fn read(from: &mut impl BufRead) -> io::Result<Option<Head>> {
        if from.fill_buf()?.first().is_none_or(|byte| !byte.is_ascii_graphic()) {
            return Ok(None);
        }
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if from.take(16 << 10).read_line(&mut line)? == 0 {
                return Ok(None);
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let mut lines = lines.into_iter();
        let first = lines.next().unwrap_or_default();
        let header = |line: String| line.split_once(':').map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned()));
        Ok(Some(Head { first, headers: lines.filter_map(header).collect() }))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    fn set(&mut self, name: &str, value: Option<String>) {
        self.headers.retain(|(own, _)| own != name);
        self.headers.extend(value.map(|value| (name.to_owned(), value)));
    }

    fn word(&self, at: usize) -> &str {
        self.first.split(' ').nth(at).unwrap_or_default()
    }

    fn bytes(&self) -> Vec<u8> {
        let lines: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{}\r\n{lines}\r\n", self.first).into_bytes()
    }

    /// Bytes of the body that follows; `None` where it comes in chunks.
    fn length(&self) -> Option<u64> {
        let chunked = self.get("transfer-encoding").is_some_and(|coding| coding.contains("chunked"));
        (!chunked).then(|| self.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0))
    }
}

/// Everything that one connection has moved.
struct Meter<'a> {
    state: &'a Mutex<State>,
    line: Line,
    began: Instant,
    moved: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

impl Meter<'_> {
    fn pass(&mut self, to: &mut TcpStream, way: Way, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(16 << 10) {
            let left = self.line.cut_every.map_or(u64::MAX, |(every, _)| every.saturating_sub(self.moved));
            let piece = &piece[..piece.len().min(left as usize)];
            self.hook();
            to.write_all(piece)?;
            self.moved += piece.len() as u64;
            {
                let traffic = &mut lock(self.state).traffic;
                *if way == Way::Up { &mut traffic.up } else { &mut traffic.down } += piece.len() as u64;
            }
            // There may be no next byte: the line may stall here.
            self.hook();
            if let Some((every, _)) = self.line.cut_every
                && self.moved >= every
            {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if let Some(rate) = self.line.rate {
                let due = self.began + Duration::from_secs_f64(self.moved as f64 / rate as f64);
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }
        Ok(())
    }

    fn hook(&self) {
        let hook = {
            let mut state = lock(self.state);
            let passed = state.traffic.up + state.traffic.down;
            state.hook.take_if(|(at, _)| passed >= *at)
        };
        if let Some((_, hook)) = hook {
            hook();
        }
    }
}

fn converse(client: TcpStream, server: &str, state: &Mutex<State>) -> io::Result<()> {
    client.set_nodelay(true)?;
    set(&client, SO_SNDBUF, &SENT_AHEAD);
    let line = {
        let mut state = lock(state);
        state.traffic.connections += 1;
        state.line
    };
    let mut upstream: Option<BufReader<TcpStream>> = None;
    let mut from_client = BufReader::with_capacity(64 << 10, client.try_clone()?);
    let mut client = client;
    let mut meter = Meter { state, line, began: Instant::now(), moved: 0 };
    while let Some(head) = Head::read(&mut from_client)? {
        meter.line = lock(state).line;
        let fault = match fault(state, &head) {
            Some(Ill::RangeRefused) => Some(Ill::Status { status: 416, retry_after: None }),
            fault => fault,
        };
        let mut seen = Seen {
            method: head.word(0).to_owned(),
            path: head.word(1).split('?').next().unwrap_or_default().to_owned(),
            range: head.get("range").map(str::to_owned),
            ..Seen::default()
        };
        at_once(state, 1);
        let told = exchange(&mut meter, head, fault, (&mut from_client, &mut client), &mut upstream, server, &mut seen);
        lock(state).seen.push(seen);
        at_once(state, -1);
        let cut = meter.line.cut_every.filter(|(every, _)| meter.moved >= *every).map(|(_, end)| end);
        match told {
            Ok(None) if cut.is_none() => {}
            Ok(None) | Err(_) => {
                finish(&client, cut.unwrap_or(End::Fin));
                return Ok(());
            }
            Ok(Some(end)) => {
                finish(&client, end);
                return Ok(());
            }
        }
    }
    Ok(())
}

fn at_once(state: &Mutex<State>, change: isize) {
    let mut state = lock(state);
    state.at_once = state.at_once.saturating_add_signed(change);
    state.traffic.most_at_once = state.traffic.most_at_once.max(state.at_once);
}

fn fault(state: &Mutex<State>, head: &Head) -> Option<Ill> {
    let mut state = lock(state);
    let ranged = head.get("range").is_some();
    let fits = |fault: &&mut Fault| {
        let needs_range = matches!(fault.ill, Ill::RangeIgnored | Ill::RangeRefused | Ill::RangeWrong);
        let method = fault.method.is_empty() || head.word(0) == fault.method;
        // A body that ends before the cut is left alone.
        let long = match fault.ill {
            Ill::CutUpload { after, .. } => head.length().is_none_or(|length| length > after),
            _ => true,
        };
        fault.times > 0 && method && head.word(1).contains(&fault.part) && (ranged || !needs_range) && long
    };
    let fault = state.faults.iter_mut().find(fits)?;
    fault.times -= 1;
    Some(fault.ill.clone())
}

/// One request and its answer; how the connection ends after it, if it does.
fn exchange(
    meter: &mut Meter<'_>,
    mut head: Head,
    ill: Option<Ill>,
    (from_client, client): (&mut BufReader<TcpStream>, &mut TcpStream),
    upstream: &mut Option<BufReader<TcpStream>>,
    server: &str,
    seen: &mut Seen,
) -> io::Result<Option<End>> {
    thread::sleep(meter.line.latency);
    if let Some(Ill::Status { status, retry_after }) = &ill {
        seen.status = *status;
        let wish = retry_after.iter().map(|wish| format!("Retry-After: {wish}\r\n")).collect::<String>();
        // A body that was not asked for is not read: the connection ends.
        let answer = format!("HTTP/1.1 {status} X\r\n{wish}Content-Length: 0\r\nConnection: close\r\n\r\n");
        meter.pass(client, Way::Down, answer.as_bytes())?;
        return Ok(Some(End::Fin));
    }
    if head.get("expect").is_some() {
        head.set("expect", None);
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    match ill {
        Some(Ill::Expired) => head.set("authorization", None),
        Some(Ill::RangeIgnored) => head.set("range", None),
        Some(Ill::RangeWrong) => head.set("range", Some(format!("bytes={}-", seen.from() - 1))),
        _ => {}
    }
    if upstream.is_none() {
        let server = TcpStream::connect(server)?;
        server.set_nodelay(true)?;
        *upstream = Some(BufReader::with_capacity(64 << 10, server));
    }
    let upstream = upstream.as_mut().expect("set above");
    let mut to_server = upstream.get_ref().try_clone()?;
    meter.pass(&mut to_server, Way::Up, &head.bytes())?;
    let mut most = match ill {
        Some(Ill::CutUpload { after, .. }) => after,
        _ => u64::MAX,
    };
    let sent = body(from_client, head.length(), &mut |bytes| {
        let bytes = &bytes[..bytes.len().min(most as usize)];
        meter.pass(&mut to_server, Way::Up, bytes)?;
        seen.up += bytes.len() as u64;
        most -= bytes.len() as u64;
        if most == 0 { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    });
    match (sent, &ill) {
        (Err(_), Some(Ill::CutUpload { end, .. })) => return Ok(Some(*end)),
        (Err(error), _) if error.kind() == io::ErrorKind::ConnectionAborted => return Err(error),
        // The server may have refused before the end; its answer is passed on.
        (Err(_), _) => drop(to_server.shutdown(Shutdown::Write)),
        _ => {}
    }
    let mut answer = Head::read(upstream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    seen.status = answer.word(1).parse().unwrap_or(0);
    let bodiless = head.word(0) == "HEAD" || matches!(seen.status, 204 | 304);
    let whole = if bodiless { Some(0) } else { answer.length() };
    let mut left = u64::MAX;
    if let (Some(Ill::Short { by }), Some(length)) = (&ill, whole) {
        left = length.saturating_sub(*by);
        answer.set("content-length", Some(left.to_string()));
    }
    if let Some(Ill::Cut { after, .. } | Ill::Stall { after }) = ill {
        left = after;
    }
    meter.pass(client, Way::Down, &answer.bytes())?;
    let passed = body(upstream, whole, &mut |bytes| {
        if let Some(Ill::Flip { at }) = ill
            && (seen.down..seen.down + bytes.len() as u64).contains(&at)
        {
            bytes[(at - seen.down) as usize] ^= 1;
        }
        let bytes = &bytes[..bytes.len().min(left as usize)];
        meter.pass(client, Way::Down, bytes)?;
        seen.down += bytes.len() as u64;
        left -= bytes.len() as u64;
        if left == 0 { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    });
    match (passed, ill) {
        (Err(_), Some(Ill::Cut { end, .. })) => Ok(Some(end)),
        (Err(_), Some(Ill::Short { .. })) => Ok(Some(End::Fin)),
        (Err(_), Some(Ill::Stall { .. })) => {
            // Until the client has had enough and closes.
            let _ = from_client.read(&mut [0]);
            Ok(Some(End::Fin))
        }
        (Err(error), _) => Err(error),
        (Ok(()), _) => Ok(answer.get("connection").is_some_and(|how| how == "close").then_some(End::Fin)),
    }
}

/// Hands on a body of `length` bytes, or one in chunks with what is between them.
fn body(
    from: &mut impl BufRead,
    length: Option<u64>,
    pass: &mut dyn FnMut(&mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    if let Some(length) = length {
        return counted(from, length, pass);
    }
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim().split(';').next().unwrap_or_default(), 16);
        let size = size.map_err(|_| io::ErrorKind::InvalidData)?;
        pass(&mut line.into_bytes())?;
        counted(from, size + 2, pass)?;
        if size == 0 {
            return Ok(());
        }
    }
}

fn counted(
    from: &mut impl BufRead,
    mut length: u64,
    pass: &mut dyn FnMut(&mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    while length > 0 {
        let most = (buffer.len() as u64).min(length) as usize;
        let n = from.read(&mut buffer[..most])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        pass(&mut buffer[..n])?;
        length -= n as u64;
    }
    Ok(())
}

fn finish(client: &TcpStream, end: End) {
    match end {
        End::Fin => drop(client.shutdown(Shutdown::Both)),
        End::Rst => reset_on_close(client),
    }
}

/// In bytes: what lies between here and a client that does not read is little, so that what has passed here has
/// nearly arrived there.
const SENT_AHEAD: i32 = 64 << 10;

const SO_SNDBUF: i32 = 7;
const SO_LINGER: i32 = 13;

/// A socket that lingers for no time is reset when its last descriptor closes (socket(7)).
fn reset_on_close(socket: &TcpStream) {
    #[repr(C)]
    struct Linger {
        on: i32,
        seconds: i32,
    }
    set(socket, SO_LINGER, &Linger { on: 1, seconds: 0 });
}

/// Sets an option of `socket` whose value is a `T` (setsockopt(2)).
fn set<T>(socket: &TcpStream, name: i32, value: &T) {
    unsafe extern "C" {
        fn setsockopt(socket: i32, level: i32, name: i32, value: *const std::ffi::c_void, length: u32) -> i32;
    }
    const SOL_SOCKET: i32 = 1;
    let value: *const T = value;
    // SAFETY: the descriptor is open, and the value lies where its length is told.
    let set = unsafe { setsockopt(socket.as_raw_fd(), SOL_SOCKET, name, value.cast(), size_of::<T>() as u32) };
    assert_eq!(set, 0, "a socket's option {name} can be set");
}
