//! Reader for `known_hosts` (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT), the host keys that are trusted. libssh2 compares
//! names hashed with SHA-1. This module does the rest, since libssh2 supports neither wildcards nor markers.

use super::pattern;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::path::Path;

/// A file is read up to this size.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// The keys recorded for one host.
#[derive(Debug, Default)]
pub(super) struct KnownHost(Vec<HostKeyEntry>);

#[derive(Debug)]
struct HostKeyEntry {
    revoked: bool,
    kind: String,
    key: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HostKeyVerdict {
    Known,
    Unknown,
    /// Other keys are recorded: the host was reinstalled, or another host responds.
    Changed,
    /// Marked `@revoked`.
    Revoked,
}

impl KnownHost {
    /// Reads the keys of the host listed as `name` from `files`. Missing files are ignored.
    pub fn read<'f>(files: impl IntoIterator<Item = &'f Path>, name: &str) -> KnownHost {
        let mut keys = KnownHost::default();
        for file in files {
            use std::io::Read;
            let mut bytes = Vec::new();
            let read = std::fs::File::open(file).and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes));
            if read.is_ok() {
                keys.add(&String::from_utf8_lossy(&bytes), name);
            }
        }
        keys
    }

    /// Reads the keys of the host listed as `name` from `text`.
    pub fn parse(text: &str, name: &str) -> KnownHost {
        let mut keys = KnownHost::default();
        keys.add(text, name);
        keys
    }

    fn add(&mut self, text: &str, name: &str) {
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace().peekable();
            let marker = words.next_if(|word| word.starts_with('@'));
            let (Some(names), Some(kind), Some(key)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let (false, Ok(key)) = (names.starts_with('#'), STANDARD.decode(key)) else {
                continue;
            };
            let matches = match names.starts_with('|') {
                true => hash_matches(names, kind, name),
                false => pattern::matches(names.split(','), name),
            };
            // Host certificates are not supported: an authority's key is not a host key.
            if matches && marker != Some("@cert-authority") {
                self.0.push(HostKeyEntry { revoked: marker == Some("@revoked"), kind: kind.to_owned(), key });
            }
        }
    }

    pub fn check(&self, key: &[u8]) -> HostKeyVerdict {
        let mut listed = self.0.iter().filter(|entry| !entry.revoked).peekable();
        if self.0.iter().any(|entry| entry.revoked && entry.key == key) {
            HostKeyVerdict::Revoked
        } else if listed.peek().is_none() {
            HostKeyVerdict::Unknown
        } else if listed.any(|entry| entry.key == key) {
            HostKeyVerdict::Known
        } else {
            HostKeyVerdict::Changed
        }
    }

    /// The host key algorithms to request, those of recorded keys first: a server with several keys must present the
    /// recorded one.
    pub fn algorithms(&self) -> String {
        const ALL: [(&str, &str); 5] = [
            ("ssh-ed25519", "ssh-ed25519"),
            ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256"),
            ("ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384"),
            ("ecdsa-sha2-nistp521", "ecdsa-sha2-nistp521"),
            ("ssh-rsa", "rsa-sha2-512,rsa-sha2-256"),
        ];
        let recorded = |kind: &str| self.0.iter().any(|entry| !entry.revoked && entry.kind == kind);
        let (first, then): (Vec<_>, Vec<_>) = ALL.into_iter().partition(|(kind, _)| recorded(kind));
        first.into_iter().chain(then).map(|(_, algorithms)| algorithms).collect::<Vec<_>>().join(",")
    }
}

/// Appends `line` to a known_hosts file. A new file is writable by its user only.
pub(super) fn append(file: &Path, line: &str) -> std::io::Result<()> {
    use std::io::{Read, Seek, SeekFrom, Write};
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    if let Some(folder) = file.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file = std::fs::OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(file)?;
    let mut last = [b'\n'];
    if file.seek(SeekFrom::End(-1)).is_ok() {
        // A device may have no last byte, even after a successful seek.
        let _ = file.read(&mut last)?;
    }
    let separator = if last == *b"\n" { "" } else { "\n" };
    file.write_all(format!("{separator}{line}\n").as_bytes())
}

