//! The program and its peers, each in its oldest and its newest version at hand: what imgmv writes they read, what
//! they write imgmv reads, and the digests stay what they were.

#[path = "interop/archives.rs"]
mod archives;
#[path = "interop/engines.rs"]
mod engines_here;
#[path = "interop/far.rs"]
mod far;
#[path = "interop/huge.rs"]
mod huge;
#[path = "interop/large.rs"]
mod large;
#[path = "interop/registries.rs"]
mod registries;
#[path = "support/mod.rs"]
mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use support::engines::{Kind, Peer};
use support::program::peer;
use support::shell::Shell;
use support::some_registry::Registry;

/// The fixtures' images (fixtures/README.md): `layout:1`, `layout:bye`, and the index `multi:1`.
const HELLO: &str = "sha256:602b22ac0877e98491067019bf894774c63bd3f2b4be96809c3c1e9a29cca06c";
const BYE: &str = "sha256:0f4b9eec6b1a9c22c724ab3f81b196c415b15c2538cd5b40b6d21c26dab85e90";
const MULTI: &str = "sha256:1e8da6cd7fd1d027d8c4b738aec76f1bf0686397fcc80da6e7a70db620d8aaf6";
const HELLO_CONFIG: &str = "sha256:54e28c1bb2d5d187a1e809dd97d69756369d677b2d105af1678620f9383bd14e";
const BYE_CONFIG: &str = "sha256:be097df27b97413957e18a8a90f5740763f32d781db5d659bfb394145024a772";
/// The fixture's image with its layers unpacked, as docker 28 makes the manifest and imgmv the one that an old archive lacks.
const RAW_HELLO: &str = "sha256:b5460fd902613226e30a3fd4108b565c8786729d7340208367cbbb74cc7bbcc1";

/// What the image of the fixtures prints when it runs.
const GREETING: &str = "hello from imgmv";

/// Each engine in turn does all of it: starting one costs more than the rest.
fn everywhere(check: impl Fn(&Peer, &Shell)) {
    some(&Kind::ALL, check);
}

fn some(kinds: &[Kind], check: impl Fn(&Peer, &Shell)) {
    for &kind in kinds {
        if let Some(peer) = Peer::start(kind) {
            let started = Instant::now();
            check(&peer, &Shell::with(&peer.environment));
            println!("{kind:?}: ok, {:.1} s", started.elapsed().as_secs_f32());
        }
    }
}

/// The peers among `programs` that are here.
fn installed<'a>(programs: &[&'a str]) -> Vec<&'a str> {
    programs.iter().copied().filter(|program| peer(program).is_some()).collect()
}

/// What the engine calls an image: the manifest's digest where it keeps manifests, else the config's.
fn id<'a>(peer: &Peer, manifest: &'a str, config: &'a str) -> &'a str {
    match peer.kind {
        Kind::Docker28c | Kind::Containerd16 | Kind::Containerd21 => manifest,
        Kind::Docker20 | Kind::Docker28 | Kind::Podman4 | Kind::Podman5 => config,
    }
}

/// The engine's own command that loads an archive from standard input.
fn load(kind: Kind) -> &'static str {
    match kind {
        Kind::Docker20 | Kind::Docker28 | Kind::Docker28c => "docker load -q",
        Kind::Containerd16 | Kind::Containerd21 => "ctr images import -",
        Kind::Podman4 | Kind::Podman5 => "podman load -q",
    }
}

/// The engine's own command that runs an image.
fn run(kind: Kind, name: &str) -> String {
    match kind {
        Kind::Docker20 | Kind::Docker28 | Kind::Docker28c => format!("docker run --rm --network none {name}"),
        Kind::Containerd16 | Kind::Containerd21 => format!("ctr run --rm {name} {}", container()),
        Kind::Podman4 => format!(
            "podman --cgroup-manager cgroupfs --events-backend none run --rm --network none --ulimit nofile=1024:1024 \
             --ulimit nproc=1024:1024 {name}"
        ),
        Kind::Podman5 => format!(
            "podman --runtime runc --cgroup-manager cgroupfs --events-backend none run --rm --network none {name}"
        ),
    }
}

/// The id of a container that has not run yet. All containerds of a host keep their containers' state in one folder.
fn container() -> String {
    static RUN: AtomicUsize = AtomicUsize::new(0);
    format!("greeter-{}-{}", std::process::id(), RUN.fetch_add(1, Ordering::Relaxed))
}

/// The engine's own command that writes `names` as an archive to standard output.
fn save(kind: Kind, names: &str) -> String {
    match kind {
        Kind::Docker20 | Kind::Docker28 | Kind::Docker28c => format!("docker save {names}"),
        Kind::Containerd16 => format!("ctr images export - {names}"),
        // Its transfer service can lose the end of the stream (containerd #12968); ctr itself reads the images here.
        Kind::Containerd21 => format!("ctr images export --local - {names}"),
        Kind::Podman4 | Kind::Podman5 => format!("podman save -q -m {names}"),
    }
}
