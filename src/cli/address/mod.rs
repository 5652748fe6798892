//! What the words SRC and DST mean. Decided by the word alone, never by what lies on the disk, so that a script means
//! the same on every machine.

pub(super) mod archive_form;
pub(super) mod braces;
pub(super) mod destinations;
pub mod help;
pub(super) mod hint;
pub(super) mod naming;

use crate::image::{Digest, Reference};
use crate::remote::SshTarget;
use crate::source::Selector;
use crate::{Error, Result};
use std::ffi::OsStr;
use std::path::PathBuf;

/// Endings by which a bare word is a file. The last two can be read but not written.
const ARCHIVE_ENDINGS: [&str; 7] = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.xz", ".tar.bz2"];

/// One SRC or DST, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Registry(Reference),
    /// `docker://HOST/[PATH/]`: each image keeps its own path below it.
    Prefix(Prefix),
    DockerArchive {
        file: PathBuf,
        pick: Option<Selector>,
    },
    OciArchive {
        file: PathBuf,
        pick: Option<Selector>,
    },
    Oci {
        dir: PathBuf,
        pick: Option<Selector>,
    },
    Containerd {
        pick: Option<Selector>,
    },
    DockerDaemon {
        pick: Option<Selector>,
    },
    Ssh {
        host: SshTarget,
        pick: Option<Selector>,
    },
    /// `-`: standard input or output.
    Stdio,
    /// A file or directory whose kind is found by looking at it.
    Path(PathBuf),
}

/// A registry and a path in it, under which images keep their own paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    host: String,
    /// Empty, or parts parted and ended by `/`.
    path: String,
}

impl Prefix {
    /// `HOST[:PORT]`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Empty, or ending in `/`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Where `name` goes: its repository below the prefix, with its tag, or its digest where it has no tag.
    pub fn under(&self, name: &Reference) -> Result<Reference> {
        let below: Reference = format!("{}/{}{}", self.host, self.path, name.repository).parse()?;
        let (tag, digest) = match name.tag_or_latest() {
            Some(tag) => (Some(tag.to_owned()), None),
            None => (None, name.digest),
        };
        Ok(Reference { tag, digest, ..below })
    }
}

impl Place {
    /// Whether what goes there goes over the network.
    pub fn is_remote(&self) -> bool {
        matches!(self, Place::Registry(_) | Place::Prefix(_) | Place::Ssh { .. })
    }

    /// Reads one word. Every error is `Usage` and says what could have been written.
    pub fn parse(word: &OsStr) -> Result<Place> {
        let Some(text) = word.to_str() else {
            return bare_path(word);
        };
        match text {
            "" => Err(Error::usage("an empty word is no place; see imgmv copy --help for what SRC and DST may be")),
            "-" => Ok(Place::Stdio),
            _ => with_scheme(text)
                .or_else(|| path(text))
                .or_else(|| host_with_colon(text))
                .unwrap_or_else(|| reference(text)),
        }
    }
}

/// A word that is no UTF-8 can only be a path.
fn bare_path(word: &OsStr) -> Result<Place> {
    let shown = word.to_string_lossy();
    if ["/", "./", "../"].iter().any(|start| shown.starts_with(start)) {
        return Ok(Place::Path(word.into()));
    }
    Err(Error::usage(format!("{shown:?} is not UTF-8 text; only a path that begins with / or ./ may be so")))
}

fn with_scheme(text: &str) -> Option<Result<Place>> {
    if let Some((scheme, rest)) = text.split_once("://") {
        return Some(match scheme {
            "docker" => registry(text, rest),
            "ssh" => ssh(text),
            "http" | "https" => Err(Error::usage(format!(
                "{text:?} is a web address; a registry is written docker://HOST/REPO:TAG (plain HTTP: --src-insecure \
                 or --dst-insecure)"
            ))),
            _ => Err(Error::usage(format!("{text:?}: there is no {scheme}://; imgmv knows docker:// and ssh://"))),
        });
    }
    let (scheme, rest) = text.split_once(':')?;
    let file =
        |of: fn(PathBuf, Option<Selector>) -> Place| file_and_pick(text, rest).map(|(file, pick)| of(file, pick));
    Some(match scheme {
        "docker-archive" => file(|file, pick| Place::DockerArchive { file, pick }),
        "oci-archive" => file(|file, pick| Place::OciArchive { file, pick }),
        "oci" => file(|dir, pick| Place::Oci { dir, pick }),
        "containerd" => pick(rest).map(|pick| Place::Containerd { pick }),
        "docker-daemon" => pick(rest).map(|pick| Place::DockerDaemon { pick }),
        "docker-dir" => Err(Error::usage(
            "docker-dir: is reserved for docker's own directory, which imgmv does not read yet; use docker-daemon:REF",
        )),
        "registry-dir" => Err(Error::usage(
            "registry-dir: is reserved for a registry's storage tree, which imgmv does not read yet; use docker://",
        )),
        _ => return None,
    })
}

