//! Responses that arrive before the request's body is sent. A registry that refuses a body (413, 429) responds and
//! closes its connection: sending fails, but the response can still be read.

use std::fmt;
use std::io;
use std::time::Duration;
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use ureq::unversioned::transport::{Buffers, NextTimeout, Transport};
use ureq::{Body, Error};

/// The wait for a response after sending has failed. The registry sent it before the connection ended.
const EARLY_RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);

/// The limit on interim responses (1xx) before that response.
const MAX_INTERIM_BYTES: usize = 16 << 10;

/// A connection that reads a response when it cannot send.
#[derive(Debug)]
pub struct EarlyResponses<T>(T);

impl<T: Transport> EarlyResponses<T> {
    pub fn new(connection: T) -> EarlyResponses<T> {
        EarlyResponses(connection)
    }

    /// Reads a response's head. Its body is the rest of the input buffer, so the buffer's size limits it.
    fn read_response(&mut self, timeout: NextTimeout) -> Option<EarlyResponse> {
        let timeout = NextTimeout { after: EARLY_RESPONSE_TIMEOUT.into(), ..timeout };
        let mut interim = 0;
        while interim <= MAX_INTERIM_BYTES {
            let input = self.0.buffers().input();
            let (response, read) = parse_head(input)?;
            interim += read;
            if let Some(response) = response {
                return Some(response);
            }
            self.0.buffers().input_consume(read);
            if !matches!(self.0.await_input(timeout), Ok(true)) {
                return None;
            }
        }
        None
    }
}

impl<T: Transport> Transport for EarlyResponses<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let sent = self.0.transmit_output(amount, timeout);
        match sent {
            Err(Error::Io(error)) if is_closed(&error) => match self.read_response(timeout) {
                Some(response) => Err(Error::Other(Box::new(response))),
                None => Err(Error::Io(error)),
            },
            sent => sent,
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.0.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
}

/// A response to a request that was not sent completely. It passes through ureq as an error.
#[derive(Debug)]
struct EarlyResponse {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl fmt::Display for EarlyResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the response with status {} came before the request was sent", self.status.as_u16())
    }
}

impl std::error::Error for EarlyResponse {}

/// Turns an early response, which ureq returns as an error, into a response.
pub fn into_response(sent: Result<Response<Body>, Error>) -> Result<Response<Body>, Error> {
    let early = match sent {
        Err(Error::Other(other)) => match other.downcast::<EarlyResponse>() {
            Ok(early) => *early,
            Err(other) => return Err(Error::Other(other)),
        },
        sent => return sent,
    };
    let mut response = Response::new(Body::builder().data(early.body));
    (*response.status_mut(), *response.headers_mut()) = (early.status, early.headers);
    Ok(response)
}

/// Parses the first final response in `input`; the response is `None` if its head is incomplete. Also returns
/// the size of the interim responses (1xx) before it. Returns `None` if `input` is not HTTP.
fn parse_head(input: &[u8]) -> Option<(Option<EarlyResponse>, usize)> {
    const END: &[u8] = b"\r\n\r\n";
    let mut at = 0;
    loop {
        let rest = &input[at..];
        let Some(end) = rest.windows(END.len()).position(|window| window == END) else {
            return Some((None, at));
        };
        let head = std::str::from_utf8(&rest[..end]).ok()?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse::<u16>().ok()?;
        let body_start = end + END.len();
        if (100..200).contains(&status) {
            at += body_start;
            continue;
        }
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((HeaderName::try_from(name).ok()?, HeaderValue::from_str(value.trim()).ok()?))
        };
        let headers = lines.filter_map(header).collect();
        let response =
            EarlyResponse { status: StatusCode::from_u16(status).ok()?, headers, body: rest[body_start..].to_vec() };
        return Some((Some(response), at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_final_response_is_found_behind_interim_ones() {
        let input = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 413 Too Large\r\nRetry-After: 7\r\n\r\nwhy";
        let (response, before) = parse_head(input).unwrap();
        let response = response.unwrap();
        assert_eq!((response.status.as_u16(), before, &response.body[..]), (413, 25, &b"why"[..]));
        assert_eq!(response.headers["retry-after"], "7");
        assert!(parse_head(&input[..40]).unwrap().0.is_none() && parse_head(b"").unwrap().0.is_none());
        for wrong in [&b"SSH-2.0\r\n\r\n"[..], b"HTTP/1.1 many\r\n\r\n", b"\xff\r\n\r\n"] {
            assert!(parse_head(wrong).is_none(), "{wrong:?}");
        }
    }
}
