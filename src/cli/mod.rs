//! The command line: one file a verb, and the only code that prints.

mod address;
mod args;
mod context;
mod copy_many;
mod open;
mod options;
mod output;
mod signals;
mod verbs;
mod verify_blobs;
mod vm_hosts;

use self::args::Cli;
use self::context::Run;
use self::output::answer::{Answer, is_closed};
use self::output::progress::Screen;
use crate::Error;
use crate::cancel::Cancel;
use clap::Parser;
use std::process::ExitCode;
use std::sync::Arc;

/// Parses the arguments, runs the verb, prints one error, and returns the exit status.
pub fn main() -> ExitCode {
    let Cli { talk, verb } = Cli::parse();
    let (screen, cancel) = (Arc::new(Screen::new(&talk)), Cancel::default());
    let signals = signals::listen(cancel.clone(), screen.clone());
    let run = Run::new(screen, cancel, Answer::new(talk.json), signals);
    let done = verb.run(&run);
    run.screen.end();
    let Err(error) = done else { return ExitCode::SUCCESS };
    let (error, status) = verdict(error, run.signals.seen());
    if !is_closed(&error) {
        output::terminal::line(&format!("imgmv: {error}"));
        run.answer.failure(&error, status);
    }
    ExitCode::from(status)
}

/// What a run that failed tells, and its exit status. Whatever fails after a signal fails because of it.
fn verdict(error: Error, signal: Option<i32>) -> (Error, u8) {
    match signal {
        Some(signal) => (Error::interrupted(), signals::status(signal)),
        None => {
            let status = error.kind().exit_status();
            (error, status)
        }
    }
}
