//! Reader for the part of `~/.ssh/config` (ssh_config(5)) that is needed to reach a host: Host, HostName, User, Port,
//! IdentityFile, CertificateFile, IdentitiesOnly, ProxyJump, Include and the known_hosts files.

use super::pattern;
use crate::error::{Error, Result};
use crate::remote::split_words;
use std::{
    io::Read,
    path::{Path, PathBuf},
};

/// Nesting depth of Include, at most (ssh's own limit).
const MAX_DEPTH: usize = 16;
/// Files read for one host, at most.
const MAX_FILES: usize = 1000;
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The configuration that applies to one host.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SshSettings {
    pub host_name: Option<String>,
    pub user: Option<String>,
    pub port: Option<u16>,
    /// Private keys in the order in which they are tried; empty: none is configured.
    pub identities: Vec<PathBuf>,
    /// Certificates for any of the keys, in addition to each key's own `KEY-cert.pub`.
    pub certificates: Vec<PathBuf>,
    /// Whether the agent's keys are skipped.
    pub identities_only: Option<bool>,
    /// The jump hosts, `[USER@]HOST[:PORT]`, separated by commas.
    pub jump: Option<String>,
    /// The name under which the host's key is recorded.
    pub key_alias: Option<String>,
    /// The user's own known_hosts files; none: the default ones.
    pub known_hosts: Option<Vec<PathBuf>>,
    pub global_known_hosts: Option<Vec<PathBuf>>,
}

impl SshSettings {
    /// Reads the settings for `host` (as typed) from `home/.ssh/config`, then from `system/ssh_config`. The first value
    /// of an option applies, as in ssh. `Match` sections other than `Match all` are ignored.
    ///
    /// Fails with `Usage` if the host is reached by ProxyCommand, which is not supported.
    pub fn read(host: &str, home: &Path, system: &Path) -> Result<SshSettings> {
        let mut reader = ConfigReader { host, home, settings: SshSettings::default(), files: 0 };
        reader.read_file(&home.join(".ssh/config"), &home.join(".ssh"), 0, true)?;
        reader.read_file(&system.join("ssh_config"), system, 0, true)?;
        Ok(reader.settings)
    }
}

impl SshSettings {
    /// Reads the settings for `host` from `text` alone; Include fails.
    pub fn parse(text: &str, host: &str) -> Result<SshSettings> {
        let nowhere = Path::new("/nonexistent");
        let files = MAX_FILES;
        let mut reader = ConfigReader { host, home: nowhere, settings: SshSettings::default(), files };
        reader.read_text(text, nowhere, 0, true)?;
        Ok(reader.settings)
    }
}

struct ConfigReader<'a> {
    host: &'a str,
    home: &'a Path,
    settings: SshSettings,
    files: usize,
}

impl ConfigReader<'_> {
    /// Reads a file if it exists. Relative paths in it are resolved against `folder`.
    fn read_file(&mut self, path: &Path, folder: &Path, depth: usize, applies: bool) -> Result<()> {
        self.files += 1;
        if depth > MAX_DEPTH || self.files > MAX_FILES {
            return Err(Error::usage(format!(
                "{}: the ssh configuration includes too many files: more than {MAX_FILES}, or nested deeper than \
                 {MAX_DEPTH}",
                path.display()
            )));
        }
        let mut text = String::new();
        let read = std::fs::File::open(path).and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text));
        match read {
            Ok(_) => self.read_text(&text, folder, depth, applies),
            Err(_) => Ok(()),
        }
    }

    /// `applies`: whether the section that includes this text applies to the host.
    fn read_text(&mut self, text: &str, folder: &Path, depth: usize, applies: bool) -> Result<()> {
        let outer = applies;
        let mut applies = applies;
        for line in text.lines() {
            let Some((keyword, values)) = parse_option(line) else {
                continue;
            };
            match keyword.as_str() {
                "host" => applies = outer && pattern::matches(values.iter().map(String::as_str), self.host),
                "match" => applies = outer && values.first().is_some_and(|word| word.eq_ignore_ascii_case("all")),
                _ if !applies => {}
                "include" => {
                    for value in &values {
                        for path in expand_include(&self.resolve_path(value, folder)) {
                            self.read_file(&path, folder, depth + 1, applies)?;
                        }
                    }
                }
                _ => self.set(&keyword, &values, folder)?,
            }
        }
        Ok(())
    }

    fn set(&mut self, keyword: &str, values: &[String], folder: &Path) -> Result<()> {
        let first = values.first().map(String::as_str).unwrap_or_default();
        let paths = || {
            Some(values.iter().filter(|value| *value != "none").map(|value| self.resolve_path(value, folder)).collect())
        };
        let host = self.host;
        let named = || Some(first.replace("%h", host));
        let path = self.resolve_path(first, folder);
        let files = match keyword {
            "userknownhostsfile" | "globalknownhostsfile" => paths(),
            _ => None,
        };
        let settings = &mut self.settings;
        match keyword {
            "hostname" => settings.host_name = settings.host_name.take().or_else(named),
            "user" => settings.user = settings.user.take().or_else(|| Some(first.to_owned())),
            "port" => settings.port = settings.port.or_else(|| first.parse().ok()),
            "identityfile" if first != "none" => settings.identities.push(path),
            "certificatefile" if first != "none" => settings.certificates.push(path),
            "identitiesonly" => settings.identities_only = settings.identities_only.or(Some(first == "yes")),
            "hostkeyalias" => settings.key_alias = settings.key_alias.take().or_else(named),
            "userknownhostsfile" => settings.known_hosts = settings.known_hosts.take().or(files),
            "globalknownhostsfile" => settings.global_known_hosts = settings.global_known_hosts.take().or(files),
            "proxyjump" => settings.jump = settings.jump.take().or_else(|| Some(first.to_owned())),
            // The first of ProxyJump and ProxyCommand applies; the value `none` disables both.
            "proxycommand" if settings.jump.is_none() => {
                if first != "none" {
                    return Err(Error::usage(format!(
                        "{host}: ~/.ssh/config uses ProxyCommand, which the built-in ssh does not support; install an \
                         ssh client, or name one with --ssh"
                    )));
                }
                settings.jump = Some("none".to_owned());
            }
            _ => {}
        }
        Ok(())
    }

    /// Expands `~/`, `%d/` and `%h` as ssh does. A relative path is resolved against `folder`.
    fn resolve_path(&self, path: &str, folder: &Path) -> PathBuf {
        let path = path.replace("%h", self.host);
        match path.strip_prefix("~/").or_else(|| path.strip_prefix("%d/")) {
            Some(rest) => self.home.join(rest),
            None => folder.join(path),
        }
    }
}

