//! The body of a request, collected into pieces of the size of a write. Detects slow and disconnected clients.

use super::least_rate::Floor;
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
    floor: Floor,
    received: Arc<AtomicU64>,
    gathered: Vec<Bytes>,
    size: usize,
    over: Option<End>,
}

/// The end of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Whole,
    /// The connection broke, or the client was too slow.
    Cut,
}

impl RequestBody {
    /// Creates a body; `received` counts its bytes.
    pub fn new(body: Incoming, idle: Duration, received: Arc<AtomicU64>) -> RequestBody {
        RequestBody { body, floor: Floor::new(idle), received, gathered: Vec::new(), size: 0, over: None }
    }

    /// The `Content-Length`, if the client sent one.
    pub fn announced(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// Receives until `enough` bytes are collected or the body ends. Cancel-safe: it may be dropped and called again.
    pub async fn gather(&mut self, enough: usize) -> Option<End> {
        while self.size < enough && self.over.is_none() {
            let began = Instant::now();
            let frame =
                timeout_at(began + self.floor.left(), poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx))).await;
            match frame {
                Ok(Some(Ok(frame))) => {
                    let bytes = frame.into_data().unwrap_or_default();
                    self.floor.moved(began.elapsed(), bytes.len());
                    self.add(bytes);
                }
                Ok(None) => self.over = Some(End::Whole),
                Ok(Some(Err(_))) | Err(_) => self.over = Some(End::Cut),
            }
        }
        self.over
    }

    fn add(&mut self, bytes: Bytes) {
        self.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.size += bytes.len();
        if !bytes.is_empty() {
            self.gathered.push(bytes);
        }
    }

    /// Takes the bytes collected since the last call.
    pub fn take(&mut self) -> Vec<Bytes> {
        self.size = 0;
        std::mem::take(&mut self.gathered)
    }

    /// Receives the complete body, of at most `limit` bytes.
    pub async fn document(&mut self, limit: u64) -> Result<Vec<u8>, Oversize> {
        if self.announced().is_some_and(|size| size > limit) {
            return Err(Oversize::More);
        }
        match self.gather(limit as usize + 1).await {
            None => Err(Oversize::More),
            Some(End::Cut) => Err(Oversize::Cut),
            Some(End::Whole) if self.size as u64 > limit => Err(Oversize::More),
            Some(End::Whole) => Ok(self.take().concat()),
        }
    }

    /// Reads and discards a limited part of the rest, so that a client that is still sending can read the error
    /// response.
    pub async fn drain(&mut self) {
        const ENOUGH: usize = 1 << 20;
        const MOMENT: Duration = Duration::from_secs(2);
        if self.announced().is_some_and(|size| size > ENOUGH as u64) {
            return;
        }
        let mut size = 0;
        let all = async {
            while size < ENOUGH && self.gather(64 << 10).await.is_none() {
                size += self.take().iter().map(Bytes::len).sum::<usize>();
            }
        };
        let _ = tokio::time::timeout(MOMENT, all).await;
    }
}

/// The reason why a document was not received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oversize {
    More,
    Cut,
}
