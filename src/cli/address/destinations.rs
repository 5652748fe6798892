//! The destinations of a copy: those on the command line and those in a file, braces expanded, none of them twice.

use super::braces::{MOST, expand};
use super::naming::full;
use super::{Place, is_archive};
use crate::image::Name;
use crate::source::Selector;
use crate::{Error, Result};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Bytes of a file of hosts, at most.
const LARGEST: u64 = 4 << 20;

/// One destination.
#[derive(Debug, Clone)]
pub struct Target {
    /// As it was written.
    pub word: String,
    pub place: Place,
}

/// What `words` and the lines of `hosts` name. Every error is `Usage`, or tells why the file cannot be read.
pub fn targets(words: &[OsString], hosts: Option<&Path>) -> Result<Vec<Target>> {
    let mut all = Vec::new();
    for word in words {
        all.extend(one(word)?);
    }
    if let Some(file) = hosts {
        for line in lines(file)? {
            all.extend(one(OsStr::new(&as_host(line)))?);
        }
    }
    if all.is_empty() {
        return Err(Error::usage("--hosts names no destination"));
    }
    if all.len() > MOST {
        return Err(Error::usage(format!("{} destinations are more than {MOST}", all.len())));
    }
    each_once(&all)?;
    Ok(all)
}

/// The places that one word stands for. Braces in what is a place as it stands (a file's name) are left alone.
fn one(word: &OsStr) -> Result<Vec<Target>> {
    let target = |word: &OsStr, place| Target { word: word.to_string_lossy().into_owned(), place };
    let as_it_stands = Place::parse(word);
    let braces = word.to_str().filter(|text| text.contains('{'));
    match (as_it_stands, braces) {
        (Ok(place), None) => Ok(vec![target(word, place)]),
        (Ok(place), Some(_)) if !matches!(place, Place::Ssh { .. }) => Ok(vec![target(word, place)]),
        (Err(error), None) => Err(error),
        (_, Some(text)) => {
            expand(text)?.iter().map(|word| Ok(target(OsStr::new(word), Place::parse(OsStr::new(word))?))).collect()
        }
    }
}

fn lines(file: &Path) -> Result<Vec<String>> {
    let shown = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    let reading = |error| Error::reading(&shown, error);
    let bytes: Box<dyn Read> = match file == Path::new("-") {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(file).map_err(reading)?),
    };
    let mut lines = Vec::new();
    let mut left = LARGEST;
    for line in BufReader::new(bytes.take(LARGEST + 1)).lines() {
        let line = line.map_err(reading)?;
        left = left.checked_sub(line.len() as u64 + 1).ok_or_else(|| {
            Error::usage(format!("{shown} has more than {LARGEST} bytes; expected a destination on each line"))
        })?;
        let mut words = line.split_whitespace();
        let Some(word) = words.next().filter(|word| !word.starts_with('#')) else { continue };
        if words.next().is_some_and(|more| !more.starts_with('#')) {
            return Err(Error::usage(format!("{shown}: {:?}: expected one destination on each line", line.trim())));
        }
        lines.push(word.to_owned());
    }
    Ok(lines)
}

/// A line of a file of hosts: `node1`, `root@node1` and `node1:2222` are hosts there; whatever else is a place is one.
fn as_host(line: String) -> String {
    let plain = !line.contains('/') && !line.contains("://") && !line.ends_with(':') && !is_archive(&line);
    let scheme = ["docker-daemon:", "containerd:", "oci:", "oci-archive:", "docker-archive:"];
    let is_host = plain && line != "-" && !scheme.iter().any(|scheme| line.starts_with(scheme));
    // `user@host:REF` is a place already.
    let behind =
        line.split_once('@').and_then(|(_, host)| host.rsplit_once(']').unwrap_or(("", host)).1.split_once(':'));
    let has_reference = behind.is_some_and(|(_, port)| port.parse::<u16>().is_err());
    if is_host && !has_reference { format!("ssh://{line}") } else { line }
}

fn each_once(targets: &[Target]) -> Result<()> {
    let mut seen: HashMap<String, &str> = HashMap::new();
    for target in targets {
        let Some(key) = identity(&target.place) else { continue };
        if let Some(before) = seen.insert(key, &target.word) {
            let word = &target.word;
            return Err(Error::usage(match before == word {
                true => format!("{word} is named twice as a destination"),
                false => format!("{before} and {word} are one destination; leave one of them out"),
            }));
        }
    }
    Ok(())
}

