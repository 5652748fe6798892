//! One gRPC call: messages with a length before each, and a status at the end (gRPC over HTTP2, "Length-Prefixed-Message"
//! and "Responses").

use super::connection::Connection;
use super::status::{Failure, Status, code};
use crate::error::Error;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use prost::Message;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

/// The largest message that is accepted, and the largest that containerd accepts by default.
pub(super) const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// The flag and the length before each message.
const PREFIX_BYTES: usize = 5;
/// The most that is allocated before a message's bytes arrive.
const MAX_RESERVED_BYTES: usize = 2 << 20;

/// The namespace and the lease in which a call runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    /// Empty: the call needs none.
    pub namespace: String,
    pub lease: Option<String>,
}

impl Scope {
    /// A namespace without a lease.
    pub fn namespace(name: &str) -> Scope {
        Scope { namespace: name.to_owned(), lease: None }
    }
}

/// A call that runs. Dropped before its end, it is cancelled.
pub(super) struct Call {
    connection: Arc<Connection>,
    requests: SendStream<Bytes>,
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    /// Received bytes that are not a complete message yet.
    buffer: BytesMut,
    /// The largest message that is accepted, in bytes.
    max_bytes: usize,
    /// The longest wait for the next bytes.
    patience: Duration,
    /// The status, once the call has ended.
    ended: Option<Status>,
}

impl Call {
    /// Starts the call of `method` (`containerd.services.SERVICE/NAME`).
    pub fn start(
        connection: &Arc<Connection>,
        method: &str,
        scope: &Scope,
        max_bytes: usize,
    ) -> Result<Call, Failure> {
        let (response, requests) = connection.request(request(method, scope)?)?;
        let (connection, patience) = (connection.clone(), connection.limits().timeout);
        let (response, body, buffer) = (Some(response), None, BytesMut::new());
        Ok(Call { connection, requests, response, body, buffer, max_bytes, patience, ended: None })
    }

    /// Waits longer than `--timeout` for the next answer, for which containerd reads `bytes` at `bytes_per_second` or
    /// faster.
    pub fn wait_for_work(&mut self, bytes: u64, bytes_per_second: u64) {
        self.patience = self.connection.limits().timeout + Duration::from_secs(bytes / bytes_per_second.max(1));
    }

    /// Sends one message; `last` ends the requests.
    pub fn send(&mut self, message: &impl Message, last: bool) -> Result<(), Failure> {
        let mut bytes = frame(message)?;
        while !bytes.is_empty() {
            self.requests.reserve_capacity(bytes.len());
            let requests = &mut self.requests;
            let granted = self.connection.wait(poll_fn(|context| requests.poll_capacity(context)))?;
            let sent = match granted {
                Some(Ok(n)) => {
                    let part = bytes.split_to(n.min(bytes.len()));
                    self.requests.send_data(part, last && bytes.is_empty())
                }
                Some(Err(error)) => Err(error),
                None => return Err(self.early_end(Failure::Lost("containerd ended the call".to_owned()))),
            };
            if let Err(error) = sent {
                let failure = self.connection.stream_failure(&error);
                return Err(self.early_end(failure));
            }
        }
        Ok(())
    }

    /// The server's status where it ended the call before the requests ended, else `failure`.
    fn early_end(&mut self, failure: Failure) -> Failure {
        for _ in 0..2 {
            match self.receive_bytes() {
                Err(status @ Failure::Status(_)) => return status,
                Ok(Some(_)) => {}
                _ => return failure,
            }
        }
        failure
    }

    /// Receives one message; `None` at the end of a call that succeeded.
    pub fn receive<M: Message + Default>(&mut self) -> Result<Option<M>, Failure> {
        match self.receive_bytes()? {
            Some(bytes) => decode(bytes).map(Some),
            None => Ok(None),
        }
    }

