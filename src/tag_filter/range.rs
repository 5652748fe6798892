//! Ranges of versions: `>=1.31 <1.32`, `^1.2`, `~1.4`, `1.x`, `1.2 - 1.4`, with `||` for one or the other.
//!
//! A comparator compares the parts that it writes, so `<=1.2` includes `1.2.9`, and `1.2` is every `1.2.Z`. A prerelease
//! is compared as its release is (`<1.32` does not include `1.32-rc1`), unless the comparator names a prerelease.

use super::version::{Prerelease, Stage, Version};
use crate::error::{Error, Result};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// The maximum length of a range.
const MAX_RANGE_BYTES: usize = 1 << 10;

/// A range of versions. Clones share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRange {
    text: Arc<str>,
    /// One of them must contain the version: all its comparators hold.
    alternatives: Arc<[Vec<Comparator>]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Comparator {
    operator: Operator,
    /// The parts as written; none for `*`.
    parts: Vec<u64>,
    prerelease: Option<Prerelease>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
    /// `~`: no other minor version.
    Tilde,
    /// `^`: the first part that is not 0 stays.
    Caret,
}

/// The longer spelling of two operators is first.
const OPERATORS: &[(&str, Operator)] = &[
    (">=", Operator::AtLeast),
    ("=>", Operator::AtLeast),
    ("<=", Operator::AtMost),
    ("=<", Operator::AtMost),
    ("!=", Operator::NotEqual),
    ("==", Operator::Equal),
    ("~>", Operator::Tilde),
    (">", Operator::Greater),
    ("<", Operator::Less),
    ("=", Operator::Equal),
    ("~", Operator::Tilde),
    ("^", Operator::Caret),
];

impl VersionRange {
    /// Parses a range. Blanks or commas separate comparators that must all hold.
    ///
    /// # Errors
    /// `Usage`: it is not a range, or it is too long.
    pub fn parse(text: &str) -> Result<VersionRange> {
        if text.len() > MAX_RANGE_BYTES {
            let length = text.len();
            return Err(Error::usage(format!(
                "the version range has {length} bytes; at most {MAX_RANGE_BYTES} are allowed"
            )));
        }
        let alternatives = text.split("||").map(comparators).collect::<Result<_, String>>();
        match alternatives {
            Ok(alternatives) => Ok(VersionRange { text: text.into(), alternatives }),
            Err(problem) => Err(Error::usage(format!(
                "the version range {text}: {problem}; write it as >=1.31 <1.32, ^1.2, ~1.4 or 1.x"
            ))),
        }
    }

