//! `{1..50}` and `{x,y}` in destinations: expanded as in bash, where the shell has not done it.

use crate::{Error, Result};

/// The most destinations of one run.
pub const MAX_EXPANDED_WORDS: usize = 10_000;

/// Expands the braces in `word`; a word without braces stays as it is.
///
/// Fails with `Usage` for invalid braces (not closed, nested) and for more than [`MAX_EXPANDED_WORDS`] words.
pub fn expand(word: &str) -> Result<Vec<String>> {
    let Some((before, rest)) = word.split_once('{') else { return Ok(vec![word.to_owned()]) };
    let wrong = |why: &str| Error::usage(format!("{word:?}: {why}"));
    let (inside, behind) = rest.split_once('}').ok_or_else(|| wrong("{ is not closed; add }"))?;
    if inside.contains('{') {
        return Err(wrong("nested braces are not expanded; write one pair after another"));
    }
    let parts = match (range(inside), inside.contains(',')) {
        (Some(range), _) => range.map_err(|too_many| wrong(&too_many))?,
        (None, true) => inside.split(',').map(str::to_owned).collect(),
        (None, false) => return Err(wrong("expected {1..50} or {x,y,z}")),
    };
    let behind = expand(behind)?;
    if parts.len().saturating_mul(behind.len()) > MAX_EXPANDED_WORDS {
        return Err(wrong(&format!("more than {MAX_EXPANDED_WORDS} destinations")));
    }
    let with = |part: &String| behind.iter().map(move |rest| format!("{before}{part}{rest}")).collect::<Vec<_>>();
    Ok(parts.iter().flat_map(with).collect())
}

/// Expands `1..50`, `01..50` (padded to the wider bound) and `c..a`, each with an optional `..STEP`.
fn range(text: &str) -> Option<Result<Vec<String>, String>> {
    let mut parts = text.split("..");
    let (from, to, step) = (parts.next()?, parts.next()?, parts.next());
    let step = step.map_or(Some(1), |step| step.parse::<i64>().ok())?.unsigned_abs().max(1);
    if parts.next().is_some() {
        return None;
    }
    if let (Ok(first), Ok(last)) = (from.parse::<i64>(), to.parse::<i64>()) {
        let padded = |text: &str| text.trim_start_matches('-').starts_with('0') && text.len() > 1;
        let width = if padded(from) || padded(to) { from.len().max(to.len()) } else { 0 };
        return Some(steps(first, last, step).map(|all| all.map(|n| format!("{n:0width$}")).collect()));
    }
    let letter = |text: &str| match text.as_bytes() {
        [letter] if letter.is_ascii_alphabetic() => Some(i64::from(*letter)),
        _ => None,
    };
    let (first, last) = (letter(from)?, letter(to)?);
    let shown = |n: i64| char::from(u8::try_from(n).unwrap_or(b'?')).to_string();
    Some(steps(first, last, step).map(|all| all.map(shown).collect()))
}

fn steps(first: i64, last: i64, step: u64) -> Result<impl Iterator<Item = i64>, String> {
    let count = first.abs_diff(last) / step;
    if count >= MAX_EXPANDED_WORDS as u64 {
        return Err(format!("more than {MAX_EXPANDED_WORDS} destinations"));
    }
    let step = i64::try_from(step).unwrap_or(i64::MAX);
    let sign = if first <= last { 1 } else { -1 };
    Ok((0..=count as i64).map(move |nth| first + sign * nth * step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_expand_as_in_a_shell() {
        for (word, expected) in [
            ("node1", &["node1"][..]),
            ("ssh://node{1..3}", &["ssh://node1", "ssh://node2", "ssh://node3"]),
            ("n{08..11}:", &["n08:", "n09:", "n10:", "n11:"]),
            ("n{3..1}", &["n3", "n2", "n1"]),
            ("n{1..9..4}", &["n1", "n5", "n9"]),
            ("{a,b}{1..2}", &["a1", "a2", "b1", "b2"]),
            ("db{,-old}", &["db", "db-old"]),
            ("rack{c..a}", &["rackc", "rackb", "racka"]),
        ] {
            assert_eq!(expand(word).unwrap(), expected, "{word}");
        }
    }

    #[test]
    fn invalid_braces_and_ranges_are_refused() {
        for word in
            ["n{1..", "n{1}", "n{1..x}", "{a,{b,c}}", "n{1..10001}", "{1..200}{1..200}", "{-9223372036854775808..1}"]
        {
            assert_eq!(expand(word).unwrap_err().kind(), crate::Kind::Usage, "{word}");
        }
        assert_eq!(expand("n{1..10000}").unwrap().len(), MAX_EXPANDED_WORDS);
    }
}
