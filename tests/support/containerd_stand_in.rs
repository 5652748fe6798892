//! A stand-in for containerd that answers as a test says: HTTP/2 is h2's, messages are written byte by byte, so that
//! they may be wrong.
#![allow(dead_code)]

use super::containerd_storage::{Storage, ingest, read};
use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use std::collections::HashMap;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::UnixListener;

/// A field with a length: a string, bytes or a message.
pub fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2][..], &varint(content.len() as u64), content].concat()
}

/// A field with a number.
pub fn number(number: u8, value: i64) -> Vec<u8> {
    [&[number << 3][..], &varint(value as u64)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A message with its length before it.
pub fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

/// What is sent for one call.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    /// Bytes of the body, as they are.
    pub body: Vec<u8>,
    /// `None`: the stream stays open.
    pub trailers: Option<Vec<(&'static str, String)>>,
    /// The pause after each byte of the body.
    pub pause: Duration,
}

impl Answer {
    /// One message and the status 0.
    pub fn message(message: &[u8]) -> Answer {
        Answer::bytes(framed(message))
    }

    /// A body and the status 0.
    pub fn bytes(body: Vec<u8>) -> Answer {
        Answer { body, trailers: Some(vec![("grpc-status", "0".into())]), ..Answer::silence() }
    }

    /// A status without a body, in the trailers.
    pub fn status(code: &str, message: &str) -> Answer {
        let trailers = vec![("grpc-status", code.to_owned()), ("grpc-message", message.to_owned())];
        Answer { trailers: Some(trailers), ..Answer::silence() }
    }

    /// Headers, and then nothing.
    pub fn silence() -> Answer {
        let headers = vec![("content-type", "application/grpc".to_owned())];
        Answer { status: 200, headers, body: Vec::new(), trailers: None, pause: Duration::ZERO }
    }

    /// The same, so slowly that it would not end.
    pub fn trickling(self) -> Answer {
        Answer { pause: Duration::from_millis(100), ..self }
    }
}

/// The answers by service and name: `Images/List`.
pub type Answers = HashMap<&'static str, Answer>;

/// Answers a call by its service and name, and its first message.
pub type Handler = dyn Fn(&str, &[u8]) -> Option<Answer> + Send + Sync;

/// The bytes of the first field `wanted` that has a length, and the number of the first field `wanted` that has one.
pub fn parse(mut message: &[u8], wanted: u8) -> (Option<Vec<u8>>, Option<u64>) {
    let take_varint = |bytes: &mut &[u8]| {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = bytes.split_first()?;
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    };
    while let Some(key) = take_varint(&mut message) {
        let Some(value) = take_varint(&mut message) else { break };
        let is_wanted = key >> 3 == u64::from(wanted);
        match key & 7 {
            2 => {
                let Some((content, rest)) = message.split_at_checked(value as usize) else { break };
                if is_wanted {
                    return (Some(content.to_vec()), None);
                }
                message = rest;
            }
            _ if is_wanted => return (None, Some(value)),
            _ => {}
        }
    }
    (None, None)
}

pub struct StandIn {
    folder: TempDir,
}

impl StandIn {
    /// Answers calls that `answers` does not have with the status UNIMPLEMENTED.
    pub fn start(answers: Answers) -> StandIn {
        StandIn::handled(move |call, _| answers.get(call).cloned())
    }

    /// One that has `images` (name, and descriptor as a message) and `blobs`, all in the namespace `default`. `reads`
    /// counts the blobs that were read.
    pub fn with_images(
        images: Vec<(String, Vec<u8>)>,
        blobs: HashMap<String, Vec<u8>>,
        reads: Arc<AtomicUsize>,
    ) -> StandIn {
        let listed: Vec<u8> = images
            .iter()
            .flat_map(|(name, target)| field(1, &[field(1, name.as_bytes()), field(3, target)].concat()))
            .collect();
        StandIn::handled(move |call, message| {
            reads.fetch_add(usize::from(call == "Content/Read"), Ordering::SeqCst);
            match call {
                "Images/List" => Some(Answer::message(&listed)),
                _ => read(&blobs, call, message),
            }
        })
    }

    /// One that stores in `storage`.
    pub fn storing(storage: Arc<Mutex<Storage>>) -> StandIn {
        let calls = storage.clone();
        StandIn::serving(move |call, message| calls.lock().unwrap().call(call, message), Some(storage))
    }

    /// Answers calls by `handler`, else with the status UNIMPLEMENTED.
    pub fn handled(handler: impl Fn(&str, &[u8]) -> Option<Answer> + Send + Sync + 'static) -> StandIn {
        StandIn::serving(handler, None)
    }

    /// Also takes writes into `storage`.
    fn serving(
        handler: impl Fn(&str, &[u8]) -> Option<Answer> + Send + Sync + 'static,
        storage: Option<Arc<Mutex<Storage>>>,
    ) -> StandIn {
        let folder = tempfile::tempdir().unwrap();
        let listener = StdListener::bind(folder.path().join("sock")).unwrap();
        listener.set_nonblocking(true).unwrap();
        let handler: Arc<Handler> = Arc::new(handler);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = UnixListener::from_std(listener).unwrap();
                while let Ok((socket, _)) = listener.accept().await {
                    let (handler, storage) = (handler.clone(), storage.clone());
                    tokio::spawn(async move {
                        let Ok(mut connection) = h2::server::handshake(socket).await else { return };
                        while let Some(Ok((request, respond))) = connection.accept().await {
                            match &storage {
                                Some(storage) if request.uri().path().ends_with("Content/Write") => {
                                    tokio::spawn(ingest(request.into_body(), respond, storage.clone()));
                                }
                                _ => {
                                    tokio::spawn(answer(request, respond, handler.clone()));
                                }
                            }
                        }
                    });
                }
            });
        });
        StandIn { folder }
    }

    /// Sends `bytes` to each client; closes when the client does, or at once if there are no bytes.
    pub fn sending(bytes: &'static [u8]) -> StandIn {
        use std::io::{Read, Write};
        let folder = tempfile::tempdir().unwrap();
        let listener = StdListener::bind(folder.path().join("sock")).unwrap();
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(mut client) = client else { return };
                let _ = client.read(&mut [0; 1024]);
                let _ = client.write_all(bytes);
                // What was sent is read before the end of the connection is noticed.
                while !bytes.is_empty() && client.read(&mut [0; 1024]).is_ok_and(|n| n > 0) {}
            }
        });
        StandIn { folder }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("sock")
    }
}

