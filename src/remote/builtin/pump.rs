//! One command over an ssh channel, moved by one thread: what is written to a pipe here goes to the command's standard
//! input, and its output comes out of another.
//!
//! libssh2's blocking write waits for ever when the far command ends early. Here nothing blocks but `poll`, standard
//! output and error are always drained (the end is not seen otherwise), and a packet that was sent by half is finished
//! before anything else is asked of the session.

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::remote::Exit;
use crate::remote::tail::Tail;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ssh2::{BlockDirections, Channel, Session};
use std::{
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Taken from the pipe at once, in bytes.
const CHUNK: usize = 256 << 10;
/// How often the pump looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(200);
/// A silent host is asked for a sign of life after `QUIET`, and given up after `DEAD`.
const QUIET: Duration = Duration::from_secs(15);
const DEAD: Duration = Duration::from_secs(75);

pub(super) struct Pump {
    pub session: Session,
    pub channel: Channel,
    pub socket: OwnedFd,
    pub stdin: PipeReader,
    pub stdout: PipeWriter,
    pub stop: Arc<AtomicBool>,
    pub cancel: Cancel,
    /// For messages.
    pub place: String,
}

/// What there is to wait for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Moved,
    Nothing,
    /// A packet lies half in the socket: the same call has to be made again before any other.
    HalfSent,
}

/// What may leave a packet half-sent; reading does, since it widens the window.
#[derive(Clone, Copy)]
enum Part {
    Send,
    Errors,
    Output,
}

struct Flow {
    pump: Pump,
    half_sent: Option<Part>,
    /// On their way to the command.
    outgoing: Buffer,
    /// On their way to the reader here.
    incoming: Buffer,
    input: Input,
    /// Whether anybody reads the output still.
    reader: bool,
    tail: Tail,
    heard: Instant,
    asked: Instant,
}

/// Filled at once, emptied bit by bit. libssh2 wants a half-sent packet's bytes again at the same place.
struct Buffer {
    bytes: Box<[u8]>,
    from: usize,
    to: usize,
}

impl Buffer {
    fn new() -> Buffer {
        Buffer { bytes: vec![0; CHUNK].into(), from: 0, to: 0 }
    }

    fn is_empty(&self) -> bool {
        self.from == self.to
    }

    fn left(&self) -> &[u8] {
        &self.bytes[self.from..self.to]
    }

    fn fill(&mut self, n: usize) {
        (self.from, self.to) = (0, n);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    /// Read to its end, and the other side is still to hear of it.
    Ended,
    Told,
}

impl Pump {
    /// Moves everything until the command has ended. Gives the session back when it can be used again.
    pub fn run(self) -> Result<(Exit, Session)> {
        self.session.set_blocking(false);
        let now = Instant::now();
        let mut flow = Flow {
            pump: self,
            half_sent: None,
            outgoing: Buffer::new(),
            incoming: Buffer::new(),
            input: Input::Open,
            reader: true,
            tail: Tail::default(),
            heard: now,
            asked: now,
        };
        while !flow.ended()? {
            flow.pump.cancel.check()?;
            if flow.pump.stop.load(Ordering::SeqCst) {
                return Err(Error::failed("the command was stopped"));
            }
            let step = flow.step()?;
            if step != Step::Moved {
                flow.wait(step)?;
            }
        }
        flow.close()
    }
}

impl Flow {
    /// The other side has sent its last, and it is all taken.
    fn ended(&mut self) -> Result<bool> {
        Ok(self.incoming.is_empty() && self.pump.channel.eof())
    }

    fn step(&mut self) -> Result<Step> {
        let mut moved = Step::Nothing;
        let first = self.half_sent.take();
        for part in first.into_iter().chain([Part::Send, Part::Errors, Part::Output]) {
            let step = match part {
                Part::Send => self.send(),
                Part::Errors => self.take_errors(),
                Part::Output => self.take_output(),
            };
            match step? {
                Step::HalfSent => {
                    self.half_sent = Some(part);
                    return Ok(Step::HalfSent);
                }
                Step::Moved => moved = Step::Moved,
                Step::Nothing => {}
            }
        }
        if self.hand_over()? {
            moved = Step::Moved;
        }
        Ok(moved)
    }

    fn send(&mut self) -> Result<Step> {
        if self.outgoing.is_empty() {
            return Ok(Step::Nothing);
        }
        let result = self.pump.channel.write(self.outgoing.left());
        let (step, n) = self.judged(result)?;
        self.outgoing.from += n;
        Ok(step)
    }

    fn take_errors(&mut self) -> Result<Step> {
        let mut buffer = [0; 4096];
        let result = self.pump.channel.stderr().read(&mut buffer);
        let (step, n) = self.judged(result)?;
        self.tail.push(&buffer[..n]);
        Ok(step)
    }

    fn take_output(&mut self) -> Result<Step> {
        if !self.incoming.is_empty() {
            return Ok(Step::Nothing);
        }
        let result = self.pump.channel.read(&mut self.incoming.bytes);
        let (step, n) = self.judged(result)?;
        self.incoming.fill(if self.reader { n } else { 0 });
        Ok(step)
    }

