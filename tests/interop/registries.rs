//! docker's own registry, and everybody who pushes to it and pulls from it beside imgmv.

use super::*;
use support::shell::{config, root};

/// A client that needs no daemon: its program, how it pulls `$FROM` into the layout `pulled`, how it pushes the
/// layout `$LAYOUT` as `$TO`.
const CLIENTS: [(&str, &str, &str); 4] = [
    (
        "skopeo",
        "skopeo --insecure-policy copy -q --all --src-tls-verify=false docker://$FROM oci:pulled:1",
        "skopeo --insecure-policy copy -q --all --dest-tls-verify=false oci:$LAYOUT:1 docker://$TO",
    ),
    (
        "skopeo-new",
        "skopeo-new --insecure-policy copy -q --all --src-tls-verify=false docker://$FROM oci:pulled:1",
        "skopeo-new --insecure-policy copy -q --all --dest-tls-verify=false oci:$LAYOUT:1 docker://$TO",
    ),
    ("crane", "crane pull --format=oci $FROM pulled", "crane push $LAYOUT $TO"),
    (
        "oras",
        "oras copy --from-plain-http $FROM --to-oci-layout pulled:1",
        "oras copy --from-oci-layout $LAYOUT:1 --to-plain-http $TO",
    ),
];

/// A registry that has both images of the fixtures from imgmv: `hello:1` and `multi:1`.
fn seeded(shell: &Shell) -> Registry {
    let registry = Registry::start(shell.path());
    let host = &registry.address;
    shell.run(&format!(
        "imgmv copy -q oci:$FIXTURES/layout:1 docker://{host}/t/hello:1
         imgmv copy -q oci:$FIXTURES/multi:1 docker://{host}/t/multi:1"
    ));
    registry
}

#[test]
fn what_imgmv_pushes_every_client_pulls_with_the_same_digest() {
    let shell = Shell::new();
    let registry = seeded(&shell);
    for (program, pull, _) in CLIENTS {
        if peer(program).is_none() {
            continue;
        }
        for (image, digest) in [("hello", HELLO), ("multi", MULTI)] {
            shell.run(&format!("rm -rf pulled; FROM={}/t/{image}:1; {pull}", registry.address));
            assert_eq!(root(&shell.at("pulled")), digest, "{program}: {image}");
            shell.run("imgmv verify -q oci:pulled");
        }
        println!("{program} pulls: ok");
    }
}

#[test]
fn what_every_client_pushes_imgmv_pulls_with_the_same_digest() {
    let shell = Shell::new();
    let registry = Registry::start(shell.path());
    // crane pushes a layout of one image.
    shell.run("imgmv copy -q oci:$FIXTURES/layout:1 oci:layout:1");
    for (program, _, push) in CLIENTS {
        if peer(program).is_none() {
            continue;
        }
        for (layout, digest) in [("layout", HELLO), ("$FIXTURES/multi", MULTI)] {
            let to = format!("{}/{program}/{}:1", registry.address, &digest[7..15]);
            shell.run(&format!("LAYOUT={layout} TO={to}; {push}"));
            let copied =
                shell.run(&format!("rm -rf got; imgmv copy docker://{to} oci:got:1 && imgmv verify -q oci:got >out"));
            assert!(copied.ends_with(digest), "{program}: {copied}");
        }
        println!("{program} pushes: ok");
    }
}

/// The engine's own commands that pull and push `name` on a registry without TLS.
fn pull_and_push(kind: Kind, name: &str) -> (String, String) {
    match kind {
        Kind::Docker20 | Kind::Docker28 | Kind::Docker28c => {
            (format!("docker pull -q {name}"), format!("docker push -q {name}"))
        }
        Kind::Containerd16 | Kind::Containerd21 => {
            (format!("ctr images pull --plain-http {name}"), format!("ctr images push --plain-http {name}"))
        }
        Kind::Podman4 | Kind::Podman5 => {
            (format!("podman pull -q --tls-verify=false {name}"), format!("podman push -q --tls-verify=false {name}"))
        }
    }
}

#[test]
fn what_imgmv_pushes_every_engine_pulls_runs_and_pushes_back() {
    everywhere(|peer, shell| {
        let kind = peer.kind;
        let registry = seeded(shell);
        let hello = format!("{}/t/hello:1", registry.address);
        let multi = format!("{}/t/multi:1", registry.address);
        let (pull, push) = pull_and_push(kind, &hello);
        shell.run(&pull);
        shell.run(&pull_and_push(kind, &multi).0);
        assert_eq!(peer.id(&hello).as_deref(), Some(id(peer, HELLO, HELLO_CONFIG)), "{kind:?}");
        assert_eq!(shell.run(&run(kind, &hello)), GREETING, "{kind:?}");
        // The tag is taken away, so that the engine's push is what imgmv reads then.
        shell.run(&format!("imgmv copy -q oci:$FIXTURES/layout:bye docker://{hello}"));
        shell.run(&push);
        let pulled = shell.run(&format!("imgmv copy docker://{hello} oci:back:1 && imgmv verify -q oci:back >out"));
        assert_eq!(config(&shell.at("back")), HELLO_CONFIG, "{kind:?}");
        // Engines that keep only unpacked layers pack them anew.
        if matches!(kind, Kind::Docker28c | Kind::Containerd16 | Kind::Containerd21) {
            assert!(pulled.ends_with(HELLO), "{kind:?}: {pulled}");
        }
    });
}

#[test]
fn a_copy_between_registries_keeps_what_docker_pushed() {
    some(&[Kind::Docker20, Kind::Docker28c], |peer, shell| {
        let other = Shell::new();
        let (from, to) = (Registry::start(shell.path()), Registry::start(other.path()));
        let name = format!("{}/t/hello:1", from.address);
        shell.run(&format!(
            "docker load -q <$FIXTURES/hello-docker28c.tar && docker tag hello-imgmv:1 {name} && docker push -q {name}"
        ));
        let there = format!("{}/u/hello:2", to.address);
        let copied = shell.run(&format!("imgmv copy docker://{name} docker://{there}"));
        let digest = copied.rsplit('@').next().unwrap();
        assert_eq!(shell.run(&format!("imgmv digest {name}")), digest);
        let pulled = shell.run(&format!("docker pull {there}"));
        assert!(pulled.contains(digest), "{:?}: {pulled}", peer.kind);
    });
}
