//! `--delete-max`: the part of a repository that one run may delete.

use crate::error::Error;
use std::fmt;
use std::str::FromStr;

/// The maximum number of tags that are deleted in one repository. One tag is always allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeletionLimit {
    /// 1 to 100 percent of the tags of the repository, rounded down.
    Percent(u8),
    /// A number of tags, at least 1.
    Count(usize),
}

impl DeletionLimit {
    /// The number of tags that may be deleted of `tags`.
    pub fn allowed(self, tags: usize) -> usize {
        let allowed = match self {
            DeletionLimit::Percent(percent) => tags as u128 * u128::from(percent.min(100)) / 100,
            DeletionLimit::Count(count) => count as u128,
        };
        usize::try_from(allowed).unwrap_or(usize::MAX).max(1)
    }
}

impl FromStr for DeletionLimit {
    type Err = Error;

    /// Parses `10%` or `10`.
    ///
    /// # Errors
    /// `Usage`: it is 0, more than 100%, or not a number.
    fn from_str(text: &str) -> Result<DeletionLimit, Error> {
        let wrong = || {
            Error::usage(format!("{text} is not a maximum of deletions; write a percentage as 10%, or a number from 1"))
        };
        let number = text.strip_suffix('%').unwrap_or(text);
        let number: usize = number.parse().map_err(|_| wrong())?;
        match (text.ends_with('%'), u8::try_from(number)) {
            (true, Ok(percent @ 1..=100)) => Ok(DeletionLimit::Percent(percent)),
            (false, _) if number > 0 => Ok(DeletionLimit::Count(number)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for DeletionLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeletionLimit::Percent(percent) => write!(f, "{percent}%"),
            DeletionLimit::Count(count) => write!(f, "{count}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tag_is_always_allowed_and_a_percentage_is_rounded_down() {
        for (limit, tags, allowed) in
            [("10%", 0, 1), ("10%", 9, 1), ("10%", 19, 1), ("10%", 20, 2), ("100%", 7, 7), ("3", 2, 3), ("1", 50, 1)]
        {
            let parsed: DeletionLimit = limit.parse().unwrap();
            assert_eq!((parsed.allowed(tags), parsed.to_string()), (allowed, limit.to_owned()), "{limit} of {tags}");
        }
        for wrong in ["0", "0%", "101%", "256%", "-1", "10.5%", "%", "", "ten", "10 %", "99999999999999999999999"] {
            assert!(wrong.parse::<DeletionLimit>().is_err(), "{wrong}");
        }
    }
}
