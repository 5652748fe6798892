//! A stand-in for containerd's storage: blobs, ingests and names, in memory.
#![allow(dead_code)]

use super::containerd_stand_in::{Answer, field, framed, is_complete, number, parse};
use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response};
use imgmv::Digest;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

/// The bytes of a blob in one message.
const PART_BYTES: usize = 1 << 20;

/// A containerd's storage: one namespace, and no snapshotter.
#[derive(Default)]
pub struct Storage {
    pub blobs: HashMap<String, Vec<u8>>,
    /// The digest of each name.
    pub images: HashMap<String, String>,
    ingests: HashMap<String, Vec<u8>>,
    /// The ingests that a call writes.
    locked: HashSet<String>,
    /// Fails the next write of many bytes, once.
    pub fails_once: bool,
}

/// A status and its message.
type Refusal = (&'static str, &'static str);

impl Storage {
    /// Answers a message of a write of `reference`, which the first message names; and whether it was the last.
    fn write(&mut self, reference: &mut String, message: &[u8]) -> Result<(Vec<u8>, bool), Refusal> {
        let text = |field| String::from_utf8(parse(message, field).0.unwrap_or_default()).unwrap();
        let value = |field| parse(message, field).1.unwrap_or(0);
        if reference.is_empty() {
            let asked = text(2);
            if self.locked.contains(&asked) {
                return Err(("14", "ref is locked"));
            }
            self.locked.insert(asked.clone());
            *reference = asked;
        }
        let (action, expected, data) = (value(1), text(4), parse(message, 6).0.unwrap_or_default());
        if self.blobs.contains_key(&expected) {
            self.ingests.remove(reference);
            return Err(("6", "content already exists"));
        }
        if self.fails_once && data.len() > 100_000 {
            self.fails_once = false;
            return Err(("14", "stopping"));
        }
        let ingest = self.ingests.entry(reference.clone()).or_default();
        if action > 0 {
            match value(5) as usize {
                offset if offset == ingest.len() => {}
                0 => ingest.clear(),
                _ => return Err(("11", "write must occur at current offset")),
            }
            ingest.extend(data);
        }
        let length = ingest.len();
        if action == 2 {
            let digest = Digest::of(ingest).to_string();
            if digest != expected || value(3) > 0 && value(3) != length as u64 {
                return Err(("9", "unexpected commit digest or size"));
            }
            let blob = self.ingests.remove(reference).unwrap();
            self.blobs.insert(digest, blob);
        }
        let answer = [number(1, action as i64), number(4, length as i64), field(6, expected.as_bytes())].concat();
        Ok((answer, action == 2))
    }

    /// Answers a call with one answer.
    pub fn call(&mut self, call: &str, message: &[u8]) -> Option<Answer> {
        let first = parse(message, 1).0.unwrap_or_default();
        let inner = |field| parse(&first, field).0.unwrap_or_default();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let done = || Answer::message(b"");
        Some(match call {
            "Images/Create" if self.images.contains_key(&text(inner(1))) => Answer::status("6", "exists"),
            "Images/Create" | "Images/Update" => {
                self.images.insert(text(inner(1)), text(parse(&inner(3), 2).0.unwrap_or_default()));
                done()
            }
            // All of them, whatever is asked for.
            "Content/List" => {
                let info = |(digest, blob): (&String, &Vec<u8>)| {
                    field(1, &[field(1, digest.as_bytes()), number(2, blob.len() as i64)].concat())
                };
                Answer::message(&self.blobs.iter().flat_map(info).collect::<Vec<u8>>())
            }
            "Content/Delete" => {
                self.blobs.remove(&text(first));
                done()
            }
            "Content/Abort" => {
                self.ingests.remove(&text(first));
                done()
            }
            "Content/Update" | "Leases/Create" | "Leases/Delete" | "Introspection/Plugins" => done(),
            _ => return read(&self.blobs, call, message),
        })
    }
}

/// Answers a call that reads `blobs`.
pub fn read(blobs: &HashMap<String, Vec<u8>>, call: &str, message: &[u8]) -> Option<Answer> {
    let asked = parse(message, 1).0.unwrap_or_default();
    let blob = blobs.get(&String::from_utf8_lossy(&asked).into_owned());
    let gone = || Answer::status("5", "content not found");
    Some(match call {
        "Namespaces/List" => Answer::message(&field(1, &field(1, b"default"))),
        "Content/Info" => blob.map_or_else(gone, |blob| {
            Answer::message(&field(1, &[field(1, &asked), number(2, blob.len() as i64)].concat()))
        }),
        "Content/Read" => blob.map_or_else(gone, |blob| {
            let from = parse(message, 2).1.unwrap_or(0) as usize;
            let Some(rest) = blob.get(from..) else { return Answer::status("11", "behind the end") };
            let part =
                |(at, part): (usize, &[u8])| framed(&[number(1, (at * PART_BYTES) as i64), field(2, part)].concat());
            Answer::bytes(rest.chunks(PART_BYTES).enumerate().flat_map(part).collect())
        }),
        _ => return None,
    })
}

/// Takes the messages of a write.
pub async fn ingest(mut body: h2::RecvStream, mut respond: SendResponse<Bytes>, storage: Arc<Mutex<Storage>>) {
    let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let Ok(mut stream) = respond.send_response(response, false) else { return };
    let (mut received, mut reference) = (Vec::new(), String::new());
    let end = loop {
        while !is_complete(&received) {
            let Some(Ok(data)) = body.data().await else {
                storage.lock().unwrap().locked.remove(&reference);
                return;
            };
            let _ = body.flow_control().release_capacity(data.len());
            received.extend_from_slice(&data);
        }
        let length = 5 + u32::from_be_bytes(received[1..5].try_into().unwrap()) as usize;
        let message: Vec<u8> = received.drain(..length).skip(5).collect();
        let answered = storage.lock().unwrap().write(&mut reference, &message);
        match answered {
            Ok((answer, is_last)) => {
                let _ = stream.send_data(framed(&answer).into(), false);
                if is_last {
                    break ("0", "");
                }
            }
            Err(refusal) => break refusal,
        }
    };
    storage.lock().unwrap().locked.remove(&reference);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(end.0));
    trailers.insert("grpc-message", HeaderValue::from_static(end.1));
    let _ = stream.send_trailers(trailers);
}
