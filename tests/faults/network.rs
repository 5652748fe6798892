//! Connections that crawl, proxies, certificates, and the configuration files that name them.

#[path = "network/certificates.rs"]
mod certificates;
#[path = "network/crawl.rs"]
mod crawl;
#[path = "network/garbage.rs"]
mod garbage;
#[path = "network/insecure.rs"]
mod insecure;
#[path = "network/logins.rs"]
mod logins;
#[path = "network/proxies.rs"]
mod proxies;

use super::support::program::command;
use std::process::{Command, Stdio};

/// The program with nothing of this user's configuration, and its shortest pauses.
fn program(args: &[&str]) -> Command {
    let mut program = command(env!("CARGO_BIN_EXE_imgmv"));
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        program.env_remove(name).env_remove(name.to_ascii_lowercase());
    }
    program.stdin(Stdio::null()).args(args);
    program
}

/// Runs it: its status (-1: a signal), and what it said.
fn run(program: &mut Command) -> (i32, String) {
    let output = program.output().unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// It ended with `status`, and its last line has all of `words`.
fn ended(done: &(i32, String), status: i32, words: &[&str]) {
    let (found, said) = done;
    assert_eq!(*found, status, "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(words.iter().all(|word| last.contains(word)), "{words:?} in {said}");
}
