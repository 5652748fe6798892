//! Words of the command line and of lists: which of them name a document, and `REPO:/regex/`.

use super::{Entry, Tags};
use crate::error::{Error, Result};
use crate::tag_filter::{TagFilter, TagPattern};
use crate::transport::table::TABLE;

/// The endings of a document's name.
const DOCUMENT_ENDINGS: [&str; 4] = [".txt", ".yml", ".yaml", ".json"];
/// The beginnings of a path.
const PATH_STARTS: [&str; 4] = ["/", "./", "../", "~/"];

/// Whether `word` names a document: `-`, a path, or a name that ends in `.txt`, `.yml`, `.yaml` or `.json`. The text of
/// the word alone decides, never the disk.
pub fn is_document_word(word: &str) -> bool {
    word == "-"
        || PATH_STARTS.iter().any(|start| word.starts_with(start))
        || DOCUMENT_ENDINGS.iter().any(|ending| word.ends_with(ending))
}

/// The entry that `REPO:/regex/` stands for; `None` for any other word. A tag matches if a part of it matches.
///
/// # Errors
/// `Usage`: REPO has a tag or a digest, or the text between the slashes is not a regular expression.
pub fn pattern(word: &str) -> Result<Option<Entry>> {
    let Some((repository, regex)) = split_pattern(word) else { return Ok(None) };
    if has_tag(repository) {
        return Err(Error::usage(format!(
            "{word}: a pattern selects tags; leave out the tag or digest of {repository}"
        )));
    }
    let filter = TagFilter { include: vec![TagPattern::regex(regex)?], ..TagFilter::default() };
    Ok(Some(Entry { tags: Tags::Filtered(filter), ..Entry::named(word, repository) }))
}

/// Splits `REPO:/regex/` at its colon. A tag has no slash, so an expression with one is a path: `oci:/srv/images/`.
pub(super) fn split_pattern(word: &str) -> Option<(&str, &str)> {
    let scheme = word.find("://").map_or(0, |at| at + 3);
    let colon = scheme + word.get(scheme..)?.find(":/")?;
    let (repository, rest) = (&word[..colon], &word[colon + 2..]);
    let regex = rest.strip_suffix('/')?;
    let is_scheme = TABLE.iter().any(|transport| transport.scheme.trim_end_matches('/') == &word[..=colon]);
    (!repository.is_empty() && !regex.is_empty() && !regex.contains('/') && !is_scheme).then_some((repository, regex))
}

/// Whether a reference to a repository has a tag or a digest. A host with a port is not one.
pub(super) fn has_tag(reference: &str) -> bool {
    reference.rsplit('/').next().is_some_and(|last| last.contains([':', '@']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_word_says_whether_it_is_a_document() {
        for word in ["-", "/srv/list", "./list", "../list", "~/list", "a.txt", "regsync.yml", "b.yaml", "c.json"] {
            assert!(is_document_word(word), "{word}");
        }
        for word in ["alpine", "quay.io/a/b:1", "registry.lan/", "list", "a.txt:1", "app:/x.yml$/", "--", "", "~user"] {
            assert!(!is_document_word(word), "{word}");
        }
    }

    #[test]
    fn a_pattern_has_slashes_around_an_expression() {
        for (word, expected) in [
            (r"quay.io/org/app:/^1\.\d+$/", Some(("quay.io/org/app", r"^1\.\d+$"))),
            ("app:/x/", Some(("app", "x"))),
            ("registry.lan:5000/app:/a:b/", Some(("registry.lan:5000/app", "a:b"))),
            ("docker://quay.io/app:/1/", Some(("docker://quay.io/app", "1"))),
            ("docker://registry.lan/", None),
            ("registry.lan:5000/", None),
            ("oci:/srv/", None),
            ("oci:/srv/images/", None),
            ("registry-dir:/srv/", None),
            ("app:/x", None),
            ("app://", None),
            (":/x/", None),
            ("app:1", None),
        ] {
            assert_eq!(split_pattern(word), expected, "{word}");
        }
        assert!(pattern("app:1").unwrap().is_none());
        assert!(matches!(pattern("app:/x/").unwrap().unwrap().tags, Tags::Filtered(_)));
        for word in ["quay.io/app:1:/x/", "quay.io/app@sha256:ab:/x/", "app:/(/"] {
            assert_eq!(pattern(word).unwrap_err().kind(), crate::Kind::Usage, "{word}");
        }
    }
}
