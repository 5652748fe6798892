//! The answers of one call: the head, messages, and the status at the end.

use super::frames::Frames;
use super::status::{Failure, Status, code};
use bytes::Bytes;
use h2::RecvStream;
use h2::client::ResponseFuture;
use http::{HeaderMap, HeaderValue, StatusCode};
use std::future::Future;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// The fewest bytes that are progress in the time without progress, as from a registry.
pub(super) const MIN_PROGRESS_BYTES: usize = 1024;

/// The received part of a call.
pub(super) struct Incoming {
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    frames: Frames,
    /// The longest wait for the next bytes.
    pub patience: Duration,
    /// Whether bytes come all the time, not only while a message is received.
    pub is_streamed: bool,
    /// The time that was waited for `recent_bytes`.
    waited: Duration,
    recent_bytes: usize,
    /// The status, once the call has ended.
    ended: Option<Status>,
}

impl Incoming {
    /// The answers in `response`: messages of at most `max_bytes`, and at most `patience` before each part of them.
    pub fn new(response: ResponseFuture, max_bytes: usize, patience: Duration) -> Incoming {
        let (response, frames, waited) = (Some(response), Frames::new(max_bytes), Duration::ZERO);
        Incoming { response, body: None, frames, patience, is_streamed: false, waited, recent_bytes: 0, ended: None }
    }

    /// The next message; `None` at the end of a call that succeeded.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            if let Some(message) = self.frames.next()? {
                return Ok(Some(message));
            }
            if let Some(status) = &self.ended {
                return if status.code == code::OK { Ok(None) } else { Err(Failure::Status(status.clone())) };
            }
            self.receive().await?;
        }
    }

    /// Receives the head, more bytes of the body, or the status.
    async fn receive(&mut self) -> Result<(), Failure> {
        if let Some(response) = self.response.take() {
            let response = within(self.patience, response).await?.map_err(|error| stream_failure(&error))?;
            self.ended = read_head(response.status(), response.headers(), response.body().is_end_stream())?;
            self.body = Some(response.into_body());
            return Ok(());
        }
        let Some(body) = &mut self.body else { return Err(Failure::protocol("sent no response")) };
        let started = Instant::now();
        let is_expected = self.is_streamed || !self.frames.is_empty();
        match within(self.patience, body.data()).await? {
            Some(Ok(data)) => {
                // A failure means that the stream has ended, which the next read reports.
                let _ = body.flow_control().release_capacity(data.len());
                self.frames.push(&data);
                let waited = if is_expected { started.elapsed() } else { Duration::ZERO };
                self.check_rate(waited, data.len())
            }
            Some(Err(error)) => Err(stream_failure(&error)),
            None => {
                let trailers = within(self.patience, body.trailers()).await?.map_err(|error| stream_failure(&error))?;
                self.end(trailers.as_ref())
            }
        }
    }

    /// Fails if containerd sends so little that the call would not end.
    fn check_rate(&mut self, waited: Duration, received: usize) -> Result<(), Failure> {
        self.waited += waited;
        self.recent_bytes += received;
        if self.waited < self.patience {
            return Ok(());
        }
        let is_slow = self.recent_bytes < MIN_PROGRESS_BYTES;
        (self.waited, self.recent_bytes) = (Duration::ZERO, 0);
        if is_slow { Err(Failure::Stalled(self.patience)) } else { Ok(()) }
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Failure> {
        match trailers.and_then(Status::read) {
            // The failure matters more than a message that it cut off.
            Some(status) if self.frames.is_empty() || status.code != code::OK => {
                self.frames.clear();
                self.ended = Some(status);
                Ok(())
            }
            Some(_) => Err(Failure::protocol("sent a message that is cut off")),
            None => Err(Failure::Lost("the response ended without a status".to_owned())),
        }
    }
}

/// The result of `future`, or a failure after `patience`.
pub(super) async fn within<T>(patience: Duration, future: impl Future<Output = T>) -> Result<T, Failure> {
    timeout(patience, future).await.map_err(|_| Failure::Stalled(patience))
}

/// The failure of one stream.
pub(super) fn stream_failure(error: &h2::Error) -> Failure {
    if error.is_library() {
        return Failure::protocol(format!("does not speak HTTP/2 ({error}); the socket may be another program's"));
    }
    Failure::Lost(format!("the stream was cut: {error}"))
}

/// Checks the head of a response. Returns the status if the response is only a head.
fn read_head(http: StatusCode, headers: &HeaderMap, is_end: bool) -> Result<Option<Status>, Failure> {
    let is_grpc = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
    if let Some(status) = Status::read(headers).filter(|_| is_end) {
        return Ok(Some(status));
    }
    if http != StatusCode::OK || !headers.get("content-type").is_some_and(is_grpc) {
        return Err(Failure::protocol(format!("answered with HTTP {http}; the socket is not containerd's")));
    }
    match is_end {
        true => Err(Failure::Lost("the response ended without a status".to_owned())),
        false => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_that_is_only_a_head_has_the_status_there() {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        assert!(read_head(StatusCode::OK, &headers, false).unwrap().is_none());
        assert!(matches!(read_head(StatusCode::OK, &headers, true), Err(Failure::Lost(_))));
        headers.insert("grpc-status", HeaderValue::from_static("5"));
        headers.insert("grpc-message", HeaderValue::from_static("not%20found"));
        let status = read_head(StatusCode::OK, &headers, true).unwrap().unwrap();
        assert_eq!((status.code, status.message.as_str()), (code::NOT_FOUND, "not found"));
        let page = read_head(StatusCode::NOT_FOUND, &HeaderMap::new(), false).unwrap_err();
        assert!(page.into_error("x", "listing").to_string().contains("not containerd's"));
    }
}
