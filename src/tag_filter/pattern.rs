//! Patterns of tags: regular expressions in linear time, and globs, which become regular expressions.

use super::glob;
use crate::error::{Error, Result};
use regex::bytes::{Regex, RegexBuilder};
use std::fmt;
use std::sync::Arc;

/// The maximum length of a pattern.
const MAX_PATTERN_BYTES: usize = 4 << 10;
/// The maximum size of a compiled pattern, and of the states that are cached while it runs.
const MAX_COMPILED_BYTES: usize = 1 << 20;

/// A pattern of tags. Clones share the compiled expression: a clone of a `Regex` has some kilobytes of scratch memory.
#[derive(Clone)]
pub struct TagPattern {
    text: Arc<str>,
    regex: Arc<Regex>,
}

impl TagPattern {
    /// A regular expression that matches a part of the tag, unless it has anchors.
    ///
    /// # Errors
    /// `Usage`: it is not a regular expression, or it is too long or too large.
    pub fn regex(text: &str) -> Result<TagPattern> {
        compile("the regular expression", text, text)
    }

    /// A regular expression that matches the whole tag.
    ///
    /// # Errors
    /// As [`TagPattern::regex`].
    pub fn anchored_regex(text: &str) -> Result<TagPattern> {
        // An expression as `a)|(b` is complete only within the group.
        TagPattern::regex(text)?;
        compile("the regular expression", text, &format!("^(?:{text})$"))
    }

    /// A glob that matches the whole tag: `*`, `?`, `[a-z]`, `[!a-z]`, `{one,two}`; `\` before a literal character.
    ///
    /// # Errors
    /// `Usage`: a bracket or brace is not closed, or the glob is too long.
    pub fn glob(text: &str) -> Result<TagPattern> {
        check_length("the pattern", text)?;
        let regex = glob::to_regex(text).map_err(|problem| Error::usage(format!("the pattern {text}: {problem}")))?;
        compile("the pattern", text, &regex)
    }

    /// The pattern as a regular expression.
    pub fn as_regex(&self) -> &str {
        self.regex.as_str()
    }

    /// Whether `tag` matches.
    pub fn matches(&self, tag: &str) -> bool {
        self.regex.is_match(tag.as_bytes())
    }
}

/// Tags are ASCII, so classes as `\d` and `\w` are ASCII too.
fn compile(subject: &str, text: &str, regex: &str) -> Result<TagPattern> {
    check_length(subject, text)?;
    let mut builder = RegexBuilder::new(regex);
    builder.unicode(false).size_limit(MAX_COMPILED_BYTES).dfa_size_limit(MAX_COMPILED_BYTES).nest_limit(64);
    match builder.build() {
        Ok(regex) => Ok(TagPattern { text: text.into(), regex: Arc::new(regex) }),
        Err(error) => Err(Error::usage(format!("{subject} {text}: {}", reason(&error)))),
    }
}

fn check_length(subject: &str, text: &str) -> Result<()> {
    if text.len() <= MAX_PATTERN_BYTES {
        return Ok(());
    }
    let start: String = text.chars().take(40).collect();
    let length = text.len();
    Err(Error::usage(format!("{subject} {start}… has {length} bytes; at most {MAX_PATTERN_BYTES} are allowed")))
}

/// The reason in one line; the crate draws the expression with a mark below it.
fn reason(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => {
            format!("it is larger than {limit} bytes when it is compiled; write fewer or smaller repetitions")
        }
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            last.trim().trim_start_matches("error: ").to_owned()
        }
    }
}

impl fmt::Display for TagPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for TagPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TagPattern({:?})", self.regex.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn an_anchored_regex_matches_the_whole_tag_or_nothing() {
        let whole = TagPattern::anchored_regex("a|ab").unwrap();
        assert_eq!(["a", "ab", "abc", "xa"].map(|tag| whole.matches(tag)), [true, true, false, false]);
        let part = TagPattern::regex("a|ab").unwrap();
        assert_eq!(["a", "ab", "abc", "x"].map(|tag| part.matches(tag)), [true, true, true, false]);
        assert!(TagPattern::anchored_regex("a)|(b").is_err());
        assert!(!TagPattern::anchored_regex("v1$").unwrap().matches("v1-alpine"));
        assert!(!TagPattern::anchored_regex("(?m)^v1$").unwrap().matches("v1-alpine"));
    }

    #[test]
    fn a_pattern_is_bounded_before_it_runs() {
        for (text, reason) in [
            ("a".repeat(MAX_PATTERN_BYTES + 1), "has 4097 bytes"),
            ("(?:a{1000}){1000}".to_owned(), "larger than 1048576 bytes"),
            ("(".repeat(70) + &")".repeat(70), "nested"),
            ("1.(2".to_owned(), "unclosed group"),
            (r"(a)\1".to_owned(), "backreferences are not supported"),
            ("(?=a)".to_owned(), "look-around"),
        ] {
            let error = TagPattern::regex(&text).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{text}");
            assert!(error.to_string().contains(reason) && !error.to_string().contains('\n'), "{error}");
        }
        assert!(TagPattern::glob(&"*".repeat(MAX_PATTERN_BYTES + 1)).unwrap_err().to_string().contains("bytes"));
    }

    #[test]
    fn a_hostile_expression_runs_in_linear_time() {
        let pattern = TagPattern::regex("^(a+)+$").unwrap();
        let tag = "a".repeat(127) + "b";
        (0..1000).for_each(|_| assert!(!pattern.matches(&tag)));
    }
}
