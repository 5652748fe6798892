//! A child process as a running command. Its standard error is stored, and it is stopped when the run is cancelled.

use super::tail::{Tail, read_all};
use super::{Exit, Running, Waiter};
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

/// Maximum wait for standard error after the process has ended: its child may keep the pipe open (an older ssh's
/// control connection does).
const STDERR_TIMEOUT: Duration = Duration::from_secs(1);

/// Size of the pipe to a command's input.
const PIPE_BYTES: usize = 1 << 20;

/// Starts `command` with all three streams piped.
pub(super) fn start(command: &mut Command, cancel: &Cancel) -> Result<Running> {
    cancel.check()?;
    let program = command.get_program().to_string_lossy().into_owned();
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| spawn_error(&program, &e))?;
    let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(Error::failed(format!("internal error: {program} was started without its streams")));
    };
    // A pipe larger than the default 64 KiB is only an optimisation: a failure is ignored.
    let _ = rustix::pipe::fcntl_setpipe_size(&stdin, PIPE_BYTES);
    let tail: Arc<Mutex<Tail>> = Arc::default();
    let (finished, drained) = mpsc::channel();
    let keep = tail.clone();
    std::thread::spawn(move || {
        read_all(stderr, |bytes| lock(&keep).push(bytes));
        let _ = finished.send(());
    });
    let pid = LivePid::new(&child);
    let hook = pid.clone();
    cancel.on_raise(move || hook.signal(Signal::TERM));
    // The flag may have been raised between the check and the hook.
    if cancel.raised() {
        pid.signal(Signal::TERM);
    }
    Ok(Running::new(stdin, stdout, Process { child, pid, tail, drained, cancel: cancel.clone() }))
}

fn spawn_error(program: &str, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::remote_host(format!("the program {program} was not found on this host")),
        _ => Error::remote_host(format!("cannot start {program}: {error}")),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// The id of a process that is not yet reaped, so that no other process can have the same id.
#[derive(Clone)]
struct LivePid(Arc<Mutex<Option<Pid>>>);

impl LivePid {
    fn new(child: &Child) -> LivePid {
        LivePid(Arc::new(Mutex::new(i32::try_from(child.id()).ok().and_then(Pid::from_raw))))
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = *lock(&self.0) {
            // A failure means that the process has just ended.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits for the end, clears the id, then reaps the process.
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
    pid: LivePid,
    tail: Arc<Mutex<Tail>>,
    drained: mpsc::Receiver<()>,
    cancel: Cancel,
}

impl Waiter for Process {
    fn wait(mut self: Box<Self>) -> Result<Exit> {
        let status = self.pid.wait(&mut self.child)?;
        self.cancel.check()?;
        let _ = self.drained.recv_timeout(STDERR_TIMEOUT);
        let signal = status.signal().map(signal_name);
        Ok(Exit { status: status.code(), signal, stderr: lock(&self.tail).text() })
    }

    fn has_ended(&mut self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        match *lock(&self.pid.0) {
            Some(pid) => !matches!(waitid(WaitId::Pid(pid), options), Ok(None)),
            None => true,
        }
    }

    fn stderr(&self) -> String {
        lock(&self.tail).text()
    }
}

impl Drop for Process {
    /// Sends SIGTERM, and SIGKILL after a second.
    fn drop(&mut self) {
        let ended = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
        if lock(&self.pid.0).is_none() {
            return;
        }
        self.pid.signal(Signal::TERM);
        for _ in 0..100 {
            let mut pid = lock(&self.pid.0);
            if ended(&mut self.child) {
                *pid = None;
                return;
            }
            drop(pid);
            std::thread::sleep(Duration::from_millis(10));
        }
        self.pid.signal(Signal::KILL);
        let _ = self.pid.wait(&mut self.child);
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
