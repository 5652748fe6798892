//! The parts that addresses of several transports have in common: files and selectors.

use crate::image::Digest;
use crate::source::Selector;
use crate::{Error, Result};
use std::path::PathBuf;

/// Parses `FILE[:REF]` or `FILE:@DIGEST`, split at the first colon as in skopeo.
pub(crate) fn file_and_selector(address: &str, rest: &str) -> Result<(PathBuf, Option<Selector>)> {
    let (file, wanted) = rest.split_once(':').unwrap_or((rest, ""));
    match file {
        "" => Err(Error::usage(format!("{address:?} names no file or directory behind the colon"))),
        "-" => Err(Error::usage(format!("{address:?}: standard input or output is written - alone"))),
        _ => Ok((expand_home(file), selector(wanted)?)),
    }
}

/// Parses the part of an address that selects an image: empty, `@DIGEST`, or a name.
pub(crate) fn selector(text: &str) -> Result<Option<Selector>> {
    Ok(match text.strip_prefix('@') {
        _ if text.is_empty() => None,
        Some(digest) => {
            Some(Selector::Digest(digest.parse::<Digest>().map_err(|wrong| Error::usage(wrong.to_string()))?))
        }
        None => Some(Selector::Name(text.to_owned())),
    })
}

/// Expands `~/` where the shell does not (`oci:~/mirror`).
pub(crate) fn expand_home(text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => text.into(),
    }
}

/// `:SELECTOR` behind a file or directory; empty for none.
pub(crate) fn suffix(selector: Option<&Selector>) -> String {
    selector.map(|selector| format!(":{selector}")).unwrap_or_default()
}
