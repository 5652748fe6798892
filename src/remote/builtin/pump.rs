//! The byte pump of one command over an ssh channel: one thread moves bytes from a local pipe to the command's standard
//! input, and from its output to a second pipe.
//!
//! libssh2's blocking write never returns if the remote command ends early. So only `poll` blocks here. Standard output
//! and error are always drained, since the end of the command is not seen otherwise. A half-sent packet is completed
//! before any other call on the connection.

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::remote::tail::Tail;
use crate::remote::{Exit, Waiter};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ssh2::{BlockDirections, Channel, Session};
use std::{
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

const BUFFER_BYTES: usize = 256 << 10;
/// Interval at which the pump checks whether it must stop.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// A silent host is sent a keepalive after `KEEPALIVE_INTERVAL`; after `SILENCE_TIMEOUT` the connection counts as lost.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const SILENCE_TIMEOUT: Duration = Duration::from_secs(75);

pub(super) struct Pump {
    pub ssh: Session,
    pub channel: Channel,
    pub socket: OwnedFd,
    pub stdin: PipeReader,
    pub stdout: PipeWriter,
    pub stop: Arc<AtomicBool>,
    pub cancel: Cancel,
    /// The host's name, for messages.
    pub host: String,
}

/// A thread that runs a [`Pump`]. Dropped, it is stopped.
pub(super) struct PumpThread {
    pub thread: Option<JoinHandle<Result<Exit>>>,
    pub stop: Arc<AtomicBool>,
}

impl Waiter for PumpThread {
    fn wait(mut self: Box<Self>) -> Result<Exit> {
        let ended = self.thread.take().map(JoinHandle::join);
        match ended {
            Some(Ok(exit)) => exit,
            _ => Err(Error::failed("internal error: the thread that moves a command's bytes over ssh panicked")),
        }
    }
}

impl Drop for PumpThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The result of one operation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PumpStep {
    Moved,
    Idle,
    /// A packet is half-sent: the same call must be repeated before any other.
    HalfSent,
}

/// An operation that can leave a packet half-sent. Reading can, since it sends window updates.
#[derive(Clone, Copy)]
enum Operation {
    SendInput,
    ReadStderr,
    ReadStdout,
}

struct PumpState {
    pump: Pump,
    half_sent: Option<Operation>,
    /// Bytes to the command.
    outgoing: PumpBuffer,
    /// Bytes from the command.
    incoming: PumpBuffer,
    input: PumpInput,
    /// Whether the local end of the output pipe is still open.
    has_reader: bool,
    tail: Tail,
    last_received: Instant,
    last_keepalive: Instant,
}

/// A buffer that is filled in one call and emptied in several. libssh2 requires the bytes of a half-sent packet at the
/// same place in memory again.
struct PumpBuffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl PumpBuffer {
    fn new() -> PumpBuffer {
        PumpBuffer { bytes: vec![0; BUFFER_BYTES].into(), start: 0, end: 0 }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn remaining(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn fill(&mut self, n: usize) {
        (self.start, self.end) = (0, n);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PumpInput {
    Open,
    /// The local pipe is at its end; the end of file is not yet sent.
    AtEnd,
    EofSent,
}

impl Pump {
    /// Moves bytes until the command has ended. Returns the connection, which can be reused.
    pub fn run(self) -> Result<(Exit, Session)> {
        self.ssh.set_blocking(false);
        let now = Instant::now();
        let mut state = PumpState {
            pump: self,
            half_sent: None,
            outgoing: PumpBuffer::new(),
            incoming: PumpBuffer::new(),
            input: PumpInput::Open,
            has_reader: true,
            tail: Tail::default(),
            last_received: now,
            last_keepalive: now,
        };
        while !state.is_finished()? {
            state.pump.cancel.check()?;
            if state.pump.stop.load(Ordering::SeqCst) {
                return Err(Error::failed("the command was stopped"));
            }
            let step = state.step()?;
            if step != PumpStep::Moved {
                state.wait(step)?;
            }
        }
        state.close()
    }
}

impl PumpState {
    /// Whether the command's output is at its end and fully written to the local pipe.
    fn is_finished(&mut self) -> Result<bool> {
        Ok(self.incoming.is_empty() && self.pump.channel.eof())
    }

    fn step(&mut self) -> Result<PumpStep> {
        let mut moved = PumpStep::Idle;
        let first = self.half_sent.take();
        for operation in first.into_iter().chain([Operation::SendInput, Operation::ReadStderr, Operation::ReadStdout]) {
            let step = match operation {
                Operation::SendInput => self.send_input(),
                Operation::ReadStderr => self.read_stderr(),
                Operation::ReadStdout => self.read_stdout(),
            };
            match step? {
                PumpStep::HalfSent => {
                    self.half_sent = Some(operation);
                    return Ok(PumpStep::HalfSent);
                }
                PumpStep::Moved => moved = PumpStep::Moved,
                PumpStep::Idle => {}
            }
        }
        if self.write_output()? {
            moved = PumpStep::Moved;
        }
        Ok(moved)
    }

    fn send_input(&mut self) -> Result<PumpStep> {
        if self.outgoing.is_empty() {
            return Ok(PumpStep::Idle);
        }
        let result = self.pump.channel.write(self.outgoing.remaining());
        let (step, n) = self.classify(result)?;
        self.outgoing.start += n;
        Ok(step)
    }

    fn read_stderr(&mut self) -> Result<PumpStep> {
        let mut buffer = [0; 4096];
        let result = self.pump.channel.stderr().read(&mut buffer);
        let (step, n) = self.classify(result)?;
        self.tail.push(&buffer[..n]);
        Ok(step)
    }

    fn read_stdout(&mut self) -> Result<PumpStep> {
        if !self.incoming.is_empty() {
            return Ok(PumpStep::Idle);
        }
        let result = self.pump.channel.read(&mut self.incoming.bytes);
        let (step, n) = self.classify(result)?;
        self.incoming.fill(if self.has_reader { n } else { 0 });
        Ok(step)
    }

    /// Writes output to the local pipe, as much as fits.
    fn write_output(&mut self) -> Result<bool> {
        if self.incoming.is_empty() {
            return Ok(false);
        }
        match self.pump.stdout.write(self.incoming.remaining()) {
            Ok(n) => {
                self.incoming.start += n;
                Ok(n > 0)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(_) => {
                self.has_reader = false;
                self.incoming.fill(0);
                Ok(true)
            }
        }
    }

    fn classify(&mut self, result: io::Result<usize>) -> Result<(PumpStep, usize)> {
        match result {
            Ok(0) => Ok((PumpStep::Idle, 0)),
            Ok(n) => {
                self.last_received = Instant::now();
                Ok((PumpStep::Moved, n))
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => match self.pump.ssh.block_directions() {
                BlockDirections::Outbound | BlockDirections::Both => Ok((PumpStep::HalfSent, 0)),
                BlockDirections::Inbound | BlockDirections::None => Ok((PumpStep::Idle, 0)),
            },
            Err(e) => Err(self.connection_lost(&e.to_string())),
        }
    }

    fn connection_lost(&self, why: &str) -> Error {
        Error::remote_host(format!("{}: the connection was lost: {why}", self.pump.host))
    }

    /// Waits for the socket and the pipes, then does what needs a writable socket or a readable pipe.
    fn wait(&mut self, step: PumpStep) -> Result<()> {
        self.check_alive()?;
        let wants_input = step != PumpStep::HalfSent && self.outgoing.is_empty();
        let send_eof = wants_input && self.input == PumpInput::AtEnd;
        let keepalive = step != PumpStep::HalfSent
            && self.last_received.elapsed() > KEEPALIVE_INTERVAL
            && self.last_keepalive.elapsed() > KEEPALIVE_INTERVAL;
        let mut flags = PollFlags::IN;
        if step == PumpStep::HalfSent || send_eof || keepalive {
            flags |= PollFlags::OUT;
        }
        let mut fds = vec![PollFd::new(&self.pump.socket, flags)];
        if wants_input && self.input == PumpInput::Open {
            fds.push(PollFd::new(&self.pump.stdin, PollFlags::IN));
        }
        if !self.incoming.is_empty() {
            fds.push(PollFd::new(&self.pump.stdout, PollFlags::OUT));
        }
        let timeout = Timespec { tv_sec: 0, tv_nsec: POLL_INTERVAL.as_nanos() as i64 };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(self.connection_lost(&e.to_string())),
        }
        let socket = fds[0].revents();
        let input =
            fds.get(1).is_some_and(|fd| wants_input && self.input == PumpInput::Open && !fd.revents().is_empty());
        drop(fds);
        if socket.contains(PollFlags::IN) {
            self.last_received = Instant::now();
        }
        if input {
            self.read_input()?;
        }
        if socket.contains(PollFlags::OUT) && send_eof {
            self.send_eof_to_command()?;
        }
        if socket.contains(PollFlags::OUT) && keepalive {
            self.last_keepalive = Instant::now();
            // A failure is reported by the next read.
            let _ = self.pump.ssh.keepalive_send();
        }
        Ok(())
    }

    fn check_alive(&self) -> Result<()> {
        match self.last_received.elapsed() > SILENCE_TIMEOUT {
            true => Err(self.connection_lost(&format!("no data for {} seconds", SILENCE_TIMEOUT.as_secs()))),
            false => Ok(()),
        }
    }

    /// Reads from the local pipe, which is readable or at its end.
    fn read_input(&mut self) -> Result<()> {
        let n = self.pump.stdin.read(&mut self.outgoing.bytes)?;
        self.outgoing.fill(n);
        if n == 0 {
            self.input = PumpInput::AtEnd;
        }
        Ok(())
    }

    /// Sends the end of file. Called only if the socket is writable: a half-sent end of file cannot be completed, since
    /// libssh2 keeps it on its stack.
    fn send_eof_to_command(&mut self) -> Result<()> {
        match self.pump.channel.send_eof().map_err(io::Error::from) {
            Ok(()) => self.input = PumpInput::EofSent,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(self.connection_lost(&e.to_string())),
        }
        Ok(())
    }

    /// Closes the pipes first, so that a local writer fails immediately, then the channel.
    fn close(mut self) -> Result<(Exit, Session)> {
        let Pump { ssh, mut channel, socket, stdin, stdout, cancel, host, .. } = self.pump;
        drop((stdin, stdout));
        let lost = |why: &str| Error::remote_host(format!("{host}: the connection was lost: {why}"));
        let started = Instant::now();
        loop {
            // Standard error that arrived after the last read.
            let mut rest = [0; 4096];
            while let Ok(n @ 1..) = channel.stderr().read(&mut rest) {
                self.tail.push(&rest[..n]);
            }
            match channel.wait_close().map_err(io::Error::from) {
                Ok(()) => break,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(lost(&e.to_string())),
            }
            cancel.check()?;
            if started.elapsed() > SILENCE_TIMEOUT {
                return Err(lost("the server did not report the command's end"));
            }
            let timeout = Timespec { tv_sec: 0, tv_nsec: POLL_INTERVAL.as_nanos() as i64 };
            let _ = poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&timeout));
        }
        let status = channel.exit_status().map_err(|e| lost(e.message()))?;
        let signal = channel.exit_signal().ok().and_then(|signal| signal.exit_signal);
        let signal = signal.filter(|name| !name.is_empty()).map(|name| crate::remote::tail::sanitize(&name));
        // libssh2 reports status 0 for a command that a signal ended.
        let status = signal.is_none().then_some(status);
        ssh.set_blocking(true);
        drop(channel);
        Ok((Exit { status, signal, stderr: self.tail.text() }, ssh))
    }
}