/// What follows `docker://`: a reference, or a prefix that ends in `/`.
fn registry(text: &str, rest: &str) -> Result<Place> {
    if !rest.ends_with('/') {
        return rest.parse().map(Place::Registry).map_err(|e: Error| e.at(text));
    }
    // Two made-up parts behind it let the reference's own grammar tell the host from the path.
    let made_up: Reference = format!("{rest}a/b").parse().map_err(|_| {
        Error::usage(format!("{text:?} is no prefix of a registry: expected docker://HOST[:PORT]/[PATH/]"))
    })?;
    let path = made_up.repository.strip_suffix("a/b").unwrap_or_default().to_owned();
    Ok(Place::Prefix(Prefix { host: made_up.host, path }))
}

/// `FILE[:REF]` or `FILE:@DIGEST`, parted at the first colon as in skopeo.
fn file_and_pick(text: &str, rest: &str) -> Result<(PathBuf, Option<Selector>)> {
    let (file, wanted) = rest.split_once(':').unwrap_or((rest, ""));
    match file {
        "" => Err(Error::usage(format!("{text:?} names no file or directory behind the colon"))),
        "-" => Err(Error::usage(format!("{text:?}: standard input or output is written - alone"))),
        _ => Ok((at_home(file), pick(wanted)?)),
    }
}

/// The image meant by what stands behind a place: none, `@DIGEST`, or a name as it is kept there.
fn pick(wanted: &str) -> Result<Option<Selector>> {
    Ok(match wanted.strip_prefix('@') {
        _ if wanted.is_empty() => None,
        Some(digest) => {
            Some(Selector::Digest(digest.parse::<Digest>().map_err(|wrong| Error::usage(wrong.to_string()))?))
        }
        None => Some(Selector::Name(wanted.to_owned())),
    })
}

/// Whether a bare word is an archive's file, by its ending.
pub fn is_archive(text: &str) -> bool {
    ARCHIVE_ENDINGS.iter().any(|ending| text.ends_with(ending))
}

fn path(text: &str) -> Option<Result<Place>> {
    let begins = ["/", "./", "../", "~/"].iter().any(|start| text.starts_with(start));
    if begins || text == "." || text == ".." {
        return Some(Ok(Place::Path(at_home(text))));
    }
    if !is_archive(text) {
        return None;
    }
    // `host:app.tar` is a file of another host to scp, and a tag that ends in .tar is possible: neither is guessed.
    Some(match text.contains(':') {
        true => Err(Error::usage(format!(
            "{text:?} could be a file, a tag or a host's; write ./{text} for the file or docker://{text} for the \
             image (imgmv loads into a host's engine and leaves no file there)"
        ))),
        false => Ok(Place::Path(text.into())),
    })
}

/// `~/` as a shell would, for words where the shell does not (`oci:~/mirror`).
fn at_home(text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => text.into(),
    }
}

/// `HOST:`, `USER@HOST:` and `USER@HOST:REF`, as scp has them. `app@sha256:…` is a reference.
fn host_with_colon(text: &str) -> Option<Result<Place>> {
    let digest =
        text.split_once('@').is_some_and(|(_, rest)| ["sha256:", "sha512:"].iter().any(|d| rest.starts_with(d)));
    (SshTarget::matches(text) && !digest).then(|| ssh(text))
}

