//! The access log: one record per request, written when its response has been sent, and counters over all requests.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// The logged status of a request whose client disconnected before the response.
const GONE: u16 = 499;

/// One finished request.
#[derive(Debug, Clone)]
pub struct Record {
    /// The start of the request.
    pub at: SystemTime,
    pub peer: IpAddr,
    pub user: Option<String>,
    pub method: String,
    /// Path and query, as received.
    pub target: String,
    pub status: u16,
    /// Bytes of the request's body that were read.
    pub received: u64,
    /// Bytes of the response's body that were handed to the connection.
    pub sent: u64,
    pub took: Duration,
    pub agent: String,
    /// The reason for an error or an incomplete response.
    pub failure: Option<String>,
}

/// Receives the record of every request, from several threads; must not block for long.
pub type Journal = dyn Fn(&Record) + Send + Sync;

/// Counters since the start of the server; `connections` and `in_flight` are gauges.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Requests by the first digit of their status, starting with 1.
    pub answered: [AtomicU64; 5],
    pub reads: AtomicU64,
    pub writes: AtomicU64,
    pub sent: AtomicU64,
    pub received: AtomicU64,
    pub broken: AtomicU64,
    pub accepted: AtomicU64,
    /// Open connections.
    pub connections: AtomicU64,
    /// Requests in flight.
    pub under_way: AtomicU64,
    pub blobs_pushed: AtomicU64,
    pub blobs_mounted: AtomicU64,
    pub manifests_pushed: AtomicU64,
    /// Blobs that a mirror has downloaded.
    pub fetched: AtomicU64,
    pub fetched_bytes: AtomicU64,
    pub found_at_peers: AtomicU64,
    /// Blobs served from a mirror's cache.
    pub had: AtomicU64,
    /// Tags answered with the last known digest.
    pub last_known: AtomicU64,
    /// Bytes evicted from a cache.
    pub evicted_bytes: AtomicU64,
}

/// Adds `n` to a counter.
pub fn count(figure: &AtomicU64, n: u64) {
    figure.fetch_add(n, Ordering::Relaxed);
}

/// Increments a gauge, and decrements it when dropped.
pub struct Counted(Arc<Metrics>, fn(&Metrics) -> &AtomicU64);

impl Counted {
    pub fn new(figures: &Arc<Metrics>, which: fn(&Metrics) -> &AtomicU64) -> Counted {
        which(figures).fetch_add(1, Ordering::Relaxed);
        Counted(figures.clone(), which)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Collects the record of one request; writes it when the response has been sent (on drop).
pub struct RequestLog {
    record: Record,
    began: Instant,
    figures: Arc<Metrics>,
    journal: Option<Arc<Journal>>,
    expected: u64,
    received: Arc<AtomicU64>,
    _under_way: Counted,
}

impl RequestLog {
    pub fn begin(record: Record, figures: &Arc<Metrics>, journal: Option<Arc<Journal>>) -> RequestLog {
        let _under_way = Counted::new(figures, |figures| &figures.under_way);
        RequestLog {
            record,
            began: Instant::now(),
            figures: figures.clone(),
            journal,
            expected: 0,
            received: Arc::default(),
            _under_way,
        }
    }

    /// Sets the status and body size of the response.
    pub fn set_response(&mut self, status: u16, size: u64) {
        (self.record.status, self.expected) = (status, size);
    }

    pub fn user(&mut self, user: Option<String>) {
        self.record.user = user;
    }

    /// The counter for received bytes of the request's body.
    pub fn received(&self) -> Arc<AtomicU64> {
        self.received.clone()
    }

    pub fn sent(&mut self, bytes: u64) {
        self.record.sent += bytes;
    }

    pub fn failed(&mut self, why: impl ToString) {
        self.record.failure = Some(why.to_string());
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        let record = &mut self.record;
        record.took = self.began.elapsed();
        record.received = self.received.load(Ordering::Relaxed);
        if record.status == 0 {
            (record.status, record.failure) = (GONE, Some("the client disconnected".to_owned()));
        }
        if record.sent < self.expected && record.failure.is_none() {
            record.failure = Some("the client disconnected".to_owned());
        }
        let add = |to: &AtomicU64, n| {
            to.fetch_add(n, Ordering::Relaxed);
        };
        let class = usize::from(record.status / 100).clamp(1, 5) - 1;
        add(&self.figures.answered[class], 1);
        let read = matches!(&*record.method, "GET" | "HEAD");
        add(if read { &self.figures.reads } else { &self.figures.writes }, 1);
        add(&self.figures.sent, record.sent);
        add(&self.figures.received, record.received);
        add(&self.figures.broken, u64::from(record.sent < self.expected));
        if let Some(journal) = &self.journal {
            journal(record);
        }
    }
}
