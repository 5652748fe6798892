//! The destinations of a copy: from the command line and from `--hosts`, with braces expanded and duplicates refused.

use super::braces::{MAX_EXPANDED_WORDS, expand};
use super::{Address, parse};
use crate::transport::archive::address::is_archive;
use crate::transport::table::TABLE;
use crate::{Error, Result};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// The largest file of `--hosts`.
const MAX_HOSTS_FILE_BYTES: u64 = 4 << 20;

/// One destination.
#[derive(Debug)]
pub struct Destination {
    /// The address as the user wrote it.
    pub word: String,
    pub address: Box<dyn Address>,
}

/// The destinations in `words` and in the lines of `hosts`.
///
/// Fails with `Usage`, or if the file cannot be read.
pub fn parse_destinations(words: &[OsString], hosts: Option<&Path>) -> Result<Vec<Destination>> {
    let mut all = Vec::new();
    for word in words {
        all.extend(expanded(word)?);
    }
    if let Some(file) = hosts {
        for line in lines(file)? {
            all.extend(expanded(OsStr::new(&as_host(line)))?);
        }
    }
    if all.is_empty() {
        return Err(Error::usage("--hosts names no destination"));
    }
    if all.len() > MAX_EXPANDED_WORDS {
        return Err(Error::usage(format!("{} destinations are more than {MAX_EXPANDED_WORDS}", all.len())));
    }
    each_once(&all)?;
    Ok(all)
}

/// The destinations that one word stands for. Braces in a valid address (the name of a file) are not expanded.
fn expanded(word: &OsStr) -> Result<Vec<Destination>> {
    let target = |word: &OsStr, address| Destination { word: word.to_string_lossy().into_owned(), address };
    let braces = word.to_str().filter(|text| text.contains('{'));
    match (parse(word), braces) {
        (Ok(address), None) => Ok(vec![target(word, address)]),
        (Ok(address), Some(_)) if !address.profile().is_host => Ok(vec![target(word, address)]),
        (Err(error), None) => Err(error),
        (_, Some(text)) => {
            expand(text)?.iter().map(|word| Ok(target(OsStr::new(word), parse(OsStr::new(word))?))).collect()
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
    let mut left = MAX_HOSTS_FILE_BYTES;
    for line in BufReader::new(bytes.take(MAX_HOSTS_FILE_BYTES + 1)).lines() {
        let line = line.map_err(reading)?;
        left = left.checked_sub(line.len() as u64 + 1).ok_or_else(|| {
            Error::usage(format!(
                "{shown} has more than {MAX_HOSTS_FILE_BYTES} bytes; expected a destination on each line"
            ))
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

/// The address in a line of `--hosts`. `node1`, `root@node1` and `node1:2222` are hosts in it, unlike on the command line.
fn as_host(line: String) -> String {
    let is_plain = !line.contains('/') && !line.ends_with(':') && !is_archive(&line);
    let is_host = is_plain && line != "-" && !TABLE.iter().any(|transport| line.starts_with(transport.scheme));
    // `user@host:REF` is an address already.
    let behind =
        line.split_once('@').and_then(|(_, host)| host.rsplit_once(']').unwrap_or(("", host)).1.split_once(':'));
    let has_reference = behind.is_some_and(|(_, port)| port.parse::<u16>().is_err());
    if is_host && !has_reference { format!("ssh://{line}") } else { line }
}

/// Fails if two spellings name one destination.
fn each_once(targets: &[Destination]) -> Result<()> {
    let mut seen: HashMap<String, &str> = HashMap::new();
    for target in targets {
        let Some(key) = target.address.identity() else { continue };
        if let Some(before) = seen.insert(key, &target.word) {
            let word = &target.word;
            return Err(Error::usage(match before == word {
                true => format!("{word} is named twice as a destination"),
                false => format!("{before} and {word} are one destination; remove one of them"),
            }));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn words(words: &[&str]) -> Result<Vec<String>> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        Ok(parse_destinations(&words, None)?.into_iter().map(|target| target.word).collect())
    }

    #[test]
    fn braces_are_expanded_where_the_word_is_not_an_address_yet() {
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
    fn one_destination_in_two_spellings_is_refused() {
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
            ["registry-dir:r:app", "registry-dir:./r/docker/registry/v2:app:latest"],
            ["containerd:", "containerd:"],
        ] {
            assert_eq!(words(&twice).map_err(|error| error.kind()), Err(Kind::Usage), "{twice:?}");
        }
        for apart in [
            ["oci:m:v1", "oci:m:v2"],
            ["registry-dir:r:app:1", "registry-dir:r:app:2"],
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
            parse_destinations(&[], Some(file.path())).unwrap().into_iter().map(|target| target.word).collect();
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
            assert_eq!(parse_destinations(&[], Some(file.path())).unwrap_err().kind(), Kind::Usage, "{wrong}");
        }
    }
}
