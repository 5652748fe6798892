//! The translation of globs into anchored regular expressions.

/// The regular expression of `glob`, or the problem.
pub fn to_regex(glob: &str) -> Result<String, &'static str> {
    let mut regex = String::from("^(?:");
    let mut characters = glob.chars();
    let mut is_in_braces = false;
    while let Some(character) = characters.next() {
        match character {
            '*' => regex.push_str(".*"),
            '?' => regex.push('.'),
            '[' => class(&mut characters, &mut regex)?,
            '{' if is_in_braces => return Err("braces within braces are not supported; write the words side by side"),
            '{' => {
                is_in_braces = true;
                regex.push_str("(?:");
            }
            '}' if is_in_braces => {
                is_in_braces = false;
                regex.push(')');
            }
            ',' if is_in_braces => regex.push('|'),
            '\\' => literal(characters.next().ok_or("a character must follow the last \\")?, &mut regex),
            other => literal(other, &mut regex),
        }
    }
    match is_in_braces {
        true => Err("a brace is not closed; write } after the last word"),
        false => Ok(regex + ")$"),
    }
}

/// Translates the rest of a class, after `[`.
fn class(characters: &mut std::str::Chars<'_>, regex: &mut String) -> Result<(), &'static str> {
    const UNCLOSED: &str = "a bracket is not closed; write ] after the last character";
    regex.push('[');
    let mut is_first = true;
    let mut next = characters.next().ok_or(UNCLOSED)?;
    if matches!(next, '!' | '^') {
        regex.push('^');
        next = characters.next().ok_or(UNCLOSED)?;
    }
    loop {
        match next {
            ']' if !is_first => break,
            '-' => regex.push('-'),
            '\\' => literal(characters.next().ok_or(UNCLOSED)?, regex),
            other => literal(other, regex),
        }
        is_first = false;
        next = characters.next().ok_or(UNCLOSED)?;
    }
    regex.push(']');
    Ok(())
}

/// Appends `character` so that it stands for itself, also in a class.
fn literal(character: char, regex: &mut String) {
    if character.is_ascii_punctuation() && character != '_' {
        regex.push('\\');
    }
    regex.push(character);
}

#[cfg(test)]
mod tests {
    use crate::tag_filter::TagPattern;

    #[test]
    fn a_glob_matches_the_whole_tag() {
        for (glob, matching, others) in [
            ("1.*", &["1.", "1.2", "1.2-alpine"][..], &["1", "12", "v1.2"][..]),
            ("v?.0", &["v1.0"], &["v10.0", "v.0"]),
            ("1.[0-2]", &["1.0", "1.2"], &["1.3", "1.-", "1.10"]),
            ("1.[!0-2]", &["1.3", "1.x"], &["1.0"]),
            ("*-{alpine,slim}", &["1-alpine", "-slim"], &["1", "1-alpine3"]),
            ("[]a]", &["]", "a"], &["b"]),
            (r"1\*", &["1*"], &["12"]),
            ("", &[""], &["a"]),
        ] {
            let pattern = TagPattern::glob(glob).unwrap();
            matching.iter().for_each(|tag| assert!(pattern.matches(tag), "{glob} {tag}"));
            others.iter().for_each(|tag| assert!(!pattern.matches(tag), "{glob} {tag}"));
        }
        for (wrong, problem) in
            [("[a", "bracket"), ("{a", "brace"), ("{a{b}}", "braces within"), ("a\\", "character"), ("[z-a]", "range")]
        {
            let error = TagPattern::glob(wrong).unwrap_err().to_string();
            assert!(error.contains(problem), "{wrong}: {error}");
        }
    }
}
