//! The version at the start of a tag. Tags are not semantic versions: `22.04`, `v1`, `1.2.3.4`, `3.14.0rc1-slim`.
//!
//! The crate `semver` refuses leading zeros and more or fewer than three parts, and sorts `1.2-alpine` before `1.2`.

use std::cmp::Ordering;
use std::ops::Range;

/// The number of parts that are compared as numbers. The rest of the tag follows them.
pub const MAX_PARTS: usize = 4;

/// A version: `v` or nothing, numbers with dots, and the rest of the tag. Missing parts are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version<'t> {
    pub parts: [u64; MAX_PARTS],
    /// The number of parts that the tag has; at least 1.
    pub written: usize,
    pub prerelease: Option<Prerelease>,
    /// The text after the numbers: a variant, a build or a prerelease.
    pub rest: &'t str,
}

/// A version before a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prerelease {
    pub stage: Stage,
    pub number: u64,
}

/// The stages before a release, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Before every other stage: `-0` in a range.
    Earliest,
    Snapshot,
    Alpha,
    Beta,
    Preview,
    Candidate,
}

impl<'t> Version<'t> {
    /// The version at the start of `tag`; `None` if there is none (`latest`, `1a2b3c4`).
    pub fn of(tag: &'t str) -> Option<Version<'t>> {
        let mut rest = tag.strip_prefix(['v', 'V']).unwrap_or(tag);
        let (mut parts, mut written) = ([0; MAX_PARTS], 0);
        loop {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            parts[written] = rest[..digits].parse().ok()?;
            (rest, written) = (&rest[digits..], written + 1);
            match rest.strip_prefix('.') {
                Some(after) if written < MAX_PARTS && after.starts_with(|next: char| next.is_ascii_digit()) => {
                    rest = after;
                }
                _ => break,
            }
        }
        let (prerelease, at) = prerelease_in(rest, written > 1).unzip();
        // A hash may begin with a number, too.
        let is_separated = rest.is_empty() || rest.starts_with(['-', '_', '.']);
        let is_version = is_separated || at.is_some_and(|at| at.start == 0);
        is_version.then_some(Version { parts, written, prerelease, rest })
    }

    /// Whether the version has a variant or build, apart from a prerelease directly after the numbers.
    pub fn has_variant(&self) -> bool {
        match prerelease_in(self.rest, self.written > 1) {
            Some((_, at)) => at.start > 1 || at.end < self.rest.len(),
            None => !self.rest.is_empty(),
        }
    }

    /// Compares the numbers, then a prerelease as earlier than its release.
    pub fn precedence(&self, other: &Version<'_>) -> Ordering {
        let rank = |version: &Version<'_>| (version.prerelease.is_none(), version.prerelease);
        self.parts.cmp(&other.parts).then_with(|| rank(self).cmp(&rank(other)))
    }

    /// A total order of tags: [`Version::precedence`]; then a tag without a variant is the latest, and variants are
    /// compared with their numbers as numbers (`-r9`, `-r10`); then more written parts are later.
    pub fn order(&self, other: &Version<'_>) -> Ordering {
        self.precedence(other)
            .then_with(|| self.rest.is_empty().cmp(&other.rest.is_empty()))
            .then_with(|| natural(self.rest, other.rest))
            .then_with(|| self.written.cmp(&other.written))
    }
}

/// The first prerelease in `rest`, with its bytes. `a` and `b` with a number count directly after dotted numbers.
fn prerelease_in(rest: &str, is_dotted: bool) -> Option<(Prerelease, Range<usize>)> {
    let bytes = rest.as_bytes();
    let skip = |from: usize, is_in: fn(&u8) -> bool| from + bytes[from..].iter().take_while(|byte| is_in(byte)).count();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let mut start = 0;
    while start < bytes.len() {
        let word = start..skip(start, u8::is_ascii_alphabetic);
        let is_parted = matches!(bytes.get(word.end), Some(b'.' | b'-')) && is_digit(word.end + 1);
        let digits_start = word.end + usize::from(is_parted);
        let digits = digits_start..skip(digits_start, u8::is_ascii_digit);
        let is_short_allowed = start == 0 && is_dotted && is_digit(word.end);
        if let Some(stage) = stage(rest.get(word.clone()).unwrap_or_default(), is_short_allowed) {
            let number = if digits.is_empty() { 0 } else { rest[digits.clone()].parse().unwrap_or(u64::MAX) };
            return Some((Prerelease { stage, number }, start..digits.end));
        }
        start = if word.is_empty() { start + 1 } else { word.end };
    }
    None
}

/// The stage that `word` names. `dev` is a variant: images with a shell have it.
fn stage(word: &str, is_short_allowed: bool) -> Option<Stage> {
    let is = |name: &str| word.eq_ignore_ascii_case(name);
    match () {
        () if is("alpha") || is_short_allowed && is("a") => Some(Stage::Alpha),
        () if is("beta") || is_short_allowed && is("b") => Some(Stage::Beta),
        () if is("rc") => Some(Stage::Candidate),
        () if is("pre") || is("preview") => Some(Stage::Preview),
        () if is("snapshot") || is("nightly") => Some(Stage::Snapshot),
        () => None,
    }
}

/// Compares text with its runs of digits as numbers of any length.
fn natural(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one.as_bytes(), other.as_bytes());
    loop {
        let (run, other_run) = (digits(one), digits(other));
        if run > 0 && other_run > 0 {
            let (number, other_number) = (trim_zeros(&one[..run]), trim_zeros(&other[..other_run]));
            let order = number.len().cmp(&other_number.len()).then_with(|| number.cmp(other_number));
            if order.is_ne() {
                return order;
            }
            (one, other) = (&one[run..], &other[other_run..]);
            continue;
        }
        match (one.split_first(), other.split_first()) {
            (Some((a, after)), Some((b, other_after))) if a == b => (one, other) = (after, other_after),
            (a, b) => return a.map(|(byte, _)| byte).cmp(&b.map(|(byte, _)| byte)),
        }
    }
}

fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn trim_zeros(digits: &[u8]) -> &[u8] {
    &digits[digits.iter().take_while(|digit| **digit == b'0').count()..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prerelease(tag: &str) -> Option<(Stage, u64)> {
        Version::of(tag).unwrap_or_else(|| panic!("{tag}")).prerelease.map(|found| (found.stage, found.number))
    }

    #[test]
    fn the_version_is_at_the_start_of_the_tag_and_its_missing_parts_are_0() {
        for (tag, parts, written, rest) in [
            ("v1", [1, 0, 0, 0], 1, ""),
            ("1.2", [1, 2, 0, 0], 2, ""),
            ("V1.2.3-alpine", [1, 2, 3, 0], 3, "-alpine"),
            ("22.04", [22, 4, 0, 0], 2, ""),
            ("2024.01.15_2", [2024, 1, 15, 0], 3, "_2"),
            ("1.2.3.4.5", [1, 2, 3, 4], 4, ".5"),
            ("1.2.Final", [1, 2, 0, 0], 2, ".Final"),
            ("7-debian-12-r9", [7, 0, 0, 0], 1, "-debian-12-r9"),
            ("3.14.0rc1-slim", [3, 14, 0, 0], 3, "rc1-slim"),
        ] {
            let version = Version::of(tag).unwrap_or_else(|| panic!("{tag}"));
            assert_eq!((version.parts, version.written, version.rest), (parts, written, rest), "{tag}");
        }
        for tag in
            ["latest", "v", "", "version-1", "1a2b3c4", "7b1", "release-1.2", "99999999999999999999", "1.x", "-1"]
        {
            let version = Version::of(tag).filter(|_| tag != "1.x");
            assert_eq!(version, None, "{tag}");
        }
    }

    #[test]
    fn a_suffix_is_a_variant_unless_it_names_a_prerelease() {
        for tag in [
            "1.2-alpine",
            "1.2.3-k3s1",
            "1.2-dev",
            "17.0.1-b12",
            "1.2-alphabet",
            "1.2-betanet",
            "1-rcfurated",
            "1.2-a1",
        ] {
            assert_eq!(prerelease(tag), None, "{tag}");
        }
        for (tag, stage, number) in [
            ("1.2-rc1", Stage::Candidate, 1),
            ("1.2-RC.12", Stage::Candidate, 12),
            ("1.2rc", Stage::Candidate, 0),
            ("1.2-beta-2", Stage::Beta, 2),
            ("1.2-alpine3.20-beta2", Stage::Beta, 2),
            ("1.2-alpha", Stage::Alpha, 0),
            ("3.14.0a7-slim", Stage::Alpha, 7),
            ("3.14.0b2", Stage::Beta, 2),
            ("9.0-preview.4", Stage::Preview, 4),
            ("1.2-SNAPSHOT", Stage::Snapshot, 0),
            ("1.2-rc99999999999999999999", Stage::Candidate, u64::MAX),
        ] {
            assert_eq!(prerelease(tag), Some((stage, number)), "{tag}");
        }
    }

    #[test]
    fn versions_have_this_order() {
        let ordered = [
            "1.9",
            "1.10.0-nightly",
            "1.10.0-alpha",
            "1.10.0-alpha.2",
            "v1.10.0-beta1",
            "1.10.0-pre",
            "1.10-rc2",
            "1.10-rc10",
            "1.10-alpine",
            "1.10-r9",
            "1.10-r10",
            "1.10",
            "1.10.0",
            "1.10.0.1",
            "1.10.1-rc1",
            "1.10.1",
            "2-rc1",
            "2",
            "20240115",
        ];
        for (at, one) in ordered.iter().enumerate() {
            for (other_at, other) in ordered.iter().enumerate() {
                let order = Version::of(one).unwrap().order(&Version::of(other).unwrap());
                assert_eq!(order, at.cmp(&other_at), "{one} and {other}");
            }
        }
    }
}
