//! The manifest to which a tag belongs by its spelling.

use crate::image::Digest;

/// The owner of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The tag names an image.
    None,
    /// The tag belongs to this manifest: `sha256-HEX`, `sha256-HEX.sig`.
    Manifest(Digest),
    /// The tag has the beginning of such a tag, but its manifest is not known.
    Unknown,
}

const ALGORITHMS: [&str; 2] = ["sha256-", "sha512-"];

/// The owner of `tag`. Other endings than cosign's are in use too (`.cosign`, `.sigstore`).
pub fn of(tag: &str) -> Owner {
    if !ALGORITHMS.iter().any(|algorithm| tag.starts_with(algorithm)) {
        return Owner::None;
    }
    let digest = tag.split_once('.').map_or(tag, |(digest, _)| digest);
    digest.replacen('-', ":", 1).parse().map_or(Owner::Unknown, Owner::Manifest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{digest_tags, referrers_tag};

    #[test]
    fn tags_of_signatures_belong_to_their_manifest() {
        let digest = Digest::of(b"image");
        for tag in
            digest_tags(&digest).into_iter().chain([referrers_tag(&digest), referrers_tag(&digest) + ".cosign.bundle"])
        {
            assert_eq!(of(&tag), Owner::Manifest(digest), "{tag}");
        }
        for tag in ["sha256-abc", "sha512-abc.sig", &referrers_tag(&digest).replacen("256", "512", 1), "sha256-"] {
            assert_eq!(of(tag), Owner::Unknown, "{tag}");
        }
        for tag in ["v1", "sha-abc", "sha256", "a-sha256-abc"] {
            assert_eq!(of(tag), Owner::None, "{tag}");
        }
    }
}