    /// Receives the bytes of one message.
    pub fn receive_bytes(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            if let Some(message) = self.buffered()? {
                return Ok(Some(message));
            }
            if let Some(status) = &self.ended {
                return if status.code == code::OK { Ok(None) } else { Err(Failure::Status(status.clone())) };
            }
            self.receive_more()?;
        }
    }

    /// The next complete message in the buffer.
    fn buffered(&mut self) -> Result<Option<Bytes>, Failure> {
        let Some((flag, length)) = self.buffer.split_first_chunk::<PREFIX_BYTES>().map(|(head, _)| {
            (head[0], u32::from_be_bytes([head[1], head[2], head[3], head[4]]))
        }) else {
            return Ok(None);
        };
        if flag != 0 {
            return Err(Failure::protocol("sent a compressed message, which was not asked for"));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > self.max_bytes {
            let most = self.max_bytes;
            return Err(Failure::protocol(format!("sent a message of {length} bytes; at most {most} are accepted")));
        }
        if self.buffer.len() - PREFIX_BYTES < length {
            let wanted = (PREFIX_BYTES + length).min(MAX_RESERVED_BYTES);
            self.buffer.reserve(wanted.saturating_sub(self.buffer.len()));
            return Ok(None);
        }
        self.buffer.advance(PREFIX_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Receives the head, more bytes of the body, or the status.
    fn receive_more(&mut self) -> Result<(), Failure> {
        if let Some(response) = self.response.take() {
            let response = self.connection.wait_for(self.patience, response)?;
            let response = response.map_err(|error| self.connection.stream_failure(&error))?;
            self.ended = read_head(response.status(), response.headers(), response.body().is_end_stream())?;
            self.body = Some(response.into_body());
            return Ok(());
        }
        let Some(body) = &mut self.body else { return Err(Failure::protocol("sent no response")) };
        match self.connection.wait_for(self.patience, body.data())? {
            Some(Ok(data)) => {
                // A failure means that the stream has ended, which the next read reports.
                let _ = body.flow_control().release_capacity(data.len());
                self.buffer.extend_from_slice(&data);
                Ok(())
            }
            Some(Err(error)) => Err(self.connection.stream_failure(&error)),
            None => self.receive_status(),
        }
    }

    fn receive_status(&mut self) -> Result<(), Failure> {
        let Some(body) = &mut self.body else { return Err(Failure::protocol("sent no response")) };
        let trailers = self.connection.wait(body.trailers())?;
        let trailers = trailers.map_err(|error| self.connection.stream_failure(&error))?;
        match trailers.as_ref().and_then(Status::read) {
            // The failure matters more than a message that it cut off.
            Some(status) if self.buffer.is_empty() || status.code != code::OK => {
                self.buffer.clear();
                self.ended = Some(status);
                Ok(())
            }
            Some(_) => Err(Failure::protocol("sent a message that is cut off")),
            None => Err(Failure::Lost("the response ended without a status".to_owned())),
        }
    }
}

/// Calls `method`, whose answer is one message of at most `max_bytes`.
pub(super) fn unary(
    connection: &Arc<Connection>,
    method: &str,
    scope: &Scope,
    request: &impl Message,
    max_bytes: usize,
) -> Result<Bytes, Failure> {
    let mut call = Call::start(connection, method, scope, max_bytes)?;
    finish_unary(&mut call, request)
}

/// Sends the only request of `call` and receives its only answer.
pub(super) fn finish_unary(call: &mut Call, request: &impl Message) -> Result<Bytes, Failure> {
    call.send(request, true)?;
    let answer = call.receive_bytes()?.ok_or_else(|| Failure::protocol("sent no message in its response"))?;
    match call.receive_bytes()? {
        None => Ok(answer),
        Some(_) => Err(Failure::protocol("sent two messages in the response of a call that has one")),
    }
}

/// Decodes a message.
pub(super) fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, Failure> {
    M::decode(bytes).map_err(|error| Failure::protocol(format!("sent a message that cannot be decoded ({error})")))
}

/// `message` with its length before it.
fn frame(message: &impl Message) -> Result<Bytes, Failure> {
    let length = message.encoded_len();
    if length > MAX_MESSAGE_BYTES {
        let problem = format!("a message of {length} bytes is larger than containerd accepts ({MAX_MESSAGE_BYTES})");
        return Err(Failure::Other(Error::invalid(problem)));
    }
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode(&mut bytes).map_err(|error| Failure::Other(Error::failed(format!("internal error: {error}"))))?;
    Ok(bytes.freeze())
}

fn request(method: &str, scope: &Scope) -> Result<Request<()>, Failure> {
    let mut request = Request::post(format!("http://localhost/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", concat!("imgmv/", env!("CARGO_PKG_VERSION")));
    if !scope.namespace.is_empty() {
        request = request.header("containerd-namespace", &scope.namespace);
    }
    if let Some(lease) = &scope.lease {
        request = request.header("containerd-lease", lease);
    }
    let wrong = |error| Failure::Other(Error::usage(format!("the namespace {:?} is not valid: {error}", scope.namespace)));
    request.body(()).map_err(wrong)
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
