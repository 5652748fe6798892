//! One client's connection: its requests, one after the other, with what befalls them.

use super::head::{Head, body};
use super::made_here::{guarded, page, signed, turned_away};
use super::socket::{finish, keep_short};
use super::{End, Fault, Ill, Line, Seen, State, lock};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// Everything that one connection has moved.
pub(super) struct Meter<'a> {
    pub(super) state: &'a Mutex<State>,
    pub(super) line: Line,
    began: Instant,
    moved: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Up,
    Down,
}

impl Meter<'_> {
    pub(super) fn pass(&mut self, to: &mut TcpStream, way: Way, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(16 << 10) {
            let left = self.line.cut_every.map_or(u64::MAX, |(every, _)| every.saturating_sub(self.moved));
            let piece = &piece[..piece.len().min(left as usize)];
            self.hook();
            to.write_all(piece)?;
            self.moved += piece.len() as u64;
            {
                let traffic = &mut lock(self.state).traffic;
                *if way == Way::Up { &mut traffic.up } else { &mut traffic.down } += piece.len() as u64;
            }
            // There may be no next byte: the line may stall here.
            self.hook();
            if let Some((every, _)) = self.line.cut_every
                && self.moved >= every
            {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if let Some(rate) = self.line.rate {
                let due = self.began + Duration::from_secs_f64(self.moved as f64 / rate as f64);
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }
        Ok(())
    }

    fn hook(&self) {
        let hook = {
            let mut state = lock(self.state);
            let passed = state.traffic.up + state.traffic.down;
            state.hook.take_if(|(at, _)| passed >= *at)
        };
        if let Some((_, hook)) = hook {
            hook();
        }
    }
}

pub(super) fn converse(client: TcpStream, server: &str, state: &Mutex<State>) -> io::Result<()> {
    client.set_nodelay(true)?;
    keep_short(&client);
    let line = {
        let mut state = lock(state);
        state.traffic.connections += 1;
        state.line
    };
    let mut upstream: Option<BufReader<TcpStream>> = None;
    let mut from_client = BufReader::with_capacity(64 << 10, client.try_clone()?);
    let mut client = client;
    let mut meter = Meter { state, line, began: Instant::now(), moved: 0 };
    while let Some(head) = Head::read(&mut from_client)? {
        meter.line = lock(state).line;
        let fault = match fault(state, &head) {
            Some(Ill::RangeRefused) => Some(Ill::Status { status: 416, retry_after: None }),
            fault => fault,
        };
        let mut seen = Seen {
            method: head.word(0).to_owned(),
            path: head.word(1).split('?').next().unwrap_or_default().to_owned(),
            range: head.get("range").map(str::to_owned),
            ..Seen::default()
        };
        at_once(state, 1);
        let told = exchange(&mut meter, head, fault, (&mut from_client, &mut client), &mut upstream, server, &mut seen);
        lock(state).seen.push(seen);
        at_once(state, -1);
        let cut = meter.line.cut_every.filter(|(every, _)| meter.moved >= *every).map(|(_, end)| end);
        match told {
            Ok(None) if cut.is_none() => {}
            Ok(None) | Err(_) => {
                finish(&client, cut.unwrap_or(End::Fin));
                return Ok(());
            }
            Ok(Some(end)) => {
                finish(&client, end);
                return Ok(());
            }
        }
    }
    Ok(())
}

fn at_once(state: &Mutex<State>, change: isize) {
    let mut state = lock(state);
    state.at_once = state.at_once.saturating_add_signed(change);
    state.traffic.most_at_once = state.traffic.most_at_once.max(state.at_once);
}

fn fault(state: &Mutex<State>, head: &Head) -> Option<Ill> {
    let mut state = lock(state);
    let ranged = head.get("range").is_some();
    let fits = |fault: &&mut Fault| {
        let needs_range = matches!(fault.ill, Ill::RangeIgnored | Ill::RangeRefused | Ill::RangeWrong);
        let method = fault.method.is_empty() || head.word(0) == fault.method;
        // A body that ends before the cut is left alone.
        let long = match fault.ill {
            Ill::CutUpload { after, .. } => head.length().is_none_or(|length| length > after),
            _ => true,
        };
        fault.times > 0 && method && head.word(1).contains(&fault.part) && (ranged || !needs_range) && long
    };
    let fault = state.faults.iter_mut().find(fits)?;
    // How long a body in chunks is shows later.
    if !matches!(fault.ill, Ill::CutUpload { .. }) || head.length().is_some() {
        fault.times -= 1;
    }
    Some(fault.ill.clone())
}

/// The cut of `head`'s body, which came in chunks, has happened.
fn used_up(state: &Mutex<State>, head: &Head) {
    let fits = |fault: &&mut Fault| {
        let method = fault.method.is_empty() || head.word(0) == fault.method;
        matches!(fault.ill, Ill::CutUpload { .. }) && method && head.word(1).contains(&fault.part) && fault.times > 0
    };
    if let Some(fault) = lock(state).faults.iter_mut().find(fits) {
        fault.times -= 1;
    }
}

/// One request and its answer; how the connection ends after it, if it does.
fn exchange(
    meter: &mut Meter<'_>,
    mut head: Head,
    ill: Option<Ill>,
    (from_client, client): (&mut BufReader<TcpStream>, &mut TcpStream),
    upstream: &mut Option<BufReader<TcpStream>>,
    server: &str,
    seen: &mut Seen,
) -> io::Result<Option<End>> {
    thread::sleep(meter.line.latency);
    if let Some(Ill::Status { status, retry_after }) = &ill {
        seen.status = *status;
        let wish = retry_after.iter().map(|wish| format!("Retry-After: {wish}\r\n")).collect::<String>();
        // A body that was not asked for is not read: the connection ends.
        let answer = format!("HTTP/1.1 {status} X\r\n{wish}Content-Length: 0\r\nConnection: close\r\n\r\n");
        meter.pass(client, Way::Down, answer.as_bytes())?;
        return Ok(Some(End::Fin));
    }
    if let Some(end) = turned_away(meter, &head, from_client, client, seen)? {
        return Ok(Some(end));
    }
    if meter.line.tokens
        && let Some(answer) = guarded(meter.state, &head, matches!(ill, Some(Ill::Expired)))
    {
        seen.status = answer.word(1).parse().unwrap_or(0);
        meter.pass(client, Way::Down, &answer.bytes())?;
        // A body that was not asked for is not read: the connection ends.
        return Ok((head.length() != Some(0)).then_some(End::Fin));
    }
    let made = match ill {
        Some(Ill::Page) => Some(page()),
        _ if meter.line.signed => signed(meter.state, &head),
        _ => None,
    };
    if let Some(answer) = made {
        seen.status = answer.word(1).parse().unwrap_or(0);
        meter.pass(client, Way::Down, &answer.bytes())?;
        return Ok((head.length() != Some(0)).then_some(End::Fin));
    }
    if head.get("expect").is_some() {
        head.set("expect", None);
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    match ill {
        Some(Ill::Expired) => head.set("authorization", None),
        Some(Ill::RangeIgnored) => head.set("range", None),
        Some(Ill::RangeWrong) => head.set("range", Some(format!("bytes={}-", seen.from() - 1))),
        _ => {}
    }
    let mut whole = Vec::new();
    if meter.line.buffers {
        body(from_client, head.length(), &mut |bytes| {
            whole.extend_from_slice(bytes);
            Ok(())
        })?;
    }
    if upstream.is_none() {
        let server = TcpStream::connect(server)?;
        server.set_nodelay(true)?;
        *upstream = Some(BufReader::with_capacity(64 << 10, server));
    }
    let upstream = upstream.as_mut().expect("set above");
    let mut to_server = upstream.get_ref().try_clone()?;
    meter.pass(&mut to_server, Way::Up, &head.bytes())?;
    let mut most = match ill {
        Some(Ill::CutUpload { after, .. }) => after,
        _ => u64::MAX,
    };
    let mut buffered = BufReader::new(io::Cursor::new(whole));
    let from: &mut dyn BufRead = if meter.line.buffers { &mut buffered } else { from_client };
    // The limit of a body in chunks shows in its middle.
    let limit = meter.line.body_limit.filter(|_| head.length().is_none());
    let sent = body(from, head.length(), &mut |bytes| {
        if limit.is_some_and(|(limit, _)| seen.up + bytes.len() as u64 > limit) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let bytes = &bytes[..bytes.len().min(most as usize)];
        meter.pass(&mut to_server, Way::Up, bytes)?;
        seen.up += bytes.len() as u64;
        most -= bytes.len() as u64;
        if most == 0 { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    });
    match (sent, &ill) {
        (Err(_), Some(Ill::CutUpload { end, .. })) => {
            if head.length().is_none() {
                used_up(meter.state, &head);
            }
            return Ok(Some(*end));
        }
        (Err(error), _) if error.kind() == io::ErrorKind::FileTooLarge => {
            seen.status = 413;
            meter.pass(client, Way::Down, b"HTTP/1.1 413 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
            return Ok(Some(End::Fin));
        }
        (Err(error), _) if error.kind() == io::ErrorKind::ConnectionAborted => return Err(error),
        // The server may have refused before the end; its answer is passed on.
        (Err(_), _) => drop(to_server.shutdown(Shutdown::Write)),
        _ => {}
    }
    let mut answer = Head::read(upstream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    seen.status = answer.word(1).parse().unwrap_or(0);
    let bodiless = head.word(0) == "HEAD" || matches!(seen.status, 204 | 304);
    let whole = if bodiless { Some(0) } else { answer.length() };
    let mut left = u64::MAX;
    if let (Some(Ill::Short { by }), Some(length)) = (&ill, whole) {
        left = length.saturating_sub(*by);
        answer.set("content-length", Some(left.to_string()));
    }
    if let Some(Ill::Cut { after, .. } | Ill::Stall { after }) = ill {
        left = after;
    }
    let first = answer.bytes();
    match ill {
        Some(Ill::Drip { every }) => first.chunks(1).try_for_each(|byte| {
            thread::sleep(every);
            meter.pass(client, Way::Down, byte)
        })?,
        _ => meter.pass(client, Way::Down, &first)?,
    }
    let passed = body(upstream, whole, &mut |bytes| {
        if let Some(Ill::Flip { at }) = ill
            && (seen.down..seen.down + bytes.len() as u64).contains(&at)
        {
            bytes[(at - seen.down) as usize] ^= 1;
        }
        let bytes = &bytes[..bytes.len().min(left as usize)];
        meter.pass(client, Way::Down, bytes)?;
        seen.down += bytes.len() as u64;
        left -= bytes.len() as u64;
        if left == 0 { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    });
    match (passed, ill) {
        (Err(_), Some(Ill::Cut { end, .. })) => Ok(Some(end)),
        (Err(_), Some(Ill::Short { .. })) => Ok(Some(End::Fin)),
        (Err(_), Some(Ill::Stall { .. })) => {
            // Until the client has had enough and closes.
            let _ = from_client.read(&mut [0]);
            Ok(Some(End::Fin))
        }
        (Err(error), _) => Err(error),
        (Ok(()), _) => Ok(answer.get("connection").is_some_and(|how| how == "close").then_some(End::Fin)),
    }
}