fn ssh(text: &str) -> Result<Place> {
    let (host, wanted) = SshTarget::parse(text)?;
    Ok(Place::Ssh { host, pick: pick(wanted.as_deref().unwrap_or_default())? })
}

fn reference(text: &str) -> Result<Place> {
    if text.ends_with('/') {
        return Err(Error::usage(format!(
            "{text:?} ends in /: write docker://{text} for a prefix of a registry, ./{text} or oci:{text} for a \
             directory"
        )));
    }
    text.parse().map(Place::Registry).map_err(|wrong: Error| {
        Error::usage(format!("{wrong} (a path begins with /, ./, ../ or ~/; a host is written HOST: or ssh://HOST)"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parse(word: &str) -> Result<Place> {
        Place::parse(OsStr::new(word))
    }

    /// A place as one line, so that the table below stays a table.
    fn told(place: &Place) -> String {
        let with = |pick: &Option<Selector>| pick.as_ref().map(|pick| format!(" {pick}")).unwrap_or_default();
        match place {
            Place::Registry(reference) => format!("registry {reference}"),
            Place::Prefix(prefix) => format!("prefix {} {:?}", prefix.host, prefix.path),
            Place::DockerArchive { file, pick } => format!("docker-archive {}{}", file.display(), with(pick)),
            Place::OciArchive { file, pick } => format!("oci-archive {}{}", file.display(), with(pick)),
            Place::Oci { dir, pick } => format!("oci {}{}", dir.display(), with(pick)),
            Place::Containerd { pick } => format!("containerd{}", with(pick)),
            Place::DockerDaemon { pick } => format!("docker-daemon{}", with(pick)),
            Place::Ssh { host, pick } => {
                let user = host.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
                let port = host.port.map(|port| format!(" port {port}")).unwrap_or_default();
                format!("host {user}{}{port}{}", host.host, with(pick))
            }
            Place::Stdio => "stdio".into(),
            Place::Path(path) => format!("path {}", path.display()),
        }
    }

    #[test]
    fn every_row_of_the_table_means_what_it_says() {
        let by_digest = format!("registry docker.io/library/app@{DIGEST}");
        let in_layout = format!("oci dir @{DIGEST}");
        let on_host = format!("host u@h app@{DIGEST}");
        for (word, meaning) in [
            ("docker://alpine", "registry docker.io/library/alpine"),
            ("docker://registry.lan:5000/team/app:2", "registry registry.lan:5000/team/app:2"),
            ("docker://oci:latest", "registry docker.io/library/oci:latest"),
            ("docker://registry.lan:5000/", "prefix registry.lan:5000 \"\""),
            ("docker://registry.lan/team/", "prefix registry.lan \"team/\""),
            ("docker://docker.io/", "prefix docker.io \"\""),
            ("docker://org/", "prefix docker.io \"org/\""),
            ("docker-archive:a.tar", "docker-archive a.tar"),
            ("docker-archive:/x/a.tar:app:2", "docker-archive /x/a.tar app:2"),
            ("oci-archive:a.tar:docker.io/library/app:2", "oci-archive a.tar docker.io/library/app:2"),
            ("oci:./mirror", "oci ./mirror"),
            ("oci:./mirror:app-2", "oci ./mirror app-2"),
            (&format!("oci:dir:@{DIGEST}"), &in_layout),
            ("containerd:docker.io/library/app:2", "containerd docker.io/library/app:2"),
            ("containerd:", "containerd"),
            ("docker-daemon:app:2", "docker-daemon app:2"),
            ("ssh://node1", "host node1"),
            ("ssh://root@node1:2222", "host root@node1 port 2222"),
            ("ssh://root@node1/docker.io/library/app:2", "host root@node1 docker.io/library/app:2"),
            ("ssh://[::1]:22/app", "host ::1 port 22 app"),
            ("ssh://[fe80::1]", "host fe80::1"),
            ("node1.lan:", "host node1.lan"),
            ("C:", "host C"),
            ("app:", "host app"),
            ("user@host:", "host user@host"),
            ("user@host:ref", "host user@host ref"),
            ("user@host:app:2", "host user@host app:2"),
            ("user@[::1]:5000/app", "host user@::1 5000/app"),
            ("[::1]:", "host ::1"),
            (&format!("u@h:app@{DIGEST}"), &on_host),
            ("-", "stdio"),
            ("/x/y", "path /x/y"),
            ("./x", "path ./x"),
            ("../x:y", "path ../x:y"),
            ("./host:app.tar", "path ./host:app.tar"),
            (".", "path ."),
            ("x.tgz", "path x.tgz"),
            ("dir/x.tar.zst", "path dir/x.tar.zst"),
            ("x.tar.gz", "path x.tar.gz"),
            ("x.tzst", "path x.tzst"),
            ("app:2", "registry docker.io/library/app:2"),
            ("app", "registry docker.io/library/app"),
            ("mirror/app", "registry docker.io/mirror/app"),
            ("localhost:5000/app", "registry localhost:5000/app"),
            ("[::1]:5000/app", "registry [::1]:5000/app"),
            (&format!("app@{DIGEST}"), &by_digest),
        ] {
            assert_eq!(parse(word).as_ref().map(told).map_err(Error::to_string), Ok(meaning.to_owned()), "{word}");
        }
    }

    #[test]
    fn names_that_hold_a_digest_stay_names_where_an_engine_keeps_them_so() {
        let pause = format!("registry.k8s.io/pause@{DIGEST}");
        assert_eq!(
            parse(&format!("containerd:{pause}")).unwrap(),
            Place::Containerd { pick: Some(Selector::Name(pause.clone())) }
        );
        assert_eq!(told(&parse(&format!("oci:dir:name@{DIGEST}")).unwrap()), format!("oci dir name@{DIGEST}"));
    }

    #[test]
    fn what_is_no_place_is_a_usage_error_that_says_what_to_write() {
        for (word, told) in [
            ("", "empty"),
            ("docker-dir:app", "reserved"),
            ("registry-dir:/srv/registry:app", "reserved"),
            ("https://ghcr.io/org/app", "docker://HOST"),
            ("dir://x", "no dir://"),
            ("oci:", "names no file"),
            ("docker-archive::app", "names no file"),
            ("docker-archive:-", "- alone"),
            ("oci:dir:@sha256:12", "not a digest"),
            ("ssh://", "names no host"),
            ("ssh://-oProxyCommand=x", "names no host"),
            ("ssh://host:99999", "port"),
            ("ssh://host:0", "port"),
            ("ssh://ho st/", "names no host"),
            ("-host:", "names no host"),
            ("user@-host:", "names no host"),
            ("-l@host:", "names no host"),
            ("@host:", "not an image reference"),
            ("user@::1:", "not an image reference"),
            ("host:bundle.tar", "./host:bundle.tar"),
            ("user@host:bundle.tar", "could be a file"),
            ("C:\\images\\app", "path begins with"),
            ("mirror/", "oci:mirror/"),
            ("App", "path begins with"),
            ("containers-storage:app:2", "not an image reference"),
            ("docker://", "not an image reference"),
            ("docker:///", "no prefix"),
            ("a b", "not an image reference"),
            ("app@sha256:12", "not an image reference"),
        ] {
            let wrong = parse(word).expect_err(word);
            assert_eq!(wrong.kind(), Kind::Usage, "{word}");
            assert!(wrong.to_string().contains(told), "{word}: {wrong}");
        }
    }

    #[test]
    fn images_keep_their_path_under_a_prefix() {
        let Ok(Place::Prefix(prefix)) = parse("docker://registry.lan:5000/mirror/") else {
            panic!("not a prefix");
        };
        let under = |name: &str| prefix.under(&name.parse().unwrap()).unwrap().to_string();
        assert_eq!(under("app:2"), "registry.lan:5000/mirror/library/app:2");
        assert_eq!(under("ghcr.io/org/app"), "registry.lan:5000/mirror/org/app:latest");
    }

    #[test]
    fn a_path_that_is_no_text_is_still_a_path() {
        use std::os::unix::ffi::OsStrExt;
        let word = OsStr::from_bytes(b"./a\xff.tar");
        assert_eq!(Place::parse(word).unwrap(), Place::Path(word.into()));
        assert_eq!(Place::parse(OsStr::from_bytes(b"a\xff.tar")).unwrap_err().kind(), Kind::Usage);
    }
}
