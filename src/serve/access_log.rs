//! The access log: one record per request, written when its response has been sent, and counters over all requests.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// The logged status of a request whose client disconnected before the response.
const STATUS_CLIENT_CLOSED: u16 = 499;

/// One completed request.
#[derive(Debug, Clone)]
pub struct LogRecord {
    /// The start of the request.
    pub at: SystemTime,
    pub client: IpAddr,
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
pub type AccessLog = dyn Fn(&LogRecord) + Send + Sync;

/// Counters since the start of the server; `connections` and `in_flight` are gauges.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Requests by the first digit of their status, starting with 1.
    pub responses: [AtomicU64; 5],
    /// GET and HEAD requests.
    pub reads: AtomicU64,
    /// All other requests.
    pub writes: AtomicU64,
    /// Bytes of response bodies.
    pub sent: AtomicU64,
    /// Bytes of request bodies.
    pub received: AtomicU64,
    /// Responses that were not sent completely.
    pub incomplete: AtomicU64,
    /// Accepted connections.
    pub accepted: AtomicU64,
    /// Open connections.
    pub connections: AtomicU64,
    /// Requests in flight.
    pub in_flight: AtomicU64,
    pub blobs_pushed: AtomicU64,
    pub blobs_mounted: AtomicU64,
    pub manifests_pushed: AtomicU64,
    /// Blobs that a mirror has downloaded.
    pub downloaded: AtomicU64,
    pub downloaded_bytes: AtomicU64,
    /// Blobs and manifests found at a peer.
    pub peer_hits: AtomicU64,
    /// Blobs served from a mirror's cache.
    pub cache_hits: AtomicU64,
    /// Tags resolved to the last known digest.
    pub stale_tags: AtomicU64,
    /// Bytes evicted from a cache.
    pub evicted_bytes: AtomicU64,
}

/// Adds `n` to a counter.
pub fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// Increments a gauge, and decrements it when dropped.
pub struct GaugeGuard(Arc<Metrics>, fn(&Metrics) -> &AtomicU64);

impl GaugeGuard {
    pub fn new(metrics: &Arc<Metrics>, which: fn(&Metrics) -> &AtomicU64) -> GaugeGuard {
        which(metrics).fetch_add(1, Ordering::Relaxed);
        GaugeGuard(metrics.clone(), which)
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Collects the record of one request; writes it when the response has been sent (on drop).
pub struct RequestLog {
    record: LogRecord,
    started: Instant,
    metrics: Arc<Metrics>,
    access_log: Option<Arc<AccessLog>>,
    expected: u64,
    received: Arc<AtomicU64>,
    _in_flight: GaugeGuard,
}

impl RequestLog {
    pub fn start(record: LogRecord, metrics: &Arc<Metrics>, access_log: Option<Arc<AccessLog>>) -> RequestLog {
        let _in_flight = GaugeGuard::new(metrics, |metrics| &metrics.in_flight);
        RequestLog {
            record,
            started: Instant::now(),
            metrics: metrics.clone(),
            access_log,
            expected: 0,
            received: Arc::default(),
            _in_flight,
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
        record.took = self.started.elapsed();
        record.received = self.received.load(Ordering::Relaxed);
        if record.status == 0 {
            (record.status, record.failure) = (STATUS_CLIENT_CLOSED, Some("the client disconnected".to_owned()));
        }
        if record.sent < self.expected && record.failure.is_none() {
            record.failure = Some("the client disconnected".to_owned());
        }
        let class = usize::from(record.status / 100).clamp(1, 5) - 1;
        add(&self.metrics.responses[class], 1);
        let read = matches!(&*record.method, "GET" | "HEAD");
        add(if read { &self.metrics.reads } else { &self.metrics.writes }, 1);
        add(&self.metrics.sent, record.sent);
        add(&self.metrics.received, record.received);
        add(&self.metrics.incomplete, u64::from(record.sent < self.expected));
        if let Some(access_log) = &self.access_log {
            access_log(record);
        }
    }
}
