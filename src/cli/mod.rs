//! The command line: one file per verb. Only this module prints.

mod address;
mod args;
mod ask;
mod below;
mod compare;
mod context;
mod copy_many;
mod deletion;
mod open;
mod options;
mod output;
mod reach;
mod signals;
mod sync;
mod verbs;
mod verify_blobs;
mod vm_hosts;

use self::args::Cli;
use self::context::CliRun;
use self::output::answer::{Answer, is_closed};
use self::output::progress::Screen;
use crate::Error;
use crate::cancel::Cancel;
use clap::Parser;
use std::process::ExitCode;
use std::sync::Arc;

/// Parses the arguments, runs the verb, prints one error, and returns the exit status.
pub fn main() -> ExitCode {
    let Cli { output, verb } = Cli::parse();
    let (screen, cancel) = (Arc::new(Screen::new(&output)), Cancel::default());
    let signals = signals::listen(cancel.clone(), screen.clone());
    let run = CliRun::new(screen, cancel, Answer::new(output.json), signals);
    let result = verb.run(&run);
    run.screen.clear();
    let Err(error) = result else { return ExitCode::SUCCESS };
    let (error, status) = error_and_status(error, run.signals.received());
    if !is_closed(&error) {
        output::terminal::line(&format!("imgmv: {error}"));
        run.answer.failure(&error, status);
    }
    ExitCode::from(status)
}

/// Returns the error to print and the exit status. Every error after a signal counts as an interruption.
fn error_and_status(error: Error, signal: Option<i32>) -> (Error, u8) {
    match signal {
        Some(signal) => (Error::interrupted(), signals::exit_status(signal)),
        None => {
            let status = error.kind().exit_status();
            (error, status)
        }
    }
}
