//! Parse, run, print one error, exit.

#![forbid(unsafe_code)]

mod cli;

use clap::Parser;
use cli::args::Cli;
use cli::context::Run;
use cli::output::answer::{Answer, is_closed};
use cli::output::progress::Screen;
use cli::signals;
use imgmv::Error;
use imgmv::cancel::Cancel;
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    let Cli { talk, verb } = Cli::parse();
    let (screen, cancel) = (Arc::new(Screen::new(&talk)), Cancel::default());
    let signals = signals::listen(cancel.clone(), screen.clone());
    let run = Run::new(screen, cancel, Answer::new(talk.json), signals);
    let done = verb.run(&run);
    run.screen.end();
    let Err(error) = done else { return ExitCode::SUCCESS };
    let (error, status) = verdict(error, run.signals.seen());
    if !is_closed(&error) {
        cli::output::terminal::line(&format!("imgmv: {error}"));
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
