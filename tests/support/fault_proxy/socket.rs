//! What sockets are told: how they end, and how little lies in them.

use super::End;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;

pub(super) fn finish(client: &TcpStream, end: End) {
    match end {
        End::Fin => drop(client.shutdown(Shutdown::Both)),
        End::Rst => reset_on_close(client),
    }
}

/// In bytes: what lies between here and a client that does not read is little, so that what has passed here has
/// nearly arrived there.
const SENT_AHEAD: i32 = 64 << 10;

const SO_SNDBUF: i32 = 7;
const SO_LINGER: i32 = 13;

/// A socket that lingers for no time is reset when its last descriptor closes (socket(7)).
fn reset_on_close(socket: &TcpStream) {
    #[repr(C)]
    struct Linger {
        on: i32,
        seconds: i32,
    }
    set(socket, SO_LINGER, &Linger { on: 1, seconds: 0 });
}

/// Sets an option of `socket` whose value is a `T` (setsockopt(2)).
#[allow(unsafe_code)]
fn set<T>(socket: &TcpStream, name: i32, value: &T) {
    unsafe extern "C" {
        fn setsockopt(socket: i32, level: i32, name: i32, value: *const std::ffi::c_void, length: u32) -> i32;
    }
    const SOL_SOCKET: i32 = 1;
    let value: *const T = value;
    // SAFETY: the descriptor is open, and the value lies where its length is told.
    let set = unsafe { setsockopt(socket.as_raw_fd(), SOL_SOCKET, name, value.cast(), size_of::<T>() as u32) };
    assert_eq!(set, 0, "a socket's option {name} can be set");
}

/// What has been written to `socket` has nearly arrived at the other end.
pub(super) fn keep_short(socket: &TcpStream) {
    set(socket, SO_SNDBUF, &SENT_AHEAD);
}
