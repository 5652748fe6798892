//! The credentials and the TLS options that a document of images has for registries. They apply to the host that the
//! document names, and to no other.

use crate::sets::HostOptions;
use crate::transport::registry::Credentials;

/// The hosts of a document.
#[derive(Debug, Clone, Default)]
pub struct DocumentHosts {
    hosts: Vec<HostOptions>,
}

impl DocumentHosts {
    pub fn new(hosts: Vec<HostOptions>) -> DocumentHosts {
        DocumentHosts { hosts }
    }

    /// The credentials for `repository` at `host`: those with the longest path that contains it.
    pub fn credentials(&self, host: &str, repository: &str) -> Option<Credentials> {
        let own = self.hosts.iter().filter(|own| *own.host == *host && contains(&own.path, repository));
        let login = own.filter_map(|own| Some((own.path.len(), own.login.as_ref()?))).max_by_key(|(length, _)| *length);
        login.map(|(_, login)| Credentials::Password { user: login.user.clone(), password: login.password.clone() })
    }

    /// Whether the document allows plain HTTP and any certificate at `host`.
    pub fn is_insecure(&self, host: &str) -> bool {
        self.hosts.iter().any(|own| *own.host == *host && own.insecure)
    }
}

/// Whether `repository` is `path`, or below it.
fn contains(path: &str, repository: &str) -> bool {
    let rest = repository.strip_prefix(path.trim_end_matches('/'));
    rest.is_some_and(|rest| path.is_empty() || rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sets::Login;
    use crate::transport::registry::Secret;

    fn host(host: &str, path: &str, user: &str, insecure: bool) -> HostOptions {
        let login = (!user.is_empty()).then(|| Login { user: user.to_owned(), password: Secret::new("secret") });
        HostOptions { host: host.into(), path: path.into(), login, insecure }
    }

    fn user(hosts: &DocumentHosts, host: &str, repository: &str) -> Option<String> {
        match hosts.credentials(host, repository)? {
            Credentials::Password { user, .. } => Some(user),
            _ => None,
        }
    }

    #[test]
    fn credentials_go_only_to_the_host_and_path_that_they_stand_at() {
        let hosts = DocumentHosts::new(vec![
            host("a.lan", "", "all", false),
            host("a.lan", "team", "team", false),
            host("b.lan:5000", "x/y", "deep", true),
            host("c.lan", "", "", true),
        ]);
        for (at, repository, expected) in [
            ("a.lan", "app", Some("all")),
            ("a.lan", "team/app", Some("team")),
            ("a.lan", "team", Some("team")),
            ("a.lan", "teams/app", Some("all")),
            ("b.lan:5000", "x/y/z", Some("deep")),
            ("b.lan:5000", "x", None),
            ("b.lan", "x/y/z", None),
            ("c.lan", "app", None),
            ("d.lan", "app", None),
        ] {
            assert_eq!(user(&hosts, at, repository).as_deref(), expected, "{at}/{repository}");
        }
        let insecure = ["a.lan", "b.lan:5000", "c.lan", "b.lan"].map(|at| hosts.is_insecure(at));
        assert_eq!(insecure, [false, true, true, false]);
    }
}
