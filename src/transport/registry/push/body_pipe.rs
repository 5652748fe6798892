//! A request whose body is pushed in buffers: a thread sends the request and reads the buffers from a bounded channel.

use super::target::Target;
use crate::error::{Error, Result};
use crate::transport::registry::http::{Call, Payload, Response};
use std::{
    io::{self, Read},
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread::{Builder, JoinHandle},
};

/// The number of buffers that may wait for the sending thread.
const QUEUE_LENGTH: usize = 1;

/// The request ended before its body; [`BodyPipe::finish`] returns the reason.
pub struct Ended;

enum BodyItem {
    Bytes(Vec<u8>),
    End,
}

/// A request in progress. Dropped without [`BodyPipe::end_body`], the body breaks off.
pub struct BodyPipe {
    items: SyncSender<BodyItem>,
    spare: Receiver<Vec<u8>>,
    /// The number of body bytes that the connection has read.
    consumed: Arc<AtomicU64>,
    thread: JoinHandle<Result<Response>>,
}

impl BodyPipe {
    pub fn start(target: Target, call: Call, size: Option<u64>, what: String) -> Result<BodyPipe> {
        let (items, incoming) = sync_channel(QUEUE_LENGTH);
        let (used, spare) = channel();
        let consumed: Arc<AtomicU64> = Arc::default();
        let count = consumed.clone();
        let thread = Builder::new()
            .name("upload".to_owned())
            .spawn(move || {
                let mut body = PipeReader { incoming, used, count, current: Vec::new(), at: 0, ended: false };
                target.client.send(&call, Payload::Stream { bytes: &mut body, size }, &target.scope, &what)
            })
            .map_err(|e| Error::reading("the blob to upload: its thread did not start", e))?;
        Ok(BodyPipe { items, spare, consumed, thread })
    }

    pub fn send(&mut self, bytes: Vec<u8>) -> std::result::Result<(), Ended> {
        self.items.send(BodyItem::Bytes(bytes)).map_err(|_| Ended)
    }

    pub fn end_body(&mut self) -> std::result::Result<(), Ended> {
        self.items.send(BodyItem::End).map_err(|_| Ended)
    }

    /// A sent buffer, for reuse.
    pub fn spare(&mut self) -> Option<Vec<u8>> {
        self.spare.try_recv().ok()
    }

    /// The response, and the number of body bytes that the connection has read; the registry has not received the rest.
    pub fn finish(self) -> (Result<Response>, u64) {
        drop(self.items);
        let ended = self.thread.join();
        let response = ended.unwrap_or_else(|_| Err(Error::failed("the thread that sends a blob panicked")));
        (response, self.consumed.load(Ordering::Relaxed))
    }
}

/// The reading end: the request's body.
struct PipeReader {
    incoming: Receiver<BodyItem>,
    used: Sender<Vec<u8>>,
    count: Arc<AtomicU64>,
    current: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.current.len() {
            if self.ended {
                return Ok(0);
            }
            match self.incoming.recv() {
                Ok(BodyItem::Bytes(bytes)) => {
                    // Fails if the `BodyPipe` is gone; then the buffer is not reused.
                    let _ = self.used.send(std::mem::replace(&mut self.current, bytes));
                    self.at = 0;
                }
                Ok(BodyItem::End) => self.ended = true,
                Err(_) => return Err(Error::failed("the upload of the blob was aborted").into()),
            }
        }
        let n = buffer.len().min(self.current.len() - self.at);
        buffer[..n].copy_from_slice(&self.current[self.at..self.at + n]);
        self.at += n;
        self.count.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}
