//! One credential file, docker's `config.json` or containers' `auth.json`: reads entries, and writes and removes them
//! for login and logout. Content that imgmv does not know is preserved.

use super::helper;
use super::secret::LoginSecret;
use crate::error::{Error, Result};
use crate::transport::registry::options::Secret;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// A larger file is refused.
const MAX_FILE_BYTES: u64 = 4 << 20;
const HTTP: &str = "http://";
/// docker's name for its own registry, in all of its files and helpers.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// The transport of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginTransport {
    /// Or plain HTTP on loopback.
    Tls,
    PlainHttp,
}

impl LoginTransport {
    fn key(self, host: &str) -> String {
        match self {
            LoginTransport::Tls => key(host).to_owned(),
            LoginTransport::PlainHttp => format!("{HTTP}{host}"),
        }
    }
}

/// Returns the key of `host`'s credentials.
pub fn key(host: &str) -> &str {
    if host == crate::image::DEFAULT_REGISTRY { HUB_KEY } else { host }
}

pub struct AuthFile {
    path: PathBuf,
    document: Map<String, Value>,
}

impl AuthFile {
    /// Reads `path`. Returns `None` if it does not exist.
    pub fn read(path: &Path) -> Result<Option<AuthFile>> {
        let name = path.display();
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(e) => return Err(Error::reading(format!("the credentials file {name}"), e)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| Error::reading(format!("the credentials file {name}"), e))?;
        AuthFile::parse(path, &bytes).map(Some)
    }

    /// Parses `bytes`, the complete content of the file at `path`.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<AuthFile> {
        let wrong = |why: &str| Error::invalid(format!("the credentials file {} is invalid: {why}", path.display()));
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(wrong(&format!("it is larger than {MAX_FILE_BYTES} bytes")));
        }
        if bytes.trim_ascii().is_empty() {
            return Ok(AuthFile { path: path.to_owned(), document: Map::new() });
        }
        // The parser's message could quote a secret, so the error contains only the position.
        let document: Value = serde_json::from_slice(bytes)
            .map_err(|e| wrong(&format!("it is not JSON (line {}, column {})", e.line(), e.column())))?;
        match document {
            Value::Object(document) => Ok(AuthFile { path: path.to_owned(), document }),
            _ => Err(wrong("it is not a JSON object")),
        }
    }

    /// Returns the credentials for `repository` at `host` from the helpers that the file names, or from the file.
    /// `report` receives the error of a helper that fails; the helper is skipped.
    pub fn find(&self, host: &str, repository: &str, report: &mut dyn FnMut(Error)) -> Option<LoginSecret> {
        let helpers = self.document.get("credHelpers").and_then(Value::as_object);
        let own =
            helpers.and_then(|all| all.iter().find(|(name, _)| normalized_key(name) == host)).map(|(_, name)| name);
        let general = self.document.get("credsStore");
        for name in [own, general].into_iter().flatten().filter_map(Value::as_str).filter(|name| !name.is_empty()) {
            match helper::get(name, key(host)) {
                Ok(Some(login)) => return Some(login),
                Ok(None) => {}
                Err(error) => report(error.at(self.helper_task("read", host, name))),
            }
        }
        self.stored(host, repository)
    }

    /// Returns the credentials for `repository` at `host` in the file itself.
    pub fn stored(&self, host: &str, repository: &str) -> Option<LoginSecret> {
        let auths = self.document.get("auths")?.as_object()?;
        for wanted in lookup_keys(host, repository) {
            let entry =
                auths.iter().filter(|(name, _)| normalized_key(name) == wanted).find_map(|(_, entry)| login(entry));
            if entry.is_some() {
                return entry;
            }
        }
        None
    }

    /// Whether a login over plain HTTP stored the credentials for `host`. Their key is then a URL, which docker and
    /// podman can read too.
    pub fn is_over_http(&self, host: &str) -> bool {
        let auths = self.document.get("auths").and_then(Value::as_object);
        auths.is_some_and(|all| all.keys().any(|name| name.starts_with(HTTP) && normalized_key(name) == host))
    }

    /// Stores `password` of `user` for `host` in `path` with mode 0600, or in the helper that the file names. Returns
    /// the file or helper.
    pub fn store(path: &Path, host: &str, user: &str, password: &Secret, transport: LoginTransport) -> Result<String> {
        let failed = |error: Error| error.at(format!("cannot store the credentials of {host}"));
        let file = AuthFile::read(path).map_err(failed)?;
        let mut file = file.unwrap_or(AuthFile { path: path.to_owned(), document: Map::new() });
        let Some(name) = file.helper_for(host) else {
            let entry = json!({ "auth": STANDARD.encode(format!("{user}:{}", password.reveal())) });
            file.set_entry(host, transport, entry).and_then(|()| file.write()).map_err(failed)?;
            return Ok(path.display().to_string());
        };
        let stored = helper::store(&name, key(host), user, password);
        stored.map_err(|error| Error::unwritable(error.at(file.helper_task("store", host, &name)).to_string()))?;
        // A helper cannot store the transport, so an empty entry does. docker writes empty entries too.
        if transport == LoginTransport::PlainHttp || file.is_over_http(host) {
            file.set_entry(host, transport, json!({})).and_then(|()| file.write()).map_err(failed)?;
        }
        Ok(format!("docker-credential-{name}"))
    }

    /// Replaces all entries of `host` by `entry`.
    fn set_entry(&mut self, host: &str, transport: LoginTransport, entry: Value) -> Result<()> {
        let auths = self.document.entry("auths").or_insert_with(|| json!({}));
        if auths.is_null() {
            *auths = json!({});
        }
        let wrong = || Error::invalid(format!("the \"auths\" of {} is not an object", self.path.display()));
        let auths = auths.as_object_mut().ok_or_else(wrong)?;
        auths.retain(|name, _| normalized_key(name) != host);
        auths.insert(transport.key(host), entry);
        Ok(())
    }

    /// Describes a helper's task, for the message of its failure.
    fn helper_task(&self, verb: &str, host: &str, name: &str) -> String {
        let name: String = name.chars().take(60).collect();
        format!(
            "cannot {verb} the credentials of {host} with docker-credential-{name}, which {} names",
            self.path.display()
        )
    }

    /// Removes the credentials for `host` from `path` and its helper. Returns whether there were any.
    pub fn remove(path: &Path, host: &str) -> Result<bool> {
        let Some(mut file) = AuthFile::read(path)? else {
            return Ok(false);
        };
        let in_helper = match file.helper_for(host) {
            Some(name) => helper::erase(&name, key(host))
                .map_err(|error| Error::unwritable(error.at(file.helper_task("remove", host, &name)).to_string()))?,
            None => false,
        };
        let Some(auths) = file.document.get_mut("auths").and_then(Value::as_object_mut) else {
            return Ok(in_helper);
        };
        let before = auths.len();
        auths.retain(|name, _| normalized_key(name) != host);
        if auths.len() == before {
            return Ok(in_helper);
        }
        file.write()?;
        Ok(true)
    }

    fn helper_for(&self, host: &str) -> Option<String> {
        let helpers = self.document.get("credHelpers").and_then(Value::as_object);
        let own =
            helpers.and_then(|all| all.iter().find(|(name, _)| normalized_key(name) == host)).map(|(_, name)| name);
        let name = own.or(self.document.get("credsStore"))?.as_str()?;
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// Replaces the file atomically. Follows a symbolic link, since users link such files to other directories.
    fn write(&self) -> Result<()> {
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let failed = |e: std::io::Error| Error::writing(format!("the credentials file {}", path.display()), e);
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(dir).map_err(failed)?;
        let mut file = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let mut text = serde_json::to_vec_pretty(&self.document).expect("a JSON value can always be written");
        text.push(b'\n');
        file.write_all(&text).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&path).map_err(|e| failed(e.error))?;
        Ok(())
    }
}

