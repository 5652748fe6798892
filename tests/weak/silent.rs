//! Servers that take a connection and then take their time. Nothing is timed: without a time-out none of these would end
//! at all.

use super::*;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// Longer than any of these takes on the busiest machine.
const NEVER: Duration = Duration::from_secs(180);

/// What a server says to whoever connects; it ends when it can say no more.
type Says = fn(TcpStream);

fn server(says: Says) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    thread::spawn(move || listener.incoming().flatten().for_each(|client| drop(thread::spawn(move || says(client)))));
    host
}

/// Until the other side has closed.
fn listen(mut client: TcpStream) {
    while matches!(client.read(&mut [0; 4096]), Ok(n) if n > 0) {}
}

fn nothing(client: TcpStream) {
    listen(client);
}

/// The first bytes of a ServerHello that is announced to be longer.
fn half_a_tls_hello(mut client: TcpStream) {
    let _ = client.read(&mut [0; 4096]);
    let _ = client.write_all(&[0x16, 3, 3, 0, 122, 2, 0, 0, 118, 3, 3]);
    listen(client);
}

/// Never a whole TLS record, but always something.
fn a_tls_hello_byte_by_byte(mut client: TcpStream) {
    let _ = client.read(&mut [0; 4096]);
    let start = [0x16, 3, 3, 0x3f, 0xff, 2, 0, 0x3f, 0xf0, 3, 3];
    dribble(client, &start);
}

/// To a question in plain HTTP, a head that never ends; TLS is not known.
fn headers_byte_by_byte(mut client: TcpStream) {
    let mut first = [0; 4096];
    if client.read(&mut first).is_err() || first[0] == 0x16 {
        let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        return;
    }
    dribble(client, b"HTTP/1.1 200 OK\r\nX: ");
}

fn dribble(mut client: TcpStream, start: &[u8]) {
    let mut bytes = start.iter().copied().chain(std::iter::repeat(b'x'));
    while client.write_all(&[bytes.next().unwrap_or(b'x')]).is_ok() {
        thread::sleep(Duration::from_millis(200));
    }
}

/// What the program says of the image at `host`. Fails where it has not ended by itself.
fn asked_of(host: &str) -> Output {
    let (send, receive) = channel();
    let image = format!("{host}/app:1");
    thread::spawn(move || send.send(imgmv(&["digest", &image, "--timeout", "1", "--retry", "0"], None)));
    receive.recv_timeout(NEVER).expect("the program ends by itself")
}

#[test]
fn whoever_says_nothing_or_too_little_is_given_up() {
    let silent: [Says; 4] = [nothing, half_a_tls_hello, a_tls_hello_byte_by_byte, headers_byte_by_byte];
    let asked = silent.map(|says| thread::spawn(move || asked_of(&server(says))));
    for (nth, asked) in asked.into_iter().enumerate() {
        let out = asked.join().unwrap();
        assert_eq!(out.status.code(), Some(6), "{nth}: {}", out.stderr);
    }
}

#[test]
fn a_server_that_takes_no_more_connections_is_given_up() {
    let full = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = full.local_addr().unwrap();
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok();
    let waiting: Vec<TcpStream> = std::iter::from_fn(connect).take(10_000).collect();
    let out = asked_of(&address.to_string());
    assert_eq!(out.status.code(), Some(6), "{}", out.stderr);
    assert!(out.stderr.contains("no connection within 1 seconds"), "{}", out.stderr);
    drop(waiting);
}
