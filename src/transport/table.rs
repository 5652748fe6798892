//! The table of transports. [`parse`] reads an address by its text alone, never by the files on the disk, so that a
//! script means the same on every host.

use super::address::{Parsed, ShortForm, Transport};
use super::combined::PathAddress;
use super::{archive, combined, containers_storage, engine, layout, registry, registry_dir};
use crate::Error;
use std::ffi::OsStr;

/// Every transport, in the order of the help.
pub(crate) const TABLE: &[Transport] = &[
    registry::address::DOCKER,
    archive::address::DOCKER,
    archive::address::OCI,
    layout::address::OCI,
    registry_dir::address::REGISTRY_DIR,
    combined::CONTAINERD,
    engine::address::DOCKER_DAEMON,
    combined::DOCKER_DIR,
    containers_storage::address::CONTAINERS_STORAGE,
    combined::SSH,
];

/// The forms without a scheme; the first that fits is taken.
pub(crate) const SHORT_FORMS: &[ShortForm] =
    &[archive::address::STDIO, combined::PATH, combined::HOST, registry::address::PREFIX, registry::address::REFERENCE];

/// Parses a SRC or DST. Every error is `Usage` and names what to write.
pub(crate) fn parse(word: &OsStr) -> Parsed {
    let Some(text) = word.to_str() else { return path_of_bytes(word) };
    if text.is_empty() {
        return Err(Error::usage("SRC or DST is empty; imgmv copy --help shows their forms"));
    }
    let short = || SHORT_FORMS.iter().find_map(|form| (form.parse)(text));
    with_scheme(text).or_else(short).unwrap_or_else(|| {
        Err(Error::usage(format!("{text:?} is not an address; imgmv copy --help shows their forms")))
    })
}

/// A word that is not UTF-8 is a path.
fn path_of_bytes(word: &OsStr) -> Parsed {
    let shown = word.to_string_lossy();
    match ["/", "./", "../"].iter().any(|start| shown.starts_with(start)) {
        true => Ok(Box::new(PathAddress(word.into()))),
        false => Err(Error::usage(format!("{shown:?} is not UTF-8 text; only a path may be, and begins with / or ./"))),
    }
}

fn with_scheme(text: &str) -> Option<Parsed> {
    let (scheme, separator) = match (text.split_once("://"), text.split_once(':')) {
        (Some((scheme, _)), _) => (scheme, "://"),
        (None, Some((scheme, _))) => (scheme, ":"),
        (None, None) => return None,
    };
    let (start, rest) = text.split_at(scheme.len() + separator.len());
    if let Some(transport) = TABLE.iter().find(|transport| transport.scheme == start) {
        return Some((transport.parse)(text, rest));
    }
    match (separator, scheme) {
        ("://", "http" | "https") => Some(Err(Error::usage(format!(
            "{text:?} is a web address; a registry is written docker://HOST/REPO:TAG (plain HTTP: --src-insecure or \
             --dst-insecure)"
        )))),
        ("://", _) => {
            let known: Vec<&str> =
                TABLE.iter().map(|row| row.scheme).filter(|scheme| scheme.ends_with("://")).collect();
            let known = known.join(" and ");
            Some(Err(Error::usage(format!("{text:?}: {scheme}:// is not a scheme of imgmv; it has {known}"))))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