/// The name of a host in known_hosts: `host`, or `[host]:port` for a port other than 22.
pub(super) fn known_hosts_name(host: &str, port: u16) -> String {
    match port {
        22 => host.to_lowercase(),
        port => format!("[{}]:{port}", host.to_lowercase()),
    }
}

/// Whether the hash `names` is that of `name`. libssh2 looks up keys, not names: with an arbitrary key it returns
/// `Mismatch` if the name matches.
fn hash_matches(names: &str, kind: &str, name: &str) -> bool {
    let line = format!("{names} {kind} {}", STANDARD.encode(b"recorded"));
    let asked = || -> Result<bool, ssh2::Error> {
        let mut one = ssh2::Session::new()?.known_hosts()?;
        one.read_str(&line, ssh2::KnownHostFileKind::OpenSSH)?;
        Ok(matches!(one.check(name, b"another"), ssh2::CheckResult::Mismatch | ssh2::CheckResult::Match))
    };
    asked().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `web.lan` and `[web.lan]:2222` as `ssh-keygen -H` hashed them.
    const HASHED: &str = "\
|1|vyibGKxNe0wxCn37FtRcHN7wOik=|Rjh0+yU8fCX65RM2FMEEll2JSvY= ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==
|1|vUuZJkmhqyh1y1pd8inTvigsKNg=|JwlflGrUjH7WkP8g2BPR/avxrc8= ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==
";
    const ED: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIA==";

    fn judged(text: &str, host: &str, port: u16, key: &str) -> HostKeyVerdict {
        let mut keys = KnownHost::default();
        keys.add(text, &known_hosts_name(host, port));
        keys.check(&STANDARD.decode(key).unwrap())
    }

    #[test]
    fn a_host_is_known_by_name_list_wildcard_and_hash() {
        for line in ["web.lan", "10.0.0.1,web.lan", "*.lan,!db.lan", "WEB.lan"] {
            let text = format!("# comment\n\nbroken line\n{line} ssh-ed25519 {ED} me@here\n");
            assert_eq!(judged(&text, "web.lan", 22, ED), HostKeyVerdict::Known, "{line}");
            assert_eq!(judged(&text, "db.lan", 22, ED), HostKeyVerdict::Unknown, "{line}");
            assert_eq!(judged(&text, "web.lan", 2222, ED), HostKeyVerdict::Unknown, "{line}");
        }
        assert_eq!(judged(HASHED, "web.lan", 22, ED), HostKeyVerdict::Known);
        assert_eq!(judged(HASHED, "web.lan", 2222, ED), HostKeyVerdict::Known);
        assert_eq!(judged(HASHED, "web.lan", 2223, ED), HostKeyVerdict::Unknown);
    }

    #[test]
    fn another_key_for_a_known_host_is_a_changed_one() {
        let text = format!("web.lan ssh-ed25519 {ED}\n");
        assert_eq!(judged(&text, "web.lan", 22, "AAAA"), HostKeyVerdict::Changed);
        let both = format!("{text}web.lan ssh-rsa AAAA\n");
        assert_eq!(judged(&both, "web.lan", 22, "AAAA"), HostKeyVerdict::Known);
    }

    #[test]
    fn a_revoked_key_is_never_known() {
        let text = format!("web.lan ssh-ed25519 {ED}\n@revoked * ssh-ed25519 {ED}\n@cert-authority * ssh-rsa AAAA\n");
        assert_eq!(judged(&text, "web.lan", 22, ED), HostKeyVerdict::Revoked);
        assert_eq!(judged(&text, "db.lan", 22, "AAAA"), HostKeyVerdict::Unknown);
    }

    #[test]
    fn the_recorded_kind_of_key_is_asked_for_first() {
        let mut keys = KnownHost::default();
        keys.add(&format!("h ssh-rsa {ED}\n"), "h");
        assert!(keys.algorithms().starts_with("rsa-sha2-512,rsa-sha2-256,ssh-ed25519"));
    }
}
