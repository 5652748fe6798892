//! A line to a host on which every byte is counted, and which can be cut.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Forwards to one port of this host. Its threads end with its connections.
pub struct Line {
    pub port: u16,
    count: Arc<Count>,
}

#[derive(Default)]
struct Count {
    up: AtomicU64,
    down: AtomicU64,
    /// After so many more bytes up every connection is cut; 0: never.
    cut: AtomicU64,
}

impl Line {
    pub fn to(port: u16) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let line = Line { port: listener.local_addr().unwrap().port(), count: Arc::default() };
        let count = line.count.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else { return };
                let (near2, far2) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                let (up, down) = (count.clone(), count.clone());
                std::thread::spawn(move || pass(near, far, &up, &up.up));
                std::thread::spawn(move || pass(far2, near2, &down, &down.down));
            }
        });
        line
    }

    /// Bytes up and down since the last time.
    pub fn counted(&self) -> (u64, u64) {
        (self.count.up.swap(0, Ordering::SeqCst), self.count.down.swap(0, Ordering::SeqCst))
    }

    pub fn cut_after(&self, bytes: u64) {
        self.count.up.store(0, Ordering::SeqCst);
        self.count.cut.store(bytes, Ordering::SeqCst);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, count: &Count, sum: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 || to.write_all(&buffer[..n]).is_err() {
            break;
        }
        sum.fetch_add(n as u64, Ordering::SeqCst);
        let cut = count.cut.load(Ordering::SeqCst);
        if cut > 0 && count.up.load(Ordering::SeqCst) > cut {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
