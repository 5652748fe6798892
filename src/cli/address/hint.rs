//! What else a word may have meant that was taken for an image at docker.io.

use crate::image::{DEFAULT_REGISTRY, Reference};
use crate::{Error, Kind};
use std::ffi::OsStr;
use std::path::Path;

/// `error`, with what else may have been meant by `word` where it was taken for a registry's image and not found.
pub fn hinted(word: &OsStr, error: Error) -> Error {
    // A registry that answered with a status of its own is there: then another place is not what was meant.
    let answered =
        error.kind() == Kind::Network && ["status", "patience"].iter().any(|word| error.to_string().contains(word));
    let missing = matches!(error.kind(), Kind::NotFound | Kind::Denied | Kind::Network) && !answered;
    let is_file = Path::new(word).exists();
    let word = word.to_string_lossy();
    let bare = |reference: Reference| {
        reference.host == DEFAULT_REGISTRY
            && !word.starts_with(DEFAULT_REGISTRY)
            && mentions(&error.to_string(), &reference.repository)
    };
    let hint = match (missing && word.parse().is_ok_and(bare), is_file) {
        (false, _) => return error,
        (true, true) => format!("{word} means a registry's image; the file is ./{word}"),
        (true, false) => format!(
            "{word} means a registry's image; one of this host's engines is docker-daemon:{word} or containerd:{word}"
        ),
    };
    Error::new(error.kind(), format!("{error} ({hint})"))
}

/// Whether `text` has the repository, and not only one whose name begins so.
fn mentions(text: &str, repository: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || "._-/".contains(c));
    text.match_indices(repository).any(|(at, _)| ends(&text[at + repository.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_place_is_named_only_where_the_registry_had_no_such_image_to_give() {
        for (word, error, hinted_at) in [
            ("app:2", Error::not_found("docker.io has no image library/app:2"), true),
            ("app:2", Error::network("library/app: the host registry-1.docker.io is unknown"), true),
            ("app:2", Error::not_found("docker.io has no image library/apple:2"), false),
            ("app:2", Error::not_found("docker.io has no image library/app/more:2"), false),
            ("app:2", Error::network("docker.io fails with status 500: image library/app:2"), false),
            (
                "app:2",
                Error::network("docker.io still asks for patience after all retries: image library/app:2"),
                false,
            ),
            ("docker.io/app:2", Error::not_found("docker.io has no image library/app:2"), false),
            ("app:2", Error::invalid("manifest of library/app:2 is refused"), false),
        ] {
            let (kind, text) = (error.kind(), error.to_string());
            let error = hinted(OsStr::new(word), error);
            assert_eq!(error.to_string().contains("docker-daemon:app:2"), hinted_at, "{text}");
            assert_eq!(error.kind(), kind);
        }
    }
}
