//! Plain lists and pairs: one `SRC`, `SRC DST` or `SRC=DST` a line.
//!
//! Blank lines are skipped, and `#` at the start of a word begins a comment. A document may mix lines with and without
//! DST; it counts as pairs as soon as one line has a DST. `--platform=OS/ARCH` may stand before SRC, as some lists have it.

use super::builder::SetBuilder;
use super::word::split_pattern;
use super::{Entry, Format, ImageSet};
use crate::error::{Error, Result};
use crate::image::Platform;
use crate::message::{printable, shortened};

const PLATFORM_OPTION: &str = "--platform=";

/// Reads a list line by line.
///
/// # Errors
/// `Invalid`, with the line: it is not an image or a pair of images, or a limit is exceeded.
pub(super) fn read(text: &str, mut set: SetBuilder<'_>) -> Result<ImageSet> {
    let mut format = Format::List;
    for (number, line) in text.lines().enumerate() {
        let place = format!("line {}", number + 1);
        let Some(line) = Line::parse(line).map_err(|problem| Error::invalid(format!("{place}: {problem}")))? else {
            continue;
        };
        if line.to.is_some() {
            format = Format::Pairs;
        }
        let (from, tags) = set.selected(line.from).map_err(|error| error.at(&place))?;
        let to = line.to.map(Into::into).into_iter().collect();
        let platforms = line.platform.into_iter().collect();
        set.add(Entry { tags, to, platforms, ..Entry::named(&place, from) })?;
    }
    set.finish(format)
}

/// The words of one line.
#[derive(Debug, PartialEq)]
struct Line<'t> {
    platform: Option<Platform>,
    from: &'t str,
    to: Option<&'t str>,
}

impl<'t> Line<'t> {
    /// `None` for a blank line or a comment. The error is the end of a message that begins with the place.
    fn parse(line: &'t str) -> Result<Option<Line<'t>>, String> {
        let mut words = line.split_ascii_whitespace().take_while(|word| !word.starts_with('#')).peekable();
        let platform = match words.next_if(|word| word.starts_with(PLATFORM_OPTION)) {
            Some(option) => Some(option[PLATFORM_OPTION.len()..].parse().map_err(|e: Error| e.to_string())?),
            None => None,
        };
        let (from, to) = match (words.next(), words.next(), words.count()) {
            (None, ..) if platform.is_none() => return Ok(None),
            (None, ..) => return Err("--platform without an image; write the image after it".to_owned()),
            (Some(word), None, _) => split_pair(word),
            (Some(from), Some(to), 0) => (from, Some(to)),
            (_, _, more) => return Err(format!("{} words, expected SRC or SRC DST", more + 2)),
        };
        for word in [Some(from), to].into_iter().flatten() {
            check(word)?;
        }
        Ok(Some(Line { platform, from, to }))
    }
}

/// Splits `SRC=DST`. A pattern has no `=`, so the first one divides the word.
fn split_pair(word: &str) -> (&str, Option<&str>) {
    match word.split_once('=') {
        Some((from, to)) if split_pattern(word).is_none() => (from, Some(to)),
        _ => (word, None),
    }
}

fn check(word: &str) -> Result<(), String> {
    let shown = || printable(&shortened(word));
    if word.is_empty() {
        Err("SRC or DST is missing at the =; write SRC=DST".to_owned())
    } else if word.starts_with('-') && word != "-" {
        Err(format!("{} is an option; a list has images only, and --platform=OS/ARCH before one", shown()))
    } else if !word.bytes().all(|byte| byte.is_ascii_graphic()) && is_hidden(word) {
        Err(format!("{:?} has control characters or blanks that are not ASCII; retype it", shown()))
    } else if word.ends_with([':', ',', '"', '{', '[']) && !word.contains("://") {
        Err(format!("{} is not an image; the document begins as a list, so write SRC or SRC DST", shown()))
    } else {
        Ok(())
    }
}

fn is_hidden(word: &str) -> bool {
    word.contains(char::is_whitespace) || printable(word) != word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_image_or_a_pair() {
        let line = |from, to| Some(Line { platform: None, from, to });
        for (text, expected) in [
            ("", None),
            (" \t", None),
            ("# alpine", None),
            ("alpine", line("alpine", None)),
            ("  alpine:3  # the base", line("alpine:3", None)),
            ("alpine registry.lan/alpine", line("alpine", Some("registry.lan/alpine"))),
            ("alpine\toci:./a#b", line("alpine", Some("oci:./a#b"))),
            ("alpine=registry.lan/alpine=1", line("alpine", Some("registry.lan/alpine=1"))),
            ("a/b:/^1/=c/d/", line("a/b:/^1/", Some("c/d/"))),
            ("a/b:/(a=b)/", line("a/b:/(a=b)/", None)),
            ("alpine ssh://node1:", line("alpine", Some("ssh://node1:"))),
        ] {
            assert_eq!(Line::parse(text).unwrap(), expected, "{text}");
        }
        let arm = Line::parse("--platform=linux/arm64 alpine").unwrap().unwrap();
        assert_eq!((arm.platform, arm.from), (Some("linux/arm64".parse().unwrap()), "alpine"));
    }

    #[test]
    fn a_line_that_is_neither_is_refused() {
        for text in [
            "a b c",
            "=b",
            "a=",
            "--all",
            "-v alpine",
            "--platform=linux/arm64",
            "--platform=x/y/z/w a",
            "a\u{a0}b",
            "a\0",
            "a\x1b[2J",
            "sync:",
            "\u{feff}a",
        ] {
            assert!(Line::parse(text).is_err(), "{text:?}");
        }
    }
}
