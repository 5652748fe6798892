//! What images are called at the destination: DST's own name wins, else `--as`, else the source's names are kept.

use super::Place;
use crate::copy::Naming;
use crate::image::{Name, Reference};
use crate::source::Selector;
use crate::{Error, Result};

/// The names for everything that goes to `place`.
pub fn naming(place: &Place, given: &[String]) -> Result<Naming> {
    let names = match place {
        Place::Registry(reference) => return registry(reference, given).map(Naming::Names),
        Place::DockerArchive { pick, .. }
        | Place::OciArchive { pick, .. }
        | Place::Containerd { pick }
        | Place::DockerDaemon { pick }
        | Place::Ssh { pick, .. } => own(pick, given, full)?,
        Place::Oci { pick, .. } => own(pick, given, as_kept)?,
        Place::Path(_) | Place::Stdio => given.iter().map(|name| full(name)).collect::<Result<Vec<_>>>()?,
        Place::Prefix(_) if given.is_empty() => Vec::new(),
        Place::Prefix(_) => {
            return Err(Error::usage("--as gives a name, and a DST that ends in / keeps names; leave one of them out"));
        }
    };
    Ok(if names.is_empty() { Naming::Keep } else { Naming::Names(names) })
}

/// Whether `place` says itself what the image is called there, so that `--as` is not used.
pub fn names_itself(place: &Place) -> bool {
    match place {
        Place::Registry(reference) => reference.tag.is_some(),
        Place::DockerArchive { pick, .. }
        | Place::OciArchive { pick, .. }
        | Place::Oci { pick, .. }
        | Place::Containerd { pick }
        | Place::DockerDaemon { pick }
        | Place::Ssh { pick, .. } => pick.is_some(),
        Place::Prefix(_) | Place::Stdio | Place::Path(_) => false,
    }
}

fn own(pick: &Option<Selector>, given: &[String], spell: fn(&str) -> Result<Name>) -> Result<Vec<Name>> {
    match pick {
        None => given.iter().map(|name| spell(name)).collect(),
        Some(Selector::Digest(digest)) => {
            Err(Error::usage(format!("@{digest} cannot be a name at DST, its digest follows from the image")))
        }
        Some(Selector::Name(name)) => Ok(vec![spell(name)?]),
    }
}

/// A name spelled in full, as archives and engines want it.
pub fn full(text: &str) -> Result<Name> {
    let reference: Reference = text.parse()?;
    match reference.digest {
        None => Ok(Name::from(&reference.tagged())),
        Some(_) => Err(Error::usage(format!("{text}: a name at the destination has a tag, not a digest"))),
    }
}

/// As a layout keeps it: a tag that stands alone stays so.
pub fn as_kept(text: &str) -> Result<Name> {
    let name = Name::new(text).map_err(|wrong| Error::usage(wrong.to_string()))?;
    Ok(name.reference().map_or(name, |reference| Name::from(&reference)))
}

/// The tags that `given` asks for in the repository of `reference`; its own where none are given.
pub fn registry(reference: &Reference, given: &[String]) -> Result<Vec<Name>> {
    if reference.digest.is_some() {
        return Err(Error::usage(format!("{reference}: a destination has a tag, not a digest")));
    }
    if given.is_empty() || reference.tag.is_some() {
        return Ok(vec![Name::from(&reference.clone().tagged())]);
    }
    given.iter().map(|text| tag_in(reference, text)).collect()
}

/// `text`, a tag or a full reference, in the repository of `reference`.
pub fn tag_in(reference: &Reference, text: &str) -> Result<Name> {
    let place = reference.full_repository();
    if !text.contains(['/', ':', '@']) {
        return full(&format!("{place}:{text}"));
    }
    let asked: Reference = text.parse()?;
    match asked.full_repository() == place {
        true => full(text),
        false => Err(Error::usage(format!("{text} is not in {place}; copy to it with imgmv copy"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    fn names(dst: &str, given: &[&str]) -> Result<Vec<String>> {
        let given: Vec<String> = given.iter().map(|name| name.to_string()).collect();
        Ok(match naming(&Place::parse(OsStr::new(dst)).unwrap(), &given)? {
            Naming::Keep => Vec::new(),
            Naming::Names(names) => names.iter().map(Name::to_string).collect(),
        })
    }

    #[test]
    fn the_destinations_own_name_wins_then_as_then_the_sources() {
        for (dst, given, expected) in [
            ("h.lan/app:2", &[][..], &["h.lan/app:2"][..]),
            ("h.lan/app", &[], &["h.lan/app:latest"]),
            ("h.lan/app:2", &["3"], &["h.lan/app:2"]),
            ("oci:dir:v1", &["v2"], &["v1"]),
            ("h.lan/app", &["2", "h.lan/app:stable"], &["h.lan/app:2", "h.lan/app:stable"]),
            ("out.tar", &[], &[]),
            ("out.tar", &["app:2", "app:new"], &["docker.io/library/app:2", "docker.io/library/app:new"]),
            ("docker-archive:out.tar:app", &[], &["docker.io/library/app:latest"]),
            ("oci:dir:v1", &[], &["v1"]),
            ("oci:dir:app:2", &[], &["docker.io/library/app:2"]),
            ("oci:dir", &["v1"], &["v1"]),
            ("node1:", &[], &[]),
            ("root@node1:app:2", &[], &["docker.io/library/app:2"]),
            ("-", &["app:2"], &["docker.io/library/app:2"]),
            ("docker://h.lan/", &[], &[]),
        ] {
            assert_eq!(names(dst, given).unwrap(), expected, "{dst} {given:?}");
        }
    }

    #[test]
    fn what_cannot_be_a_name_at_the_destination_is_refused() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for (dst, given) in [
            ("h.lan/app", &["other.lan/app:2"][..]),
            ("docker://h.lan/", &["app:2"]),
            ("node1:", &["App"]),
            (&format!("h.lan/app@{digest}"), &[]),
            (&format!("oci:dir:@{digest}"), &[]),
        ] {
            assert_eq!(names(dst, given).unwrap_err().kind(), crate::Kind::Usage, "{dst} {given:?}");
        }
    }
}
