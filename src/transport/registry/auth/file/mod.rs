//! One file of credentials, docker's `config.json` or containers' `auth.json`: what it says of a registry, and the
//! entries that login and logout write. What imgmv does not understand in it is kept.

use super::helper;
use super::secret::Login;
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

/// In bytes; larger files are refused.
const MAX_FILE_BYTES: u64 = 4 << 20;
const HTTP: &str = "http://";
/// docker's name for its own registry, in all of its files and helpers.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// How a login reached its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginTransport {
    /// Or on this machine.
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

/// The name under which `host`'s credentials are kept.
pub fn key(host: &str) -> &str {
    if host == crate::image::DEFAULT_REGISTRY { HUB_KEY } else { host }
}

pub struct AuthFile {
    path: PathBuf,
    document: Map<String, Value>,
}

impl AuthFile {
    /// Reads `path`; `None` where there is no such file.
    pub fn read(path: &Path) -> Result<Option<AuthFile>> {
        let shown = path.display();
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(e) => return Err(Error::reading(format!("the credentials file {shown}"), e)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| Error::reading(format!("the credentials file {shown}"), e))?;
        AuthFile::parse(path, &bytes).map(Some)
    }

    /// What `bytes`, all of the file at `path`, say.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<AuthFile> {
        let wrong = |why: &str| Error::invalid(format!("the credentials file {} is not used: {why}", path.display()));
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(wrong(&format!("it has more than {MAX_FILE_BYTES} bytes")));
        }
        if bytes.trim_ascii().is_empty() {
            return Ok(AuthFile { path: path.to_owned(), document: Map::new() });
        }
        // The parser's own words could quote a secret, so only the place is told.
        let document: Value = serde_json::from_slice(bytes)
            .map_err(|e| wrong(&format!("it is not JSON (line {}, column {})", e.line(), e.column())))?;
        match document {
            Value::Object(document) => Ok(AuthFile { path: path.to_owned(), document }),
            _ => Err(wrong("it is not a JSON object")),
        }
    }

    /// What the file, or a helper that it names, knows for `repository` at `host`. `complaint` hears of a helper that
    /// does not answer; the search goes on without it.
    pub fn find(&self, host: &str, repository: &str, complaint: &mut dyn FnMut(Error)) -> Option<Login> {
        let helpers = self.document.get("credHelpers").and_then(Value::as_object);
        let own =
            helpers.and_then(|all| all.iter().find(|(name, _)| normalized_key(name) == host)).map(|(_, name)| name);
        let general = self.document.get("credsStore");
        for name in [own, general].into_iter().flatten().filter_map(Value::as_str).filter(|name| !name.is_empty()) {
            match helper::get(name, key(host)) {
                Ok(Some(login)) => return Some(login),
                Ok(None) => {}
                Err(error) => complaint(error.at(self.helper_task("read", host, name))),
            }
        }
        self.stored(host, repository)
    }

    /// What the file itself keeps for `repository` at `host`.
    pub fn stored(&self, host: &str, repository: &str) -> Option<Login> {
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

    /// Whether a login over plain HTTP kept what is known for `host`: then its key is a URL, which docker and podman
    /// read as well.
    pub fn is_over_http(&self, host: &str) -> bool {
        let auths = self.document.get("auths").and_then(Value::as_object);
        auths.is_some_and(|all| all.keys().any(|name| name.starts_with(HTTP) && normalized_key(name) == host))
    }

    /// Writes `password` of `user` for `host` into `path` (through the helper the file names, if any), mode 0600.
    /// Says where it went.
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
        // The helper has no place for this; docker, too, has empty entries beside a helper.
        if transport == LoginTransport::PlainHttp || file.is_over_http(host) {
            file.set_entry(host, transport, json!({})).and_then(|()| file.write()).map_err(failed)?;
        }
        Ok(format!("docker-credential-{name}"))
    }

    /// Makes `entry` the only one of `host`.
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

    /// What a helper was to do, for a sentence about what it did.
    fn helper_task(&self, verb: &str, host: &str, name: &str) -> String {
        let name: String = name.chars().take(60).collect();
        format!(
            "cannot {verb} the credentials of {host} with docker-credential-{name}, which {} names",
            self.path.display()
        )
    }

    /// Removes what `path` (or its helper) knows for `host`; says whether there was anything.
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

    /// Replaces the file as a whole. A link is followed, as people keep such files elsewhere.
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

/// The names under which a repository's credentials may lie, the nearest first: `host/a/b`, `host/a`, `host`
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

/// A key of `auths` or `credHelpers` brought to the form of a reference: without scheme and API path, and docker's
/// own registry under one name.
fn normalized_key(name: &str) -> String {
    let bare = name.strip_prefix("https://").or(name.strip_prefix("http://")).unwrap_or(name).trim_end_matches('/');
    let bare = if bare.len() == name.len() {
        bare
    } else {
        // A URL's path is the API's, not a repository.
        bare.split('/').next().unwrap_or(bare)
    };
    let (host, path) = bare.split_once('/').map_or((bare, ""), |(host, path)| (host, path));
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => crate::image::DEFAULT_REGISTRY,
        host => host,
    };
    if path.is_empty() || matches!(path, "v1" | "v2") { host.to_owned() } else { format!("{host}/{path}") }
}

/// One entry of `auths`; `None` where it holds nothing (docker leaves empty entries beside a helper).
fn login(entry: &Value) -> Option<Login> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(token) = text("identitytoken") {
        return Some(Login::Identity(Secret::new(token)));
    }
    if let Some(token) = text("registrytoken") {
        return Some(Login::Token(Secret::new(token)));
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
