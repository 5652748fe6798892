//! Questions on the terminal.

use crate::cli::output::terminal::line;
use crate::{Error, Result};
use std::io::{self, BufRead, IsTerminal, Read};

/// The longest answer.
const MAX_ANSWER_BYTES: u64 = 1024;

/// Whether there is a terminal to ask.
pub fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks `question` on the terminal; whether the answer is yes.
///
/// Fails with `Usage` without a terminal.
pub fn confirm(question: &str) -> Result<bool> {
    if !can_ask() {
        return Err(Error::usage(format!("{question}: this is not a terminal, so imgmv cannot ask; add --yes")));
    }
    line(&format!("{question}? [y/N]"));
    let mut answer = String::new();
    let stdin = io::stdin().lock().take(MAX_ANSWER_BYTES).read_line(&mut answer);
    stdin.map_err(|error| Error::reading("the terminal", error))?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}