/// Whether `received` has the first message of a call.
pub fn is_complete(received: &[u8]) -> bool {
    let length = received.get(1..5).map(|length| u32::from_be_bytes(length.try_into().unwrap()) as usize);
    length.is_some_and(|length| received.len() >= 5 + length)
}

async fn answer(request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>, handler: Arc<Handler>) {
    let path = request.uri().path().to_owned();
    let service = Path::new(&path).parent().and_then(Path::extension).unwrap_or_default().to_string_lossy();
    let call = format!("{service}/{}", path.rsplit('/').next().unwrap_or_default());
    let mut body = request.into_body();
    let mut message = Vec::new();
    while !is_complete(&message)
        && let Some(Ok(data)) = body.data().await
    {
        let _ = body.flow_control().release_capacity(data.len());
        message.extend_from_slice(&data);
    }
    let answer = handler(&call, message.get(5..).unwrap_or_default());
    let answer = answer.unwrap_or_else(|| Answer::status("12", "not here"));
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(*name, value);
    }
    let ends = answer.body.is_empty() && answer.trailers.as_ref().is_some_and(Vec::is_empty);
    let Ok(mut stream) = respond.send_response(response.body(()).unwrap(), ends) else { return };
    tokio::spawn(async move {
        while let Some(Ok(data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
        }
    });
    if ends {
        return;
    }
    let mut bytes = Bytes::from(answer.body);
    while !bytes.is_empty() {
        let most = if answer.pause.is_zero() { bytes.len() } else { 1 };
        stream.reserve_capacity(most);
        match std::future::poll_fn(|context| stream.poll_capacity(context)).await {
            Some(Ok(n)) => {
                if stream.send_data(bytes.split_to(n.min(most)), false).is_err() {
                    return;
                }
                if !answer.pause.is_zero() {
                    tokio::time::sleep(answer.pause).await;
                }
            }
            _ => return,
        }
    }
    match answer.trailers {
        Some(trailers) => {
            let name = |name: &'static str| HeaderName::from_static(name);
            let map: HeaderMap =
                trailers.into_iter().map(|(key, value)| (name(key), HeaderValue::from_str(&value).unwrap())).collect();
            let _ = stream.send_trailers(map);
        }
        // The stream stays open as long as the client wants.
        None => {
            let _ = std::future::poll_fn(|context| stream.poll_reset(context)).await;
        }
    }
}
