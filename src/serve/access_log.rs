//! What happened: a record for each request, told when its answer has gone out, and figures for all of them together.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// The status of a request whose client did not wait for one; no client sees it.
const GONE: u16 = 499;

/// One request, over.
#[derive(Debug, Clone)]
pub struct Record {
    /// When it began.
    pub at: SystemTime,
    pub peer: IpAddr,
    pub user: Option<String>,
    pub method: String,
    /// Path and query, as they came.
    pub target: String,
    pub status: u16,
    /// Bytes of the request's body that were read.
    pub received: u64,
    /// Bytes of the answer's body that were handed to the connection.
    pub sent: u64,
    pub took: Duration,
    pub agent: String,
    /// Why it was refused, or broke off.
    pub failure: Option<String>,
}

/// Hears of every request, from several threads; must not block for long.
pub type Journal = dyn Fn(&Record) + Send + Sync;

/// Totals since the server began. All only grow, but those that count what is there now.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Requests by the first digit of their status, from 1.
    pub answered: [AtomicU64; 5],
    pub reads: AtomicU64,
    pub writes: AtomicU64,
    pub sent: AtomicU64,
    pub received: AtomicU64,
    pub broken: AtomicU64,
    pub accepted: AtomicU64,
    /// Connections there are now.
    pub connections: AtomicU64,
    /// Requests under way now.
    pub under_way: AtomicU64,
    pub blobs_pushed: AtomicU64,
    pub blobs_mounted: AtomicU64,
    pub manifests_pushed: AtomicU64,
    /// Blobs and bytes that a mirror has fetched, and that came from a peer.
    pub fetched: AtomicU64,
    pub fetched_bytes: AtomicU64,
    pub found_at_peers: AtomicU64,
    /// Blobs that a mirror had.
    pub had: AtomicU64,
    /// Tags that were answered as they were known last.
    pub last_known: AtomicU64,
    /// Bytes that went from a cache to make room.
    pub evicted_bytes: AtomicU64,
}

/// Adds `n` to a figure.
pub fn count(figure: &AtomicU64, n: u64) {
    figure.fetch_add(n, Ordering::Relaxed);
}

/// Counts one and takes it back when dropped.
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

/// Follows one request to the end of its answer, and tells then.
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

    /// What the answer is going to be.
    pub fn answered(&mut self, status: u16, size: u64) {
        (self.record.status, self.expected) = (status, size);
    }

    pub fn user(&mut self, user: Option<String>) {
        self.record.user = user;
    }

    /// To be added to for each byte of the request's body.
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
            (record.status, record.failure) = (GONE, Some("the client went away".to_owned()));
        }
        if record.sent < self.expected && record.failure.is_none() {
            record.failure = Some("the client went away".to_owned());
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
