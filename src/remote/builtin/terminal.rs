//! What only the person at the terminal knows: passphrases, passwords, and whether a host is the right one.

use std::{
    collections::HashMap,
    fs::OpenOptions,
    io::{BufRead, BufReader, Write},
    sync::{LazyLock, Mutex, MutexGuard},
};

/// Answers, so that each question is asked once however many hosts and connections want to know. Held while asking:
/// one question at a time.
static ANSWERS: LazyLock<Mutex<HashMap<String, String>>> = LazyLock::new(Mutex::default);

fn answers() -> MutexGuard<'static, HashMap<String, String>> {
    ANSWERS.lock().unwrap_or_else(|e| e.into_inner())
}

/// The answer to `question`, from before or from the terminal, where it is not shown; `None` without a terminal.
pub(super) fn secret(question: &str) -> Option<String> {
    let mut known = answers();
    if let Some(answer) = known.get(question) {
        return Some(answer.clone());
    }
    let answer = rpassword::prompt_password(question).ok()?;
    known.insert(question.to_owned(), answer.clone());
    Some(answer)
}

/// `answer` was wrong: whoever wants to know next is to be asked again.
pub(super) fn forget(question: &str, answer: &str) {
    let mut known = answers();
    if known.get(question).is_some_and(|kept| kept == answer) {
        known.remove(question);
    }
}

/// Whether the person says `yes` in full; `None` without a terminal.
pub(super) fn confirm(question: &str) -> Option<bool> {
    let _one_at_a_time = answers();
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
    write!(terminal, "{question} Type yes to go on: ").ok()?;
    terminal.flush().ok()?;
    let mut line = String::new();
    BufReader::new(terminal).read_line(&mut line).ok()?;
    Some(line.trim() == "yes")
}
