//! Image references: `[HOST[:PORT]/]REPO[:TAG][@DIGEST]` with docker's conventions. The grammar of repository and tag is
//! that of the distribution-spec, "Pulling manifests".

use super::Digest;
use crate::error::{Error, Result};
use std::{fmt, str::FromStr};

/// The host of a reference without one.
pub const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
/// The maximum length of host and repository, in characters.
const MAX_NAME_BYTES: usize = 255;
/// The maximum length of a tag, in characters.
const MAX_TAG_BYTES: usize = 128;

/// A complete reference: host and repository, then a tag, a digest or both (the digest takes precedence).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// `docker.io`, `registry.lan:5000`, `[::1]:5000`.
    pub host: String,
    /// `library/app`, `team/app`.
    pub repository: String,
    /// The tag, if the reference has one.
    pub tag: Option<String>,
    /// The digest, if the reference has one.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Returns the tag, or `latest` if there is neither a tag nor a digest.
    pub fn tag_or_latest(&self) -> Option<&str> {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => Some(tag),
            (None, None) => Some(DEFAULT_TAG),
            (None, Some(_)) => None,
        }
    }

    /// Adds the tag `latest` if there is neither a tag nor a digest.
    pub fn tagged(mut self) -> Reference {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// Returns `host/repository`, without tag and digest.
    pub fn full_repository(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Reference> {
        let wrong = |why: &str| {
            let shown: String = text.chars().take(300).collect();
            Error::usage(format!("{shown:?} is not an image reference: {why}"))
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>().map_err(|e| wrong(&e.to_string()))?)),
            None => (text, None),
        };
        let (rest, tag) = match rest.rsplit_once(':') {
            Some((before, tag)) if !tag.contains('/') => (before, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(wrong("a tag starts with a letter, a digit or _, followed by up to 127 of these, . and -"));
        }
        let (host, repository) = match rest.split_once('/') {
            Some((first, more))
                if first.contains(['.', ':'])
                    || first == "localhost"
                    || first.bytes().any(|b| b.is_ascii_uppercase()) =>
            {
                (first.to_owned(), more.to_owned())
            }
            _ => (DEFAULT_REGISTRY.to_owned(), rest.to_owned()),
        };
        if !is_host(&host) {
            return Err(wrong("its registry host is not a valid host name"));
        }
        let host = if host == "index.docker.io" || host == "registry-1.docker.io" {
            DEFAULT_REGISTRY.to_owned()
        } else {
            host
        };
        let repository = if host == DEFAULT_REGISTRY && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository
        };
        if !is_repository(&repository) {
            return Err(wrong(
                "a repository has lower-case letters and digits, with . _ - between them, in parts separated by /",
            ));
        }
        if host.len() + 1 + repository.len() > MAX_NAME_BYTES {
            return Err(wrong("its name is longer than 255 characters"));
        }
        Ok(Reference { host, repository, tag: tag.map(str::to_owned), digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Whether `text` is a valid `HOST[:PORT]` of a reference; a host never starts with `-`.
pub(crate) fn is_host(text: &str) -> bool {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => (address, None),
            Some((address, port)) => match port.strip_prefix(':') {
                Some(port) => (address, Some(port)),
                None => return false,
            },
            None => return false,
        },
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    let bracketed = text.starts_with('[');
    let port_fits = port
        .is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok());
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let name_fits = if bracketed {
        name.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        name.len() <= 253 && name.split('.').all(part)
    };
    port_fits && name_fits
}

pub(crate) fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= MAX_TAG_BYTES
        && text.bytes().enumerate().all(|(at, b)| word(b) || at > 0 && (b == b'.' || b == b'-'))
        && !text.is_empty()
}

pub(crate) fn is_repository(text: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let component = |part: &str| {
        let bytes = part.as_bytes();
        let ends = bytes.first().is_some_and(|b| alnum(*b)) && bytes.last().is_some_and(|b| alnum(*b));
        let separators =
            part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).filter(|run| !run.is_empty());
        let separator = |run: &str| matches!(run, "." | "_" | "__") || run.bytes().all(|b| b == b'-');
        ends && separators.into_iter().all(separator)
    };
    !text.is_empty() && text.split('/').all(component)
}

