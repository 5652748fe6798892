//! A child process as a running command: its errors kept, its end awaited, and ended itself when the run is cancelled.

use super::tail::{Tail, follow};
use super::{Ending, Exit, Running};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::{
    io,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, mpsc},
    time::Duration,
};

/// A process that has ended may have left a child that holds its standard error (a control connection of an older
/// ssh): what it wrote is waited for no longer than this.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Room before a command's input, in bytes.
const PIPE: usize = 1 << 20;

/// Starts `command`, all three streams piped.
pub(super) fn start(command: &mut Command, cancel: &Cancel) -> Result<Running> {
    cancel.check()?;
    let program = command.get_program().to_string_lossy().into_owned();
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| not_started(&program, &e))?;
    let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(Error::failed(format!("{program} was started without its streams")));
    };
    // More than the system's 64 KiB is welcome, not needed.
    let _ = rustix::pipe::fcntl_setpipe_size(&stdin, PIPE);
    let tail: Arc<Mutex<Tail>> = Arc::default();
    let (said, drained) = mpsc::channel();
    let keep = tail.clone();
    std::thread::spawn(move || {
        follow(stderr, |bytes| lock(&keep).push(bytes));
        let _ = said.send(());
    });
    let living = Living::of(&child);
    let hook = living.clone();
    cancel.on_raise(move || hook.signal(Signal::TERM));
    // Raised between the check and the hook.
    if cancel.raised() {
        living.signal(Signal::TERM);
    }
    Ok(Running::new(stdin, stdout, Process { child, living, tail, drained, cancel: cancel.clone() }))
}

fn not_started(program: &str, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::remote_host(format!("there is no program {program} here")),
        _ => Error::remote_host(format!("{program} cannot be started: {error}")),
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(|e| e.into_inner())
}

/// The id of a process that was not yet reaped, so that no other process can bear it.
#[derive(Clone)]
struct Living(Arc<Mutex<Option<Pid>>>);

impl Living {
    fn of(child: &Child) -> Living {
        Living(Arc::new(Mutex::new(i32::try_from(child.id()).ok().and_then(Pid::from_raw))))
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = *lock(&self.0) {
            // It may have ended just now.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits for the end, then gives the id up and reaps.
    fn wait(&self, child: &mut Child) -> io::Result<std::process::ExitStatus> {
        let pid = *lock(&self.0);
        if let Some(pid) = pid {
            while let Err(e) = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                if e != rustix::io::Errno::INTR {
                    break;
                }
            }
        }
        *lock(&self.0) = None;
        child.wait()
    }
}

struct Process {
    child: Child,
    living: Living,
    tail: Arc<Mutex<Tail>>,
    drained: mpsc::Receiver<()>,
    cancel: Cancel,
}

impl Ending for Process {
    fn wait(mut self: Box<Self>) -> Result<Exit> {
        let status = self.living.wait(&mut self.child)?;
        self.cancel.check()?;
        let _ = self.drained.recv_timeout(LAST_WORDS);
        let signal = status.signal().map(signal_name);
        Ok(Exit { status: status.code(), signal, stderr: lock(&self.tail).text() })
    }
}

impl Drop for Process {
    /// Asks it to end, and makes it end when it has not after a second.
    fn drop(&mut self) {
        let ended = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
        if lock(&self.living.0).is_none() {
            return;
        }
        self.living.signal(Signal::TERM);
        for _ in 0..100 {
            let mut living = lock(&self.living.0);
            if ended(&mut self.child) {
                *living = None;
                return;
            }
            drop(living);
            std::thread::sleep(Duration::from_millis(10));
        }
        self.living.signal(Signal::KILL);
        let _ = self.living.wait(&mut self.child);
    }
}

fn signal_name(number: i32) -> String {
    match number {
        1 => "HUP".into(),
        2 => "INT".into(),
        6 => "ABRT".into(),
        9 => "KILL".into(),
        11 => "SEGV".into(),
        13 => "PIPE".into(),
        15 => "TERM".into(),
        other => other.to_string(),
    }
}
