//! An HTTP proxy for tests: it opens tunnels and forwards requests for whole URLs, all to one address, as squid does.
#![allow(dead_code)]

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What it allows and demands.
#[derive(Clone, Default)]
pub struct Rules {
    /// Tunnels to port 443 only, as squid does unless told otherwise.
    pub only_443: bool,
    /// `Proxy-Authorization`; anything else is answered 407 with this challenge.
    pub wants: Option<(&'static str, &'static str)>,
}

/// A running proxy. Its threads end with the test's process.
pub struct Proxy {
    pub address: SocketAddr,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Whatever host is asked for, it is at `to` (`HOST:PORT`).
    pub fn start(to: String, rules: Rules) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let notes = lines.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (to, rules, notes) = (to.clone(), rules.clone(), notes.clone());
                thread::spawn(move || drop(converse(client, &to, &rules, &notes)));
            }
        });
        Proxy { address, lines }
    }

    /// The first lines of the requests since the last call.
    pub fn lines(&self) -> Vec<String> {
        std::mem::take(&mut *self.lines.lock().unwrap())
    }
}

fn converse(client: TcpStream, to: &str, rules: &Rules, notes: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut answers = client.try_clone()?;
    let mut requests = BufReader::new(client);
    let mut server: Option<TcpStream> = None;
    while let Some(head) = head(&mut requests)? {
        let (first, headers) = head.split_once("\r\n").unwrap_or((&head, ""));
        notes.lock().unwrap().push(first.to_owned());
        let own = |line: &&str| line.to_ascii_lowercase().starts_with("proxy-authorization: ");
        let shown = headers.lines().find(own).map(|line| &line["proxy-authorization: ".len()..]);
        if let Some((wanted, challenge)) = rules.wants.filter(|(wanted, _)| shown != Some(wanted)) {
            let _ = wanted;
            let text = "HTTP/1.1 407 No\r\nContent-Length: 0\r\nConnection: close\r\nProxy-Authenticate: ";
            return answers.write_all(format!("{text}{challenge}\r\n\r\n").as_bytes());
        }
        let words: Vec<&str> = first.split(' ').collect();
        if words[0] == "CONNECT" {
            if rules.only_443 && !words[1].ends_with(":443") {
                return answers.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
            }
            let far = TcpStream::connect(to)?;
            answers.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            answering(&far, &answers)?;
            return pump(&mut requests, &far);
        }
        let path = words[1].strip_prefix("http://").and_then(|rest| Some(&rest[rest.find('/')?..]));
        let Some(path) = path else {
            return answers.write_all(b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n");
        };
        let far = match &mut server {
            Some(far) => far,
            none => {
                let far = TcpStream::connect(to)?;
                answering(&far, &answers)?;
                none.insert(far)
            }
        };
        let kept: Vec<&str> = headers.lines().filter(|line| !own(line) && !line.is_empty()).collect();
        far.write_all(format!("{} {path} HTTP/1.1\r\n{}\r\n\r\n", words[0], kept.join("\r\n")).as_bytes())?;
        if kept.iter().any(|line| line.to_ascii_lowercase().starts_with("transfer-encoding: chunked")) {
            while chunk(&mut requests, far)? > 0 {}
        }
        let length =
            kept.iter().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        io::copy(&mut (&mut requests).take(length.unwrap_or(0)), far)?;
    }
    Ok(())
}

/// Passes one chunk of a body on; says how large it is.
fn chunk(from: &mut impl Read, to: &mut TcpStream) -> io::Result<u64> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        if from.take(1).read_to_end(&mut line)? == 0 {
            return Ok(0);
        }
    }
    let size = u64::from_str_radix(String::from_utf8_lossy(&line).trim(), 16).map_err(io::Error::other)?;
    to.write_all(&line)?;
    io::copy(&mut from.take(size + 2), to)?;
    Ok(size)
}

/// All that `from` says goes to `to`.
fn answering(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    let (mut from, to) = (from.try_clone()?, to.try_clone()?);
    thread::spawn(move || drop(pump(&mut from, &to)));
    Ok(())
}

fn pump(from: &mut impl Read, mut to: &TcpStream) -> io::Result<()> {
    let _ = io::copy(from, &mut to);
    to.shutdown(std::net::Shutdown::Write)
}

fn head(from: &mut impl Read) -> io::Result<Option<String>> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if from.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    Ok(Some(String::from_utf8_lossy(&head).into_owned()))
}