    /// To the reader here, as much as its pipe takes.
    fn hand_over(&mut self) -> Result<bool> {
        if self.incoming.is_empty() {
            return Ok(false);
        }
        match self.pump.stdout.write(self.incoming.left()) {
            Ok(n) => {
                self.incoming.from += n;
                Ok(n > 0)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(_) => {
                self.reader = false;
                self.incoming.fill(0);
                Ok(true)
            }
        }
    }

    fn judged(&mut self, result: io::Result<usize>) -> Result<(Step, usize)> {
        match result {
            Ok(0) => Ok((Step::Nothing, 0)),
            Ok(n) => {
                self.heard = Instant::now();
                Ok((Step::Moved, n))
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => match self.pump.session.block_directions() {
                BlockDirections::Outbound | BlockDirections::Both => Ok((Step::HalfSent, 0)),
                BlockDirections::Inbound | BlockDirections::None => Ok((Step::Nothing, 0)),
            },
            Err(e) => Err(self.lost(&e.to_string())),
        }
    }

    fn lost(&self, why: &str) -> Error {
        Error::remote_host(format!("{}: the connection was lost: {why}", self.pump.place))
    }

    /// Waits for the socket and the pipes, then does what needs a writable socket or a readable pipe.
    fn wait(&mut self, step: Step) -> Result<()> {
        self.alive()?;
        let hungry = step != Step::HalfSent && self.outgoing.is_empty();
        let tell = hungry && self.input == Input::Ended;
        let ask = step != Step::HalfSent && self.heard.elapsed() > QUIET && self.asked.elapsed() > QUIET;
        let mut flags = PollFlags::IN;
        if step == Step::HalfSent || tell || ask {
            flags |= PollFlags::OUT;
        }
        let mut fds = vec![PollFd::new(&self.pump.socket, flags)];
        if hungry && self.input == Input::Open {
            fds.push(PollFd::new(&self.pump.stdin, PollFlags::IN));
        }
        if !self.incoming.is_empty() {
            fds.push(PollFd::new(&self.pump.stdout, PollFlags::OUT));
        }
        let look = Timespec { tv_sec: 0, tv_nsec: LOOK.as_nanos() as i64 };
        match poll(&mut fds, Some(&look)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(self.lost(&e.to_string())),
        }
        let socket = fds[0].revents();
        let input = fds.get(1).is_some_and(|fd| hungry && self.input == Input::Open && !fd.revents().is_empty());
        drop(fds);
        if socket.contains(PollFlags::IN) {
            self.heard = Instant::now();
        }
        if input {
            self.fetch()?;
        }
        if socket.contains(PollFlags::OUT) && tell {
            self.tell_end()?;
        }
        if socket.contains(PollFlags::OUT) && ask {
            self.asked = Instant::now();
            // A failure shows in the next read.
            let _ = self.pump.session.keepalive_send();
        }
        Ok(())
    }

    fn alive(&self) -> Result<()> {
        match self.heard.elapsed() > DEAD {
            true => Err(self.lost(&format!("no sign of life for {} seconds", DEAD.as_secs()))),
            false => Ok(()),
        }
    }

    /// From the pipe, which has something or is at its end.
    fn fetch(&mut self) -> Result<()> {
        let n = self.pump.stdin.read(&mut self.outgoing.bytes)?;
        self.outgoing.fill(n);
        if n == 0 {
            self.input = Input::Ended;
        }
        Ok(())
    }

    /// Only when the socket has room: a half-sent end of file could not be finished (libssh2 keeps it on its stack).
    fn tell_end(&mut self) -> Result<()> {
        match self.pump.channel.send_eof().map_err(io::Error::from) {
            Ok(()) => self.input = Input::Told,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(self.lost(&e.to_string())),
        }
        Ok(())
    }

    /// Closes the pipes first, so that whoever writes here learns of the end at once, then the channel.
    fn close(mut self) -> Result<(Exit, Session)> {
        let Pump { session, mut channel, socket, stdin, stdout, cancel, place, .. } = self.pump;
        drop((stdin, stdout));
        let lost = |why: &str| Error::remote_host(format!("{place}: the connection was lost: {why}"));
        let since = Instant::now();
        loop {
            // What came between the last look and the end.
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
            if since.elapsed() > DEAD {
                return Err(lost("the command's end was not told"));
            }
            let look = Timespec { tv_sec: 0, tv_nsec: LOOK.as_nanos() as i64 };
            let _ = poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&look));
        }
        let status = channel.exit_status().map_err(|e| lost(e.message()))?;
        let signal = channel.exit_signal().ok().and_then(|signal| signal.exit_signal);
        let signal = signal.filter(|name| !name.is_empty()).map(|name| crate::remote::tail::plain(&name));
        // libssh2 says 0 where a signal ended the command.
        let status = signal.is_none().then_some(status);
        session.set_blocking(true);
        drop(channel);
        Ok((Exit { status, signal, stderr: self.tail.text() }, session))
    }
}
