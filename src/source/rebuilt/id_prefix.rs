//! An image ID or its start, as users of docker and podman type it.

use crate::error::{Error, Result};
use crate::image::Digest;

/// The minimum length of the start of an ID: `docker images` and `podman images` print 12 characters. A shorter word is a tag or name.
const MIN_PREFIX: usize = 12;
const HEX: usize = 64;

/// An image ID or its start, with or without `sha256:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdPrefix(String);

impl IdPrefix {
    /// Parses `text`; `None` if it cannot be an ID.
    pub fn parse(text: &str) -> Option<IdPrefix> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let fits =
            (MIN_PREFIX..=HEX).contains(&hex.len()) && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        fits.then(|| IdPrefix(hex.to_owned()))
    }

    /// The one of `ids` that begins so; `None` if none does.
    ///
    /// # Errors
    /// - `Usage`: several begin so.
    pub fn only(&self, ids: impl IntoIterator<Item = Digest>) -> Result<Option<Digest>> {
        let mut found: Vec<Digest> = ids.into_iter().filter(|id| id.hex().starts_with(&self.0)).collect();
        found.sort();
        found.dedup();
        match found[..] {
            [] => Ok(None),
            [id] => Ok(Some(id)),
            [first, second, ..] => Err(Error::usage(format!(
                "{} is the start of several image IDs ({first}, {second}); write more of it",
                self.0
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_tags() {
        let id = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for (text, expected) in [
            (id, true),
            (&id[..12], true),
            (&id[..11], false),
            (&*format!("sha256:{id}"), true),
            (&*format!("sha256:{}", &id[..12]), true),
            (&*format!("{id}0"), false),
            ("abcdefabcdeg", false),
            ("E3B0C44298FC", false),
        ] {
            assert_eq!(IdPrefix::parse(text).is_some(), expected, "{text}");
        }
        let ids = [Digest::of(b"a"), Digest::of(b"b")];
        let prefix = IdPrefix::parse(&ids[0].hex()[..12]).unwrap();
        assert_eq!(prefix.only(ids).unwrap(), Some(ids[0]));
        assert_eq!(prefix.only([ids[1]]).unwrap(), None);
        let every = IdPrefix(String::new());
        assert!(every.only(ids).unwrap_err().to_string().contains("start of several image IDs"));
    }
}
