//! The body of a request, collected into buffers of the size of a write. Detects slow and disconnected clients.

use super::minimum_rate::MinimumRate;
use hyper::body::{Body, Bytes, Incoming};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// A request body that is being received.
pub struct RequestBody {
    body: Incoming,
    rate: MinimumRate,
    received: Arc<AtomicU64>,
    collected: Vec<Bytes>,
    size: usize,
    end: Option<BodyEnd>,
}

/// The end of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEnd {
    Complete,
    /// The connection broke, or the client was too slow.
    Cut,
}

impl RequestBody {
    /// Creates a body; `received` counts its bytes.
    pub fn new(body: Incoming, idle: Duration, received: Arc<AtomicU64>) -> RequestBody {
        RequestBody { body, rate: MinimumRate::new(idle), received, collected: Vec::new(), size: 0, end: None }
    }

    /// The `Content-Length`, if the client sent one.
    pub fn content_length(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// Receives until `enough` bytes are collected or the body ends. Cancel-safe: it may be dropped and called again.
    pub async fn read_at_least(&mut self, enough: usize) -> Option<BodyEnd> {
        while self.size < enough && self.end.is_none() {
            let began = Instant::now();
            let frame =
                timeout_at(began + self.rate.remaining(), poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx))).await;
            match frame {
                Ok(Some(Ok(frame))) => {
                    let bytes = frame.into_data().unwrap_or_default();
                    self.rate.record(began.elapsed(), bytes.len());
                    self.add(bytes);
                }
                Ok(None) => self.end = Some(BodyEnd::Complete),
                Ok(Some(Err(_))) | Err(_) => self.end = Some(BodyEnd::Cut),
            }
        }
        self.end
    }

    fn add(&mut self, bytes: Bytes) {
        self.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.size += bytes.len();
        if !bytes.is_empty() {
            self.collected.push(bytes);
        }
    }

    /// Takes the bytes collected since the last call.
    pub fn take(&mut self) -> Vec<Bytes> {
        self.size = 0;
        std::mem::take(&mut self.collected)
    }

    /// Receives the complete body, of at most `limit` bytes.
    pub async fn document(&mut self, limit: u64) -> Result<Vec<u8>, DocumentError> {
        if self.content_length().is_some_and(|size| size > limit) {
            return Err(DocumentError::TooLarge);
        }
        match self.read_at_least(limit as usize + 1).await {
            None => Err(DocumentError::TooLarge),
            Some(BodyEnd::Cut) => Err(DocumentError::Incomplete),
            Some(BodyEnd::Complete) if self.size as u64 > limit => Err(DocumentError::TooLarge),
            Some(BodyEnd::Complete) => Ok(self.take().concat()),
        }
    }

    /// Drains a limited part of the rest. Then a client that is still sending can read the error response.
    pub async fn drain(&mut self) {
        const MAX_DRAINED_BYTES: usize = 1 << 20;
        const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
        if self.content_length().is_some_and(|size| size > MAX_DRAINED_BYTES as u64) {
            return;
        }
        let mut size = 0;
        let all = async {
            while size < MAX_DRAINED_BYTES && self.read_at_least(64 << 10).await.is_none() {
                size += self.take().iter().map(Bytes::len).sum::<usize>();
            }
        };
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, all).await;
    }
}

/// The reason why a document was not received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentError {
    TooLarge,
    Incomplete,
}
