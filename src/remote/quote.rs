//! Conversion between arguments and command lines: quoting for a remote shell, and splitting a line that the user
//! typed.

use crate::error::{Error, Result};

/// Quotes `words` as one line that a POSIX shell splits into exactly `words` again. csh and fish do so for words
/// without line feeds, backslashes and `!`. ssh sends a command as such a line.
///
/// Fails with `Usage` for a NUL, which an argument cannot contain.
pub fn quote(words: &[&str]) -> Result<String> {
    let mut line = String::new();
    for word in words {
        if word.contains('\0') {
            return Err(Error::usage(
                "an argument contains a NUL character, which cannot be passed to a program; remove it",
            ));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        let harmless = |b: u8| b.is_ascii_alphanumeric() || b"_-./:@%+,".contains(&b);
        if !word.is_empty() && word.bytes().all(harmless) {
            line.push_str(word);
        } else {
            line.push('\'');
            line.push_str(&word.replace('\'', r"'\''"));
            line.push('\'');
        }
    }
    Ok(line)
}

/// Splits a command from an option (`ssh -i "my key"`) at white space. Single quotes, double quotes and backslashes
/// protect characters; nothing is expanded.
pub fn split_words(line: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut open: Option<char> = None;
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match (open, c) {
            (Some(quote), c) if c == quote => open = None,
            (Some('"') | None, '\\') => {
                let next = rest.next().ok_or_else(|| Error::usage(format!("{line:?} ends in a backslash")))?;
                word.get_or_insert_default().push(next);
            }
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                open = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    if open.is_some() {
        return Err(Error::usage(format!("{line:?} has an unclosed quote")));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_gives_back_every_character_there_is() {
        let all: String = (1..=0x2ff).filter_map(char::from_u32).chain(['\u{2028}', '\u{10ffff}']).collect();
        let words = ["", "a b", "'", "''\\'", "$(id)`id`", "-n", "*", "~", "a\nb\n", "!x", "x=y", &all];
        let line = format!("printf '%s\\0' {}", quote(&words).unwrap());
        let out = std::process::Command::new("sh").arg("-c").arg(line).output().unwrap();
        let back: Vec<&str> = std::str::from_utf8(&out.stdout).unwrap().split_terminator('\0').collect();
        assert_eq!(back, words);
    }

    #[test]
    fn a_nul_is_refused() {
        assert!(quote(&["a\0b"]).is_err());
    }

    #[test]
    fn a_typed_command_is_split_as_people_expect() {
        for (line, words) in [
            ("ssh", vec!["ssh"]),
            ("  ssh  -p 22 ", vec!["ssh", "-p", "22"]),
            ("ssh -i 'my key' -o \"A b\"", vec!["ssh", "-i", "my key", "-o", "A b"]),
            (r"a\ b '\' '' $HOME", vec!["a b", r"\", "", "$HOME"]),
        ] {
            assert_eq!(split_words(line).unwrap(), words, "{line}");
        }
        assert!(split_words("ssh 'x").is_err());
        assert!(split_words("ssh \\").is_err());
    }
}
