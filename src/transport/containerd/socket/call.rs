//! One gRPC call, from a thread that blocks.

use super::connection::Connection;
use super::frames::{decode, encode};
use super::incoming::{Incoming, MIN_PROGRESS_BYTES, stream_failure, within};
use super::status::Failure;
use crate::error::Error;
use bytes::Bytes;
use h2::SendStream;
use http::Request;
use prost::Message;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

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

/// Messages that are received before they are asked for.
const MESSAGES_AHEAD: usize = 2;

/// A call that runs. Dropped before its end, it is cancelled.
pub(super) struct Call {
    connection: Arc<Connection>,
    requests: SendStream<Bytes>,
    answers: Incoming,
}

impl Call {
    /// Starts the call of `method` (`containerd.services.SERVICE/NAME`), whose answers have at most `max_bytes` each.
    pub fn start(connection: &Arc<Connection>, method: &str, scope: &Scope, max_bytes: usize) -> Result<Call, Failure> {
        let (response, requests) = connection.request(request(method, scope)?)?;
        let answers = Incoming::new(response, max_bytes, connection.limits().timeout);
        Ok(Call { connection: connection.clone(), requests, answers })
    }

    /// Waits longer than `--timeout` for the next answer, for which containerd reads `bytes` at `bytes_per_second` or
    /// faster.
    pub fn wait_for_work(&mut self, bytes: u64, bytes_per_second: u64) {
        let work = Duration::from_secs(bytes / bytes_per_second.max(1));
        self.answers.patience = self.connection.limits().timeout + work;
    }

    /// Sends one message; `last` ends the requests.
    pub fn send(&mut self, message: &impl Message, last: bool) -> Result<(), Failure> {
        let bytes = encode(message)?;
        let patience = self.connection.limits().timeout;
        let sent = self.connection.until_cancelled(send(&mut self.requests, bytes, last, patience));
        sent.map_err(|failure| match failure {
            Failure::Lost(_) => self.early_end(failure),
            failure => failure,
        })
    }

    /// The server's status, or what it sent in place of HTTP/2, where it ended the call before the requests ended; else
    /// `failure`.
    fn early_end(&mut self, failure: Failure) -> Failure {
        // Acknowledgements may come before it.
        for _ in 0..16 {
            match self.receive_bytes() {
                Err(cause @ (Failure::Status(_) | Failure::Protocol(_))) => return cause,
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
        self.connection.until_cancelled(self.answers.next())
    }

    /// Receives the messages of a call, whose requests have ended, on the connection's thread: a reader is woken once
    /// for each message, not for each part of it.
    pub fn receive_ahead(self) -> Messages {
        let Call { connection, requests: _, mut answers } = self;
        answers.is_streamed = true;
        let (sender, received) = mpsc::channel(MESSAGES_AHEAD);
        connection.spawn(async move {
            loop {
                let message = tokio::select! {
                    message = answers.next() => message,
                    () = sender.closed() => return,
                };
                let is_last = !matches!(message, Ok(Some(_)));
                if sender.send(message).await.is_err() || is_last {
                    return;
                }
            }
        });
        Messages { connection, received }
    }
}

/// The messages of a call. Dropped before its end, the call is cancelled.
pub(super) struct Messages {
    connection: Arc<Connection>,
    received: mpsc::Receiver<Result<Option<Bytes>, Failure>>,
}

impl Messages {
    /// The next message; `None` at the end of a call that succeeded.
    pub fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let closed = || Err(Failure::Lost("the connection was closed".to_owned()));
        self.connection.until_cancelled(async { self.received.recv().await.unwrap_or_else(closed) })
    }
}

/// Sends `bytes` as fast as containerd takes them. Fails if it takes fewer than [`MIN_PROGRESS_BYTES`] in `patience`.
async fn send(
    requests: &mut SendStream<Bytes>,
    mut bytes: Bytes,
    last: bool,
    patience: Duration,
) -> Result<(), Failure> {
    let (mut started, mut taken) = (Instant::now(), 0);
    while !bytes.is_empty() {
        requests.reserve_capacity(bytes.len());
        let left = patience.saturating_sub(started.elapsed());
        let granted = within(left, poll_fn(|context| requests.poll_capacity(context))).await;
        let granted = granted.map_err(|_| Failure::Stalled(patience))?;
        let granted = granted.ok_or_else(|| Failure::Lost("containerd ended the call".to_owned()))?;
        let part = bytes.split_to(granted.map_err(|error| stream_failure(&error))?.min(bytes.len()));
        taken += part.len();
        requests.send_data(part, last && bytes.is_empty()).map_err(|error| stream_failure(&error))?;
        if taken >= MIN_PROGRESS_BYTES {
            (started, taken) = (Instant::now(), 0);
        }
    }
    Ok(())
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
    let wrong =
        |error| Failure::Other(Error::usage(format!("the namespace {:?} is not valid: {error}", scope.namespace)));
    request.body(()).map_err(wrong)
}
