//! The engines of this host as destinations and sources, with the words of the command line.

use super::*;
use support::shell::{config, root};

#[test]
fn load_finds_the_engine_that_answers_and_takes_archives_that_it_would_refuse() {
    everywhere(|peer, shell| {
        let kind = peer.kind;
        let is = |name: &str, manifest: &str| {
            assert_eq!(peer.id(name).as_deref(), Some(id(peer, manifest, HELLO_CONFIG)), "{kind:?}: {name}");
        };
        let said = shell.run("imgmv load -q -i $FIXTURES/hello-skopeo-oci.tar --as t/oci:1");
        assert_eq!(said, format!("docker.io/t/oci:1@{HELLO}"), "{kind:?}");
        is("docker.io/t/oci:1", HELLO);
        shell.run("zstd -dc <$FIXTURES/hello-docker20.tar.zst | xz | imgmv load -q --as t/xz:1");
        assert!(peer.id("docker.io/t/xz:1").is_some(), "{kind:?}");
        shell.run("imgmv load -q -i $FIXTURES/hello-docker28c.tar");
        is("docker.io/library/hello-imgmv:1", HELLO);
        assert_eq!(shell.run(&run(kind, "docker.io/t/oci:1")), GREETING, "{kind:?}");
        // A second time: there already, and said to be the same.
        assert_eq!(shell.run("imgmv load -q -i $FIXTURES/hello-skopeo-oci.tar --as t/oci:1"), said, "{kind:?}");
    });
}

#[test]
fn docker_is_a_destination_and_a_source() {
    some(&[Kind::Docker20, Kind::Docker28, Kind::Docker28c], |peer, shell| {
        let kind = peer.kind;
        let registry = Registry::start(shell.path());
        let there = format!("{}/t/hello:1", registry.address);
        shell.run("imgmv copy -q oci:$FIXTURES/layout:1 docker-daemon:t/hello:1");
        assert_eq!(peer.id("t/hello:1").as_deref(), Some(id(peer, HELLO, HELLO_CONFIG)), "{kind:?}");
        shell.run("imgmv copy -q docker-daemon:t/hello:1 oci:dir:1");
        let kept = if kind == Kind::Docker28c { HELLO } else { RAW_HELLO };
        assert_eq!(root(&shell.at("dir")), kept, "{kind:?}");
        let pushed = shell.run(&format!("imgmv copy docker-daemon:t/hello:1 docker://{there}"));
        shell.run(&format!("imgmv copy -q docker://{there} oci:back:1"));
        assert_eq!(config(&shell.at("back")), HELLO_CONFIG, "{kind:?}");
        let pulled = shell.run(&format!("docker rmi t/hello:1 && docker pull {there}"));
        assert!(pulled.contains(pushed.rsplit('@').next().unwrap()), "{kind:?}: {pulled}");
        let (status, said) = shell.fails("imgmv copy -q docker-daemon:t/none:1 oci:none:1");
        assert_eq!(status, 3, "{kind:?}: {said}");
        assert!(said.contains("t/none:1"), "{kind:?}: {said}");
    });
}

#[test]
fn containerd_is_a_destination_and_its_directory_a_source_while_it_runs() {
    some(&[Kind::Containerd16, Kind::Containerd21], |peer, shell| {
        let kind = peer.kind;
        let data = peer.folder.path().join("data").display().to_string();
        shell.run("imgmv copy -q oci:$FIXTURES/layout:1 containerd:t/hello:1");
        shell.run("imgmv copy -q oci:$FIXTURES/multi:1 containerd:t/multi:1 --namespace mine");
        assert_eq!(peer.id("docker.io/t/hello:1").as_deref(), Some(HELLO), "{kind:?}");
        shell.run(&format!("imgmv copy -q --src-root {data} containerd:docker.io/t/hello:1 oci:dir:1"));
        assert_eq!(root(&shell.at("dir")), HELLO, "{kind:?}");
        let from_mine = format!("--src-root {data} --src-namespace mine containerd:docker.io/t/multi:1");
        // containerd has one platform of the index: an archive gets a smaller one, unless the index is to stay.
        let copied = shell.run(&format!("imgmv copy {from_mine} multi.tar"));
        assert!(!copied.ends_with(MULTI), "{kind:?}: {copied}");
        let copied = shell.run(&format!("imgmv copy {from_mine} multi.tar --sparse keep"));
        assert!(copied.ends_with(MULTI), "{kind:?}: {copied}");
        let absent =
            format!("imgmv copy -q --src-root {data} --src-namespace mine containerd:docker.io/t/hello:1 a.tar");
        assert_eq!(shell.fails(&absent).0, 3, "{kind:?}");
    });
}

#[test]
fn an_image_moves_from_engine_to_engine() {
    // docker 20 to containerd 2.1, and back from its directory to docker 20.
    let (Some(docker), Some(containerd)) = (Peer::start(Kind::Docker20), Peer::start(Kind::Containerd21)) else {
        return;
    };
    let both = [&docker.environment[..], &containerd.environment[..]].concat();
    let shell = Shell::with(&both);
    shell.run("docker load -q <$FIXTURES/hello-docker20.tar");
    shell.run("imgmv copy -q docker-daemon:hello-imgmv:1 containerd:t/moved:1");
    assert_eq!(shell.run(&run(Kind::Containerd21, "docker.io/t/moved:1")), GREETING);
    let data = containerd.folder.path().join("data").display().to_string();
    shell.run(&format!(
        "docker rmi hello-imgmv:1; imgmv copy -q --src-root {data} containerd:docker.io/t/moved:1 docker-daemon:back:1"
    ));
    assert_eq!(docker.id("back:1").as_deref(), Some(HELLO_CONFIG));
    assert_eq!(shell.run(&run(Kind::Docker20, "back:1")), GREETING);
}
