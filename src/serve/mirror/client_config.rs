//! What to paste into the settings of containerd, docker and podman, so that they ask a server here first.

use crate::error::{Error, Result};
use crate::image::DEFAULT_REGISTRY;
use serde_json::json;
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// Whose settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    Containerd,
    Docker,
    Podman,
}

/// How clients reach the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// `HOST:PORT`.
    pub host: String,
    pub tls: bool,
}

impl Reached {
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.host)
    }
}

/// Text for files, and what a person has to know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Paths and what is to stand there.
    pub files: Vec<(String, String)>,
    pub hints: Vec<String>,
}

/// The settings with which `client` asks the server for images of `registries`; of all where there are none.
///
/// Fails with `Usage` where the client cannot be told so.
pub fn settings(client: Client, registries: &[String], server: &Reached) -> Result<Settings> {
    match client {
        Client::Containerd => Ok(containerd(registries, server)),
        Client::Docker => docker(registries, server),
        Client::Podman => podman(registries, server),
    }
}

fn containerd(registries: &[String], server: &Reached) -> Settings {
    let mut settings = Settings::default();
    let every = ["_default".to_owned()];
    for registry in if registries.is_empty() { &every } else { registries } {
        let home = match &**registry {
            "_default" => String::new(),
            DEFAULT_REGISTRY => "server = \"https://registry-1.docker.io\"\n\n".to_owned(),
            other => format!("server = \"https://{other}\"\n\n"),
        };
        let ca = match server.tls {
            true => {
                "  # who vouches for its certificate, unless this machine trusts it anyway:\n  # ca = \"/etc/containerd/certs.d/mirror-ca.crt\"\n"
            }
            false => "",
        };
        let url = server.url();
        let text = format!("{home}[host.\"{url}\"]\n  capabilities = [\"pull\", \"resolve\"]\n{ca}");
        // containerd looks under both; a colon is no part of a directory's name everywhere.
        settings.files.push((format!("/etc/containerd/certs.d/{registry}/hosts.toml"), text));
    }
    settings.hints.push(
        "containerd reads that directory if its config.toml says so: in the section \
         [plugins.\"io.containerd.grpc.v1.cri\".registry] (containerd 2: [plugins.\"io.containerd.cri.v1.images\".registry]) \
         config_path = \"/etc/containerd/certs.d\"; ctr is told with --hosts-dir, and nerdctl looks there by itself"
            .to_owned(),
    );
    settings
}

fn docker(registries: &[String], server: &Reached) -> Result<Settings> {
    if !registries.is_empty() && !registries.iter().any(|registry| registry == DEFAULT_REGISTRY) {
        return Err(Error::usage(
            "docker asks a mirror for images of docker.io and of no other registry; add --proxy docker.io",
        ));
    }
    let text = serde_json::to_string_pretty(&json!({ "registry-mirrors": [server.url()] }));
    let text = text.map_err(|error| Error::failed(format!("the settings cannot be written: {error}")))? + "\n";
    let mut hints = vec![
        "docker asks a mirror for images of docker.io only; others are pulled as HOST:PORT/registry/name:tag of the mirror"
            .to_owned(),
    ];
    if server.tls {
        let ca = format!("who vouches for its certificate goes to /etc/docker/certs.d/{}/ca.crt", server.host);
        hints.push(ca);
    }
    Ok(Settings { files: vec![("/etc/docker/daemon.json".to_owned(), text)], hints })
}

fn podman(registries: &[String], server: &Reached) -> Result<Settings> {
    if registries.is_empty() {
        return Err(Error::usage("podman is told of a mirror for each registry; name them with --proxy"));
    }
    let insecure = if server.tls { "" } else { "insecure = true\n" };
    let section = |registry: &String| {
        let host = &server.host;
        format!(
            "[[registry]]\nlocation = \"{registry}\"\n\n[[registry.mirror]]\nlocation = \"{host}/{registry}\"\n{insecure}"
        )
    };
    let text = registries.iter().map(section).collect::<Vec<_>>().join("\n");
    let mut hints = Vec::new();
    if server.tls {
        hints.push(format!("who vouches for its certificate goes to /etc/containers/certs.d/{}/ca.crt", server.host));
    }
    Ok(Settings { files: vec![("/etc/containers/registries.conf.d/imgmv.conf".to_owned(), text)], hints })
}

/// Where others reach a server that listens on `listen`: there, or, where that is every address, at this host's own.
pub fn reached(listen: SocketAddr) -> SocketAddr {
    match listen.ip().is_unspecified() {
        true => SocketAddr::new(own_address(), listen.port()),
        false => listen,
    }
}

/// The address of this host that packets to others leave from. None is sent.
fn own_address() -> IpAddr {
    let outward = || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        // Kept for documentation (RFC 5737): nobody is there.
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    };
    outward().map_or(IpAddr::from([127, 0, 0, 1]), |address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_is_told_in_its_own_words() {
        let server = Reached { host: "10.0.0.7:5000".into(), tls: false };
        let both = ["docker.io".to_owned(), "quay.io".to_owned()];
        let of = |client| settings(client, &both, &server).unwrap().files;
        let files = of(Client::Containerd);
        assert_eq!(files[1].0, "/etc/containerd/certs.d/quay.io/hosts.toml");
        assert_eq!(
            files[1].1,
            "server = \"https://quay.io\"\n\n[host.\"http://10.0.0.7:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
        );
        assert!(files[0].1.starts_with("server = \"https://registry-1.docker.io\"\n"));
        assert_eq!(of(Client::Docker)[0].1, "{\n  \"registry-mirrors\": [\n    \"http://10.0.0.7:5000\"\n  ]\n}\n");
        let podman = &of(Client::Podman)[0].1;
        assert!(podman.contains("location = \"10.0.0.7:5000/quay.io\"\ninsecure = true\n"), "{podman}");
        assert!(settings(Client::Docker, &both[1..], &server).is_err());
        let secure = Reached { tls: true, ..server };
        let podman = &settings(Client::Podman, &both, &secure).unwrap();
        assert!(!podman.files[0].1.contains("insecure") && podman.hints[0].contains("ca.crt"));
        assert!(settings(Client::Containerd, &[], &secure).unwrap().files[0].0.contains("_default"));
    }
}
