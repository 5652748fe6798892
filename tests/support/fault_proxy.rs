//! A bad line to a good registry: a proxy on loopback that passes HTTP/1.1 on to one server, does to it what it was
//! told to, and counts requests, connections and bytes in both directions.
//!
//! ```ignore
//! let line = Proxy::start(&double.host());
//! line.does(Fault::once("GET", "/blobs/", Ill::Cut { after: 4 << 20, end: End::Rst }));
//! assert_eq!(line.seen("GET", "/blobs/").len(), 2);
//! ```
#![allow(dead_code)]

#[path = "fault_proxy/conversation.rs"]
mod conversation;
#[path = "fault_proxy/head.rs"]
mod head;
#[path = "fault_proxy/made_here.rs"]
mod made_here;
#[path = "fault_proxy/socket.rs"]
mod socket;

use conversation::converse;
use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

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
    /// The answer's head comes byte by byte.
    Drip {
        every: Duration,
    },
    /// The server is not asked: 200, and a page to log in with.
    Page,
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

/// How a proxy turns away a body that is too large for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooLarge {
    /// 413 before the body is read, and the connection ends.
    Status,
    /// It is read up to the limit, and the connection is reset.
    Reset,
}

/// What every connection is like.
#[derive(Debug, Clone, Copy, Default)]
pub struct Line {
    /// Bytes of a request's body beyond which the server is not asked.
    pub body_limit: Option<(u64, TooLarge)>,
    /// Before each request reaches the server.
    pub latency: Duration,
    /// Bytes a second of one connection, both ways together.
    pub rate: Option<u64>,
    /// Bytes, both ways together, after which a connection ends.
    pub cut_every: Option<(u64, End)>,
    /// The server sees a request when all of its body is here, as behind nginx.
    pub buffers: bool,
    /// The first so many requests of an upload, of each method and path, are refused with a status.
    pub refuses_first: Option<(usize, u16, Option<&'static str>)>,
    /// Blobs lie behind signed addresses on another host; each is good for one request.
    pub signed: bool,
    /// Everybody needs a token, which a token service at the same address gives away.
    pub tokens: bool,
}

impl Line {
    /// Nothing is wrong with it.
    pub const GOOD: Line = Line {
        body_limit: None,
        buffers: false,
        refuses_first: None,
        latency: Duration::ZERO,
        rate: None,
        cut_every: None,
        signed: false,
        tokens: false,
    };
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
    /// How many addresses were signed, and the signatures that were used.
    signed: usize,
    signatures: HashSet<String>,
    /// The number of the token that is good.
    token: usize,
    /// How often each method and path was refused.
    refused: HashMap<String, usize>,
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

    /// Nothing is wrong any more, and nothing was seen. To be called when no client runs.
    pub fn forget(&self) {
        self.left_alone();
        let mut state = lock(&self.state);
        (state.line, state.faults, state.seen, state.hook) = Default::default();
        state.traffic = Traffic::default();
        state.refused.clear();
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