/// Returns the keys that apply to a repository, the most specific first: `host/a/b`, `host/a`, `host`
/// (containers-auth.json(5)).
fn lookup_keys(host: &str, repository: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut path = repository;
    while !path.is_empty() {
        names.push(format!("{host}/{path}"));
        path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    names.push(host.to_owned());
    names
}

/// Converts a key of `auths` or `credHelpers` to the form of a reference: without scheme and API path, and with one
/// name for docker's own registry.
fn normalized_key(name: &str) -> String {
    let bare = name.strip_prefix("https://").or(name.strip_prefix("http://")).unwrap_or(name).trim_end_matches('/');
    let bare = if bare.len() == name.len() {
        bare
    } else {
        // The path of a URL is the API's, not a repository.
        bare.split('/').next().unwrap_or(bare)
    };
    let (host, path) = bare.split_once('/').map_or((bare, ""), |(host, path)| (host, path));
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => crate::image::DEFAULT_REGISTRY,
        host => host,
    };
    if path.is_empty() || matches!(path, "v1" | "v2") { host.to_owned() } else { format!("{host}/{path}") }
}

/// Parses one entry of `auths`. Returns `None` for an empty entry, which docker writes when a helper has the
/// credentials.
fn login(entry: &Value) -> Option<LoginSecret> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(token) = text("identitytoken") {
        return Some(LoginSecret::Identity(Secret::new(token)));
    }
    if let Some(token) = text("registrytoken") {
        return Some(LoginSecret::Token(Secret::new(token)));
    }
    if let Some(auth) = text("auth") {
        let decoded = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
        let (user, password) = decoded.split_once(':')?;
        // Old versions of docker padded the password with zeros.
        let password = password.trim_end_matches('\0');
        return Some(helper::login(user, password));
    }
    Some(helper::login(text("username")?, text("password")?))
}

#[cfg(test)]
mod tests;
