//! Real engines behind real sshds beside a registry and a layout, all from one reading.

use super::memory::{Memory, layer};
use super::support::engines::{Kind, Peer};
use super::support::program::imgmv;
use super::support::registry::Double;
use super::support::sshd::Sshd;
use imgmv::internals::layout::{BlobCheck, LayoutSink};
use imgmv::{Cancel, Options, Silent, Source, copy};
use std::fs;
use std::sync::Arc;
use tempfile::TempDir;

const NAME: &str = "docker.io/library/app:2";

#[test]
fn engines_of_three_kinds_a_registry_and_a_layout_share_one_reading() {
    let kinds = [Kind::Docker20, Kind::Containerd16, Kind::Podman4];
    let Some(peers) = kinds.iter().map(|kind| Peer::start(*kind)).collect::<Option<Vec<Peer>>>() else { return };
    let hosts = peers.iter().map(|peer| Sshd::start("", &peer.environment)).collect::<Option<Vec<Sshd>>>();
    let Some(hosts) = hosts else { return };
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let host = |(nth, sshd): (usize, &Sshd)| {
        format!(
            "Host node{nth}\n  HostName 127.0.0.1\n  Port {}\n  User root\n  IdentitiesOnly yes\n  IdentityFile {}\n  \
             UserKnownHostsFile {}\n",
            sshd.port,
            sshd.at("home/.ssh/id_ed25519"),
            sshd.known_hosts()
        )
    };
    fs::write(at("config"), hosts.iter().enumerate().map(host).collect::<String>()).unwrap();
    let mut memory = Memory::default();
    let image = memory.image("linux/amd64", &[1, 2, 3].map(|seed| layer(seed, 2_000_000)));
    memory.name(NAME, &image);
    let sink = LayoutSink::open(&dir.path().join("image"), BlobCheck::Size, Arc::new(Silent)).unwrap();
    copy(Source::Store(Arc::new(memory)), &sink, &Options::default(), None, &Silent, &Cancel::default()).unwrap();
    let (source, target) = (Double::start(), Double::start());
    let place = format!("{}/library/app:2", source.host());
    let good = |args: &[&str]| {
        let out = imgmv(args, None);
        assert!(out.status.success(), "{}", out.stderr);
        out
    };
    good(&["copy", &format!("oci:{}", at("image")), &place, "--compress", "keep"]);
    let (mirror, layout) = (format!("{}/app:2", target.host()), format!("oci:{}", at("layout")));
    let fan = ["copy", &place, "ssh://node{0..2}", &mirror, &layout, "--as", "app:2"];
    let ssh = format!("ssh -F {}", at("config"));
    let told = |from: &str| {
        source.forget_requests();
        let out = good(&[&fan[..], &["--ssh", &ssh, "--json"]].concat());
        let blobs = source.requests().iter().filter(|r| r.method == "GET" && r.path.contains("/blobs/")).count();
        let told: serde_json::Value = serde_json::from_str(&out.stdout).unwrap();
        assert_eq!(told["destinations"].as_array().unwrap().len(), 5, "{from}");
        blobs
    };
    // The config and three layers.
    assert_eq!(told("first"), 4);
    for peer in &peers {
        assert!(peer.id(NAME).is_some(), "{:?}", peer.kind);
    }
    assert_eq!(target.tag("app", "2"), Some(image.digest));
    // What is there is not read again; the config is what engines are asked by.
    assert!(told("again") <= 1);
}
