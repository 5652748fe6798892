//! Configuration files for containerd, docker and podman that make them use this server as a mirror.

use crate::error::{Error, Result};
use crate::image::DEFAULT_REGISTRY;
use serde_json::json;
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// The client to configure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    Containerd,
    Docker,
    Podman,
}

/// The URL by which clients reach the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// `HOST:PORT`.
    pub host: String,
    pub tls: bool,
}

impl ServerUrl {
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.host)
    }
}

/// Configuration files and hints for the user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientSettings {
    /// Paths and contents of the files.
    pub files: Vec<(String, String)>,
    pub hints: Vec<String>,
}

/// The settings that make `client` use the server as a mirror of `registries`; of all registries if the list is empty.
///
/// Fails with `Usage` if the client does not support such a setting.
pub fn settings(client: Client, registries: &[String], server: &ServerUrl) -> Result<ClientSettings> {
    match client {
        Client::Containerd => Ok(containerd(registries, server)),
        Client::Docker => docker(registries, server),
        Client::Podman => podman(registries, server),
    }
}

fn containerd(registries: &[String], server: &ServerUrl) -> ClientSettings {
    let mut settings = ClientSettings::default();
    let every = ["_default".to_owned()];
    for registry in if registries.is_empty() { &every } else { registries } {
        let server_line = match &**registry {
            "_default" => String::new(),
            DEFAULT_REGISTRY => "server = \"https://registry-1.docker.io\"\n\n".to_owned(),
            other => format!("server = \"https://{other}\"\n\n"),
        };
        let ca = match server.tls {
            true => {
                "  # the CA of the server's certificate, if this host does not trust it already:\n  # ca = \"/etc/containerd/certs.d/mirror-ca.crt\"\n"
            }
            false => "",
        };
        let url = server.url();
        let text = format!("{server_line}[host.\"{url}\"]\n  capabilities = [\"pull\", \"resolve\"]\n{ca}");
        // containerd also reads HOST_PORT_ directories, for file systems without colons in names.
        settings.files.push((format!("/etc/containerd/certs.d/{registry}/hosts.toml"), text));
    }
    settings.hints.push(
        "containerd reads that directory only if config.toml sets it, in the section \
         [plugins.\"io.containerd.grpc.v1.cri\".registry] (containerd 2: [plugins.\"io.containerd.cri.v1.images\".registry]) \
         config_path = \"/etc/containerd/certs.d\"; ctr needs --hosts-dir; nerdctl reads that directory by default"
            .to_owned(),
    );
    settings
}

fn docker(registries: &[String], server: &ServerUrl) -> Result<ClientSettings> {
    if !registries.is_empty() && !registries.iter().any(|registry| registry == DEFAULT_REGISTRY) {
        return Err(Error::usage("docker uses a mirror only for docker.io; add --proxy docker.io"));
    }
    let text = serde_json::to_string_pretty(&json!({ "registry-mirrors": [server.url()] }));
    let text = text.map_err(|error| Error::failed(format!("cannot serialize the settings: {error}")))? + "\n";
    let mut hints = vec![
        "docker uses a mirror only for docker.io; pull images of other registries as HOST:PORT/registry/name:tag"
            .to_owned(),
    ];
    if server.tls {
        let ca = format!("put the CA of the server's certificate into /etc/docker/certs.d/{}/ca.crt", server.host);
        hints.push(ca);
    }
    Ok(ClientSettings { files: vec![("/etc/docker/daemon.json".to_owned(), text)], hints })
}

fn podman(registries: &[String], server: &ServerUrl) -> Result<ClientSettings> {
    if registries.is_empty() {
        return Err(Error::usage("podman needs a mirror entry for each registry; name the registries with --proxy"));
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
        hints.push(format!(
            "put the CA of the server's certificate into /etc/containers/certs.d/{}/ca.crt",
            server.host
        ));
    }
    Ok(ClientSettings { files: vec![("/etc/containers/registries.conf.d/imgmv.conf".to_owned(), text)], hints })
}

/// The socket address by which other hosts reach a server on `listen`; for a wildcard, with this host's own IP address.
pub fn reachable_socket_address(listen: SocketAddr) -> SocketAddr {
    match listen.ip().is_unspecified() {
        true => SocketAddr::new(own_ip(), listen.port()),
        false => listen,
    }
}

/// The source IP address of packets to other hosts; no packet is sent.
fn own_ip() -> IpAddr {
    let outward = || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        // An IP address reserved for documentation (RFC 5737).
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    };
    outward().map_or(IpAddr::from([127, 0, 0, 1]), |socket_address| socket_address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_is_told_in_its_own_words() {
        let server = ServerUrl { host: "10.0.0.7:5000".into(), tls: false };
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
        let secure = ServerUrl { tls: true, ..server };
        let podman = &settings(Client::Podman, &both, &secure).unwrap();
        assert!(!podman.files[0].1.contains("insecure") && podman.hints[0].contains("ca.crt"));
        assert!(settings(Client::Containerd, &[], &secure).unwrap().files[0].0.contains("_default"));
    }
}
