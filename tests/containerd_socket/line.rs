//! A socket before another one, which counts what passes and calls back at a chosen byte.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

type Event = Box<dyn FnOnce() + Send>;

pub struct Line {
    /// The bytes from the client to the server.
    up: Arc<AtomicU64>,
    down: Arc<AtomicU64>,
    event: Arc<Mutex<Option<Event>>>,
}

impl Line {
    /// Listens on `socket`, and connects to `target` for each client. `event` is called once `at` bytes went up.
    pub fn new(socket: &Path, target: &Path, at: u64, event: impl FnOnce() + Send + 'static) -> Line {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let (up, down) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let event: Arc<Mutex<Option<Event>>> = Arc::new(Mutex::new(Some(Box::new(event))));
        let (counted, received, target) = (up.clone(), down.clone(), target.to_owned());
        let pending = event.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let Ok(server) = UnixStream::connect(&target) else { continue };
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (count, event) = (counted.clone(), event.clone());
                thread::spawn(move || {
                    pass(from, to, &count, &|sum| {
                        if sum >= at
                            && let Some(event) = event.lock().unwrap().take()
                        {
                            event();
                        }
                    });
                });
                let received = received.clone();
                thread::spawn(move || pass(server, client, &received, &|_| {}));
            }
        });
        Line { up, down, event: pending }
    }

    /// Whether the event is still to come.
    pub fn killed_nothing_yet(&self) -> bool {
        self.event.lock().unwrap().is_some()
    }

    pub fn up(&self) -> u64 {
        self.up.load(Ordering::SeqCst)
    }

    pub fn down(&self) -> u64 {
        self.down.load(Ordering::SeqCst)
    }
}

fn pass(mut from: UnixStream, mut to: UnixStream, count: &AtomicU64, passed: &dyn Fn(u64)) {
    let mut buffer = [0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        passed(count.fetch_add(n as u64, Ordering::SeqCst) + n as u64);
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Read);
    let _ = to.shutdown(Shutdown::Write);
}
