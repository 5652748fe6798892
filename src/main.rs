//! Parse, run, print one error, exit.

mod cli;

use clap::Parser;
use cli::Run;
use cli::answer::{Answer, is_closed};
use cli::args::Cli;
use cli::progress::Screen;
use cli::signals;
use imgmv::cancel::Cancel;
use imgmv::{Error, Kind};
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    let Cli { talk, verb } = Cli::parse();
    let (screen, cancel) = (Arc::new(Screen::new(&talk)), Cancel::default());
    let signals = signals::listen(cancel.clone(), screen.clone());
    let run = Run { screen, cancel, answer: Answer::new(talk.json) };
    let done = verb.run(&run);
    run.screen.end();
    let Err(error) = done else { return ExitCode::SUCCESS };
    let status = status(&error, &signals);
    if !is_closed(&error) {
        cli::progress::line(&format!("imgmv: {error}"));
        run.answer.failure(&error, status);
    }
    ExitCode::from(status)
}

/// Of an error's kind; what was interrupted tells by which signal.
fn status(error: &Error, signals: &signals::Signals) -> u8 {
    match (error.kind(), signals.seen()) {
        (Kind::Interrupted, Some(signal)) => signals::status(signal),
        (kind, _) => kind.exit_status(),
    }
}