/// What two spellings of one place have in common, as far as it can be seen from here.
fn identity(place: &Place) -> Option<String> {
    let name = |pick: &Option<Selector>| match pick {
        Some(Selector::Name(name)) => full(name).as_ref().map_or(name.clone(), Name::to_string),
        Some(Selector::Digest(digest)) => digest.to_string(),
        None => String::new(),
    };
    Some(match place {
        Place::Stdio => "-".to_owned(),
        Place::DockerArchive { file, .. } | Place::OciArchive { file, .. } | Place::Path(file) => this_file(file)?,
        Place::Oci { dir, pick } => format!("{} {}", this_file(dir)?, name(pick)),
        Place::Registry(reference) => format!("registry {}", Name::from(&reference.clone().tagged())),
        Place::Prefix(prefix) => format!("{prefix:?}"),
        Place::Containerd { pick } => format!("containerd {}", name(pick)),
        Place::DockerDaemon { pick } => format!("docker-daemon {}", name(pick)),
        Place::Ssh { host, pick } => {
            let user = host.user.as_deref().unwrap_or_default();
            format!("ssh {user}@{} {} {}", host.host.to_lowercase(), host.port.unwrap_or(22), name(pick))
        }
    })
}

/// The file by its number where it is there, else by its folder. A device takes what it is given any number of times.
fn this_file(path: &Path) -> Option<String> {
    match fs::metadata(path) {
        Ok(there) if there.file_type().is_char_device() => None,
        Ok(there) => Some(format!("file {} {}", there.dev(), there.ino())),
        Err(_) => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
            Some(format!("path {}", folder.join(path.file_name()?).display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn words(words: &[&str]) -> Result<Vec<String>> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        Ok(targets(&words, None)?.into_iter().map(|target| target.word).collect())
    }

    #[test]
    fn braces_are_expanded_in_what_is_no_place_yet() {
        for (word, expected) in [
            ("ssh://root@node{1..2}:22/app:2", &["ssh://root@node1:22/app:2", "ssh://root@node2:22/app:2"][..]),
            ("node{a,b}:", &["nodea:", "nodeb:"]),
            ("registry{1..2}.lan/app:2", &["registry1.lan/app:2", "registry2.lan/app:2"]),
            ("./out{1..2}.tar", &["./out{1..2}.tar"]),
            ("oci:mirror{1,2}", &["oci:mirror{1,2}"]),
        ] {
            assert_eq!(words(&[word]).unwrap(), expected, "{word}");
        }
        assert_eq!(words(&["ssh://n{1..}"]).unwrap_err().kind(), Kind::Usage);
    }

    #[test]
    fn one_place_in_two_spellings_is_refused() {
        for twice in [
            ["-", "-"],
            ["./a.tar", "a.tar"],
            ["a.tar", "docker-archive:./src/../a.tar:app:2"],
            ["ssh://node1", "node1:"],
            ["ssh://node1", "ssh://NODE1:22"],
            ["ssh://node{1..3}", "node2:"],
            ["h.lan/app", "docker://h.lan/app:latest"],
            ["alpine", "docker.io/library/alpine:latest"],
            ["oci:m:app", "oci:./m:app:latest"],
            ["containerd:", "containerd:"],
        ] {
            assert_eq!(words(&twice).map_err(|error| error.kind()), Err(Kind::Usage), "{twice:?}");
        }
        for apart in [
            ["oci:m:v1", "oci:m:v2"],
            ["ssh://a@node1", "ssh://b@node1"],
            ["ssh://node1/app:1", "ssh://node1/app:2"],
            ["h.lan/app:1", "h.lan/app:2"],
            ["/dev/null", "docker-archive:/dev/null"],
        ] {
            words(&apart).unwrap();
        }
    }

    #[test]
    fn a_file_of_hosts_has_one_on_each_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "# mine\nnode1\nroot@node2  # second\n\n  node3:2222\nnode4.lan:\nssh://n5/app:2\nr.lan:5000/app:2\nu@n6:app:2\nu@[::1]:22\nx{1..2}\n./a.tar\nb.tar.zst\n";
        std::fs::write(file.path(), text).unwrap();
        let found: Vec<String> =
            targets(&[], Some(file.path())).unwrap().into_iter().map(|target| target.word).collect();
        let expected = [
            "ssh://node1",
            "ssh://root@node2",
            "ssh://node3:2222",
            "node4.lan:",
            "ssh://n5/app:2",
            "r.lan:5000/app:2",
            "u@n6:app:2",
            "ssh://u@[::1]:22",
            "ssh://x1",
            "ssh://x2",
            "./a.tar",
            "b.tar.zst",
        ];
        assert_eq!(found, expected);
        for wrong in ["node1 node2\n", "# none\n", "-host\n"] {
            std::fs::write(file.path(), wrong).unwrap();
            assert_eq!(targets(&[], Some(file.path())).unwrap_err().kind(), Kind::Usage, "{wrong}");
        }
    }
}