/// The name of an image in a source or a sink: a complete reference in archives and engines, often only a tag in an OCI
/// layout. It has a limited length and no control characters; nothing else is guaranteed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    const MAX_BYTES: usize = 512;

    /// Checks a name: 1 to 512 bytes without white space and control characters. Fails with `Invalid`.
    pub fn new(text: impl Into<String>) -> Result<Name> {
        let text = text.into();
        let shown = || crate::message::printable(&text.chars().take(80).collect::<String>());
        if text.is_empty() || text.len() > Self::MAX_BYTES {
            return Err(Error::invalid(format!(
                "the image name {:?} is refused: it has {} bytes, expected 1 to {}",
                shown(),
                text.len(),
                Self::MAX_BYTES
            )));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) || crate::message::printable(&text) != text {
            return Err(Error::invalid(format!(
                "the image name {:?} is refused: it has control characters or white space",
                shown()
            )));
        }
        Ok(Name(text))
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the complete reference if the name is one (`app:2`, `ghcr.io/org/app`); `None` for only a tag.
    pub fn reference(&self) -> Option<Reference> {
        if !self.0.contains([':', '/', '@']) {
            return None;
        }
        self.0.parse::<Reference>().ok().map(Reference::tagged)
    }

    /// Returns the tag of the reference, or the name itself if it is only a tag.
    pub fn tag(&self) -> Option<String> {
        match self.reference() {
            Some(reference) => reference.tag,
            None => is_tag(&self.0).then(|| self.0.clone()),
        }
    }

    /// Returns the digest in the name (`app@sha256:…`, or only `@sha256:…`).
    pub fn digest(&self) -> Option<Digest> {
        match self.reference() {
            Some(reference) => reference.digest,
            None => self.0.strip_prefix('@')?.parse().ok(),
        }
    }

    /// Splits a name with tag and digest as containerd does: `app:2@sha256:…` becomes `app:2` and `app@sha256:…`, both
    /// complete.
    pub fn split(self) -> Vec<Name> {
        match self.reference() {
            Some(both) if both.tag.is_some() && both.digest.is_some() => {
                let tagged = Reference { digest: None, ..both.clone() };
                vec![Name::from(&tagged), Name::from(&Reference { tag: None, ..both })]
            }
            _ => vec![self],
        }
    }

    /// Whether the user's input `asked` means this name: the same text, the same complete reference, or its tag.
    pub fn matches(&self, asked: &str) -> bool {
        if self.0 == asked {
            return true;
        }
        match (self.reference(), asked.parse::<Reference>()) {
            (Some(own), Ok(asked)) if own == asked.clone().tagged() => true,
            (Some(own), _) => !asked.contains([':', '/', '@']) && own.tag.as_deref() == Some(asked),
            (None, _) => false,
        }
    }
}

impl From<&Reference> for Name {
    fn from(reference: &Reference) -> Name {
        Name(reference.to_string())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_docker_hubs() {
        for (written, full) in [
            ("alpine", "docker.io/library/alpine"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("user/app:2", "docker.io/user/app:2"),
            ("localhost/app", "localhost/app"),
            ("localhost:5000/a/b:x", "localhost:5000/a/b:x"),
            ("[::1]:5000/a:x", "[::1]:5000/a:x"),
            ("index.docker.io/app", "docker.io/library/app"),
            ("ghcr.io/org/app__x-y.z", "ghcr.io/org/app__x-y.z"),
        ] {
            assert_eq!(written.parse::<Reference>().unwrap().to_string(), full);
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        let long = "a/".repeat(200) + "b";
        for text in [
            "",
            "App",
            "a//b",
            "../a",
            "a/../b",
            "-h.x/a",
            "a:",
            "a:-x",
            "a b",
            "h.x:99999/a",
            "a@sha256:12",
            "a\x1b/b",
            ".a",
            "a_.b",
            "http://h/a",
            &long,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_is_found_by_what_people_type() {
        let name = Name::new("docker.io/library/app:2").unwrap();
        for asked in ["app:2", "docker.io/library/app:2", "2"] {
            assert!(name.matches(asked), "{asked}");
        }
        for asked in ["app", "app:3", "other/app:2"] {
            assert!(!name.matches(asked), "{asked}");
        }
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let both = Name::new(format!("app:2@{digest}")).unwrap().split();
        let full = format!("docker.io/library/app@{digest}");
        assert_eq!(both.iter().map(Name::as_str).collect::<Vec<_>>(), ["docker.io/library/app:2", &full]);
        assert!(both[1].matches(&format!("app@{digest}")) && both[1].digest().is_some());
        assert!(Name::new("v1").unwrap().matches("v1"));
        assert!(Name::new("a\x1b[2Jb").is_err());
    }
}
