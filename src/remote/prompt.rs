//! Prompts for passwords and passphrases.

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::fs::OpenOptions;
use std::io;

/// Prints `question` on the terminal and returns the answer, which is not echoed.
///
/// The echo is switched off before the question appears: an answer that is typed or pasted at once is hidden too. Fails
/// without a terminal.
pub fn prompt_secret(question: &str) -> io::Result<String> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    let before = tcgetattr(&terminal)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&terminal, OptionalActions::Now, &hidden)?;
    let answer = rpassword::prompt_password(question);
    tcsetattr(&terminal, OptionalActions::Now, &before)?;
    answer
}