    /// Whether `version` is in the range. A prerelease is, if `prerelease` is set or the range names one.
    pub(super) fn contains(&self, version: &Version<'_>, prerelease: bool) -> bool {
        self.alternatives.iter().any(|comparators| {
            let is_accepted =
                version.prerelease.is_none() || prerelease || comparators.iter().any(Comparator::accepts_prereleases);
            is_accepted && comparators.iter().all(|comparator| comparator.holds(version))
        })
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Comparator {
    /// Whether the comparator begins with a prerelease. An upper bound with one only ends the range earlier.
    fn accepts_prereleases(&self) -> bool {
        let is_upper = matches!(self.operator, Operator::Less | Operator::AtMost | Operator::NotEqual);
        self.prerelease.is_some() && !is_upper
    }

    fn holds(&self, version: &Version<'_>) -> bool {
        let order = self.compare(version);
        match self.operator {
            Operator::Equal => order.is_eq(),
            Operator::NotEqual => order.is_ne(),
            Operator::Less => order.is_lt(),
            Operator::AtMost => order.is_le(),
            Operator::Greater => order.is_gt(),
            Operator::AtLeast => order.is_ge(),
            Operator::Tilde => order.is_ge() && self.has_same_start(version, self.parts.len().min(2)),
            Operator::Caret => {
                let zeros = self.parts.iter().take_while(|part| **part == 0).count();
                order.is_ge() && self.has_same_start(version, (zeros + 1).min(self.parts.len()))
            }
        }
    }

    /// The order of `version` and this comparator's, by the parts that the comparator writes.
    fn compare(&self, version: &Version<'_>) -> Ordering {
        let order = version.parts[..self.parts.len()].cmp(&self.parts[..]);
        match self.prerelease {
            None => order,
            Some(prerelease) => {
                // With a prerelease the parts that are not written are 0.
                let rest = version.parts[self.parts.len()..].iter().any(|part| *part > 0);
                let rest = if rest { Ordering::Greater } else { Ordering::Equal };
                let own = version.prerelease.map_or(Ordering::Greater, |own| own.cmp(&prerelease));
                order.then(rest).then(own)
            }
        }
    }

    fn has_same_start(&self, version: &Version<'_>, count: usize) -> bool {
        version.parts[..count] == self.parts[..count]
    }
}

/// The comparators of `text`, which has no `||`.
fn comparators(text: &str) -> Result<Vec<Comparator>, String> {
    let words: Vec<&str> = text.split([' ', '\t', ',']).filter(|word| !word.is_empty()).collect();
    if words.is_empty() {
        return Err("it is empty".to_owned());
    }
    let (mut found, mut operator) = (Vec::new(), None);
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        let (stated, version) = split_operator(word);
        match (operator.take(), stated, version) {
            (Some(_), Some(_), _) => return Err(format!("{word} follows an operator")),
            (None, Some(stated), "") => operator = Some(stated),
            (None, None, "-") => return Err("a version must stand before -".to_owned()),
            (before, stated, version) => {
                let operator = before.or(stated);
                if operator.is_none() && words.next_if_eq(&"-").is_some() {
                    let end = words.next().ok_or("a version must follow -")?;
                    found.push(comparator(Operator::AtLeast, version)?);
                    found.push(comparator(Operator::AtMost, end)?);
                } else {
                    found.push(comparator(operator.unwrap_or(Operator::Equal), version)?);
                }
            }
        }
    }
    match operator {
        Some(_) => Err("a version must follow the last operator".to_owned()),
        None => Ok(found),
    }
}

/// The operator at the start of `word`, and the rest.
fn split_operator(word: &str) -> (Option<Operator>, &str) {
    let found = OPERATORS.iter().find_map(|(spelling, operator)| Some((*operator, word.strip_prefix(spelling)?)));
    found.map_or((None, word), |(operator, version)| (Some(operator), version))
}

/// The comparator of `operator` and `text`, a version whose last parts may be `x` or `*`.
fn comparator(operator: Operator, text: &str) -> Result<Comparator, String> {
    let is_wild = |part: &str| matches!(part, "x" | "X" | "*");
    let mut known = text;
    while let Some((start, _)) = known.rsplit_once('.').filter(|(_, last)| is_wild(last)) {
        known = start;
    }
    if is_wild(known.trim_start_matches(['v', 'V'])) {
        return match operator {
            Operator::Less | Operator::Greater | Operator::NotEqual => {
                Err(format!("{text} with this operator is never true"))
            }
            _ => Ok(Comparator { operator, parts: Vec::new(), prerelease: None }),
        };
    }
    let (numbers, earliest) = known
        .strip_suffix("-0")
        .map_or((known, None), |numbers| (numbers, Some(Prerelease { stage: Stage::Earliest, number: 0 })));
    let version = Version::of(numbers).ok_or_else(|| format!("{text} is not a version"))?;
    let prerelease = earliest.or(version.prerelease);
    if version.has_variant() {
        return Err(format!("{text} has a suffix that is not a prerelease"));
    }
    Ok(Comparator { operator, parts: version.parts[..version.written].to_vec(), prerelease })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn contains(range: &str, tag: &str, prerelease: bool) -> bool {
        let version = Version::of(tag).unwrap_or_else(|| panic!("{tag}"));
        VersionRange::parse(range).unwrap_or_else(|error| panic!("{error}")).contains(&version, prerelease)
    }

    #[test]
    fn a_range_contains_the_versions_that_its_comparators_allow() {
        for (range, inside, outside) in [
            (">=1.31 <1.32", &["1.31", "v1.31.9-alpine", "1.31.0.1"][..], &["1.30.9", "1.32", "1.32.0", "2"][..]),
            (">= 1.31, < 1.32", &["1.31"], &["1.32"]),
            (">1.31", &["1.32"], &["1.31", "1.31.9"]),
            ("<=1.2", &["1.2.9", "1.1"], &["1.3"]),
            ("1.2", &["1.2", "1.2.9-slim"], &["1.3", "1.20"]),
            ("=v1.2.3", &["1.2.3", "1.2.3.4"], &["1.2.4", "1.2"]),
            ("!=1.2.3 1.2", &["1.2.4"], &["1.2.3", "1.2.3-alpine"]),
            ("1.x", &["1", "1.9.9"], &["2", "0.9"]),
            ("1.2.*", &["1.2.9"], &["1.3"]),
            ("*", &["0", "99.1"], &[]),
            ("^1.2", &["1.2", "1.9.9"], &["1.1", "2.0"]),
            ("^0.2.3", &["0.2.3", "0.2.9"], &["0.3", "0.2.2"]),
            ("^0.0.3", &["0.0.3"], &["0.0.4"]),
            ("^0", &["0.9"], &["1"]),
            ("~1.4", &["1.4.9"], &["1.5", "1.3"]),
            ("~1.4.2", &["1.4.2", "1.4.9"], &["1.4.1", "1.5"]),
            ("~1", &["1.9"], &["2"]),
            ("1.2 - 1.4", &["1.2", "1.4.9"], &["1.1", "1.5"]),
            ("<1 || >=2 <3", &["0.9", "2.5"], &["1.5", "3"]),
            (">=3.22", &["3.22-rfcurated"], &["3.21"]),
        ] {
            inside.iter().for_each(|tag| assert!(contains(range, tag, false), "{range} {tag}"));
            outside.iter().for_each(|tag| assert!(!contains(range, tag, false), "{range} {tag}"));
        }
    }

    #[test]
    fn a_prerelease_belongs_to_the_range_of_its_release() {
        for (range, tag, by_default, with_prereleases) in [
            (">=1.31 <1.32", "1.31.0-rc1", false, true),
            (">=1.31 <1.32", "1.32.0-rc1", false, false),
            (">1.31", "1.31.0-rc1", false, false),
            (">=1.31-0", "1.31.0-alpha", true, true),
            (">=1.31-rc.2", "1.31.0-rc1", false, false),
            (">=1.31-rc.2", "1.31.0-rc10", true, true),
            (">=1.31-rc.2", "1.31", true, true),
            (">=1.30 <1.32-0", "1.31-rc1", false, true),
            (">=1.30 <=1.32-0", "1.32-rc1", false, false),
        ] {
            let found = (contains(range, tag, false), contains(range, tag, true));
            assert_eq!(found, (by_default, with_prereleases), "{range} {tag}");
        }
    }

    #[test]
    fn a_wrong_range_is_an_error_that_names_it() {
        let long = ">=1 ".repeat(300);
        for range in [
            "",
            " ",
            "latest",
            ">=",
            ">= >1",
            "1.2 -",
            "- 1.2",
            "1.2-alpine",
            "1.2-rc1-slim",
            "||",
            "1 ||",
            "<*",
            "1..2",
            &long,
        ] {
            let error = VersionRange::parse(range).expect_err(range);
            assert_eq!(error.kind(), Kind::Usage, "{range}");
            assert!(error.to_string().starts_with("the version range "), "{error}");
        }
    }
}