/// Expands an Include to its files, sorted. Wildcards are supported in the last path component only.
fn expand_include(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let Some(folder) = path.parent().filter(|_| name.contains(['*', '?'])) else { return vec![path.to_owned()] };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().take(MAX_FILES);
    let fits = |path: &PathBuf| {
        let own = path.file_name().map(|own| own.to_string_lossy().into_owned()).unwrap_or_default();
        !own.starts_with('.') && pattern::matches([name.as_str()], &own)
    };
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(fits).collect();
    found.sort();
    found
}

/// Parses `Keyword value…` or `Keyword=value…`; `None` for an empty line or a comment.
fn parse_option(line: &str) -> Option<(String, Vec<String>)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
    let rest = line[end..].trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest);
    let values = split_words(rest).unwrap_or_else(|_| vec![rest.trim().to_owned()]);
    Some((line[..end].to_lowercase(), values))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "
# mine
Host web1 \"web2\"
    HostName=%h.lan
    User deploy
    IdentityFile ~/.ssh/web key
    Include extra
Match user nobody
    User wrong
Host *
    User root
    Port 2222
    IdentityFile \"/keys/a b\"
    Include config.d/*.conf
Host far
    ProxyJump bastion
Host by
    ProxyCommand nc %h %p
";

    /// A home directory with `CONFIG` and the files of `config.d`.
    fn home() -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(".ssh").join(name);
        std::fs::create_dir_all(at("config.d")).unwrap();
        std::fs::write(at("config"), CONFIG).unwrap();
        std::fs::write(at("extra"), "IdentitiesOnly yes\nHost other\nPort 1\n").unwrap();
        std::fs::write(
            at("config.d/1.conf"),
            "Host db\n  Port 5\n  HostKeyAlias %h-alias\n  UserKnownHostsFile ~/kh k2\n",
        )
        .unwrap();
        std::fs::write(at("config.d/2.conf"), "Host *\n  CertificateFile cert\n").unwrap();
        std::fs::write(at("config.d/3.off"), "User wrong\n").unwrap();
        home
    }

    fn settings_of(host: &str, home: &Path) -> Result<SshSettings> {
        SshSettings::read(host, home, Path::new("/nowhere"))
    }

    #[test]
    fn the_first_value_that_fits_counts() {
        let home = home();
        let in_ssh = |name: &str| home.path().join(".ssh").join(name);
        let web = settings_of("web2", home.path()).unwrap();
        assert_eq!(web.host_name.as_deref(), Some("web2.lan"));
        assert_eq!((web.user.as_deref(), web.port, web.identities_only), (Some("deploy"), Some(2222), Some(true)));
        assert_eq!(web.identities, [in_ssh("web"), PathBuf::from("/keys/a b")]);
        let other = settings_of("db", home.path()).unwrap();
        assert_eq!((other.host_name, other.user.as_deref(), other.identities_only), (None, Some("root"), None));
    }

    #[test]
    fn included_files_say_what_they_say_where_they_are_included() {
        let home = home();
        let db = settings_of("db", home.path()).unwrap();
        // The port was set before.
        assert_eq!((db.port, db.key_alias.as_deref()), (Some(2222), Some("db-alias")));
        assert_eq!(db.known_hosts, Some(vec![home.path().join("kh"), home.path().join(".ssh/k2")]));
        assert_eq!(db.certificates, [home.path().join(".ssh/cert")]);
        // A section of an included file ends with the section that includes it.
        assert_eq!(settings_of("other", home.path()).unwrap().port, Some(2222));
        std::fs::write(home.path().join(".ssh/config"), "Include config\n").unwrap();
        assert!(settings_of("db", home.path()).unwrap_err().to_string().contains("too many files"));
    }

    #[test]
    fn a_jump_is_told_and_a_command_refused() {
        let home = home();
        assert_eq!(settings_of("far", home.path()).unwrap().jump.as_deref(), Some("bastion"));
        assert!(settings_of("by", home.path()).unwrap_err().to_string().contains("ProxyCommand"));
    }
}
