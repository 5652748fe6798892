//! Prompts at the terminal: passphrases, passwords, and confirmation of an unknown host key.

use crate::remote::prompt_secret;
use std::{
    collections::HashMap,
    fs::OpenOptions,
    io::{BufRead, BufReader, Write},
    sync::{LazyLock, Mutex, MutexGuard},
};

/// Earlier answers: each question is asked once for all hosts and connections. Locked during a prompt, so that only one
/// is shown at a time.
static ANSWERS: LazyLock<Mutex<HashMap<String, String>>> = LazyLock::new(Mutex::default);

fn answers() -> MutexGuard<'static, HashMap<String, String>> {
    ANSWERS.lock().unwrap_or_else(|e| e.into_inner())
}

/// Returns the earlier answer to `question`, or asks on the terminal without echo; `None` without a terminal.
pub(super) fn ask_secret(question: &str) -> Option<String> {
    let mut known = answers();
    if let Some(answer) = known.get(question) {
        return Some(answer.clone());
    }
    let answer = prompt_secret(question).ok()?;
    known.insert(question.to_owned(), answer.clone());
    Some(answer)
}

/// Removes a wrong `answer`, so that the next request asks again.
pub(super) fn forget(question: &str, answer: &str) {
    let mut known = answers();
    if known.get(question).is_some_and(|kept| kept == answer) {
        known.remove(question);
    }
}

/// Whether the user types `yes` in full; `None` without a terminal.
pub(super) fn confirm(question: &str) -> Option<bool> {
    let _one_at_a_time = answers();
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
    write!(terminal, "{question} Type yes to continue: ").ok()?;
    terminal.flush().ok()?;
    let mut line = String::new();
    BufReader::new(terminal).read_line(&mut line).ok()?;
    Some(line.trim() == "yes")
}
