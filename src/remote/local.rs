//! Commands on this host, as processes without a shell.

use super::{Host, Running, process};
use crate::cancel::Cancel;
use crate::error::Result;
use std::process::Command;

/// This host. Programs are looked up on `PATH` and inherit the environment (`DOCKER_HOST`, `CONTAINERD_ADDRESS`).
pub struct Local {
    environment: Vec<(String, String)>,
    cancel: Cancel,
}

impl Local {
    /// Runs commands on this host; raising `cancel` ends them.
    pub fn new(cancel: &Cancel) -> Local {
        Local { environment: Vec::new(), cancel: cancel.clone() }
    }

    /// Sets the environment variable `key` to `value` for the commands.
    pub fn with_env(mut self, key: &str, value: &str) -> Local {
        self.environment.push((key.to_owned(), value.to_owned()));
        self
    }
}

impl Host for Local {
    fn name(&self) -> &str {
        "this host"
    }

    fn run(&self, command: &[&str]) -> Result<Running> {
        let environment = self.environment.iter().map(|(key, value)| (key, value));
        process::start(Command::new(command[0]).args(&command[1..]).envs(environment), &self.cancel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::capture;
    use std::io::{Read, Write};

    fn here() -> Local {
        Local::new(&Cancel::default())
    }

    #[test]
    fn a_command_gets_its_input_and_gives_output_status_and_last_words() {
        let mut running = here().run(&["sh", "-c", "cat; echo bad >&2; exit 3"]).unwrap();
        running.stdin.take().unwrap().write_all(b"in").unwrap();
        let mut out = String::new();
        running.stdout.as_mut().unwrap().read_to_string(&mut out).unwrap();
        let exit = running.wait().unwrap();
        assert_eq!((out.as_str(), exit.status, exit.describe().as_str()), ("in", Some(3), "ended with status 3: bad"));
    }

    #[test]
    fn a_signal_is_told() {
        assert_eq!(capture(&here(), &["sh", "-c", "kill -9 $$"]).unwrap().exit.signal.as_deref(), Some("KILL"));
    }

    #[test]
    fn writing_to_a_command_that_has_ended_fails_at_once() {
        let mut running = here().run(&["sh", "-c", "head -c 1000 >/dev/null; echo full >&2; exit 3"]).unwrap();
        let mut stdin = running.stdin.take().unwrap();
        let error = (0..10_000).find_map(|_| stdin.write_all(&[0; 65536]).err()).unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
        assert_eq!(running.wait().unwrap().describe(), "ended with status 3: full");
    }

    #[test]
    fn cancelling_ends_a_command_that_would_not_end() {
        let cancel = Cancel::default();
        let mut running = Local::new(&cancel).run(&["sleep", "600"]).unwrap();
        cancel.raise();
        let mut out = Vec::new();
        running.stdout.as_mut().unwrap().read_to_end(&mut out).unwrap();
        assert_eq!(running.wait().unwrap_err().kind(), crate::Kind::Interrupted);
    }

    #[test]
    fn a_dropped_command_is_ended_even_when_it_will_not_listen() {
        let mut running = here().run(&["sh", "-c", "trap '' TERM; echo $$; while :; do sleep 0.1; done"]).unwrap();
        let mut pid = [0; 16];
        let n = running.stdout.as_mut().unwrap().read(&mut pid).unwrap();
        drop(running);
        let pid = std::str::from_utf8(&pid[..n]).unwrap().trim().to_owned();
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = here().run(&["imgmv-no-such-program"]).err().unwrap();
        assert!(error.to_string().contains("the program imgmv-no-such-program was not found"), "{error}");
    }
}
