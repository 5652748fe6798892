//! A hint for a name without a scheme that docker.io does not have.

use crate::image::{DEFAULT_REGISTRY, Reference};
use crate::{Error, Kind};
use std::ffi::OsStr;
use std::path::Path;

/// Adds other addresses that `word` may mean, if docker.io did not have the image `word`.
pub fn with_hint(word: &OsStr, error: Error) -> Error {
    // A registry that answered with another status was reached: then the address is right.
    let answered = error.kind() == Kind::Network && error.to_string().contains("status");
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
        (true, true) => format!("{word} is an image in a registry; the file is ./{word}"),
        (true, false) => format!(
            "{word} is an image in a registry; for this host's engines write docker-daemon:{word} or containerd:{word}"
        ),
    };
    Error::new(error.kind(), format!("{error} ({hint})"))
}

/// Whether `text` has the whole name `repository`, not only a longer name that begins with it.
fn mentions(text: &str, repository: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || "._-/".contains(c));
    text.match_indices(repository).any(|(at, _)| ends(&text[at + repository.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_given_only_if_the_registry_does_not_have_the_image() {
        for (word, error, hinted_at) in [
            ("app:2", Error::not_found("docker.io has no image library/app:2"), true),
            ("app:2", Error::network("library/app: host name registry-1.docker.io cannot be resolved"), true),
            ("app:2", Error::not_found("docker.io has no image library/apple:2"), false),
            ("app:2", Error::not_found("docker.io has no image library/app/more:2"), false),
            ("app:2", Error::network("docker.io failed with status 500: image library/app:2"), false),
            ("app:2", Error::network("docker.io limits requests (status 429): image library/app:2"), false),
            ("docker.io/app:2", Error::not_found("docker.io has no image library/app:2"), false),
            ("app:2", Error::invalid("manifest of library/app:2 is refused"), false),
        ] {
            let (kind, text) = (error.kind(), error.to_string());
            let error = with_hint(OsStr::new(word), error);
            assert_eq!(error.to_string().contains("docker-daemon:app:2"), hinted_at, "{text}");
            assert_eq!(error.kind(), kind);
        }
    }
}
