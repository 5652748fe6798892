//! Other hosts over a real sshd, through the user's own client and through the one built in.

use super::large::write_large;
use super::*;
use support::sshd::Sshd;

/// What the user's own client is called with: nothing of this machine's configuration.
fn client(far: &Sshd) -> String {
    format!("ssh -F {} -o BatchMode=yes", far.at("home/.ssh/config"))
}

/// What `--ssh` is given, for both ways to `far`.
fn ways(far: &Sshd) -> [String; 2] {
    [client(far), "builtin".to_owned()]
}

/// A host `ssh://node1` whose sessions have `environment`, and a shell from which it is reached.
fn far_side(environment: &[(String, String)]) -> Option<(Sshd, Shell)> {
    let far = Sshd::start("", environment)?;
    far.client_config("");
    let near = Shell::with(&home(&far));
    Some((far, near))
}

/// The built-in client looks for `.ssh` there.
fn home(far: &Sshd) -> [(String, String); 1] {
    [("HOME".to_owned(), far.at("home"))]
}

#[test]
fn images_arrive_on_every_host_by_both_clients_under_their_digests() {
    everywhere(|peer, there| {
        let kind = peer.kind;
        let Some((far, near)) = far_side(&peer.environment) else { return };
        let is = |name: &str, manifest: &str, config: &str| {
            let found = peer.id(&format!("docker.io/t/{name}"));
            assert_eq!(found.as_deref(), Some(id(peer, manifest, config)), "{kind:?}: {name}");
        };
        for (number, ssh) in ways(&far).iter().enumerate() {
            let copy = |words: &str| near.run(&format!("imgmv copy -q --ssh '{ssh}' {words}"));
            let said = copy(&format!("oci:$FIXTURES/layout:1 ssh://node1 --as t/named:{number}"));
            assert_eq!(said, format!("docker.io/t/named:{number}@{HELLO}"), "{kind:?} by {ssh}");
            is(&format!("named:{number}"), HELLO, HELLO_CONFIG);
            // An archive that comes by a pipe: docker's new form, and its old one, which passes as it is.
            copy(&format!("- root@node1:t/new:{number} <$FIXTURES/hello-docker28c.tar"));
            is(&format!("new:{number}"), HELLO, HELLO_CONFIG);
            copy(&format!("- ssh://node1/t/old:{number} <$FIXTURES/hello-docker20.tar"));
            assert!(peer.id(&format!("docker.io/t/old:{number}")).is_some(), "{kind:?} by {ssh}");
        }
        near.run(&format!("imgmv copy -q --ssh '{}' oci:$FIXTURES/multi:1 node1: --as t/multi:1", client(&far)));
        is("multi:1", MULTI, &peer.id("docker.io/t/multi:1").expect("a platform of the index"));
        // Without imgmv's own ssh.
        let load = load(kind);
        near.run(&format!("imgmv save -q oci:$FIXTURES/layout:1 --as t/pipe:1 -o - | {} node1 {load}", client(&far)));
        is("pipe:1", HELLO, HELLO_CONFIG);
        assert_eq!(there.run(&run(kind, "docker.io/t/named:0")), GREETING, "{kind:?}");
    });
}

#[test]
fn docker_save_is_piped_to_another_host() {
    let Some(here) = Peer::start(Kind::Docker20) else { return };
    some(&[Kind::Docker28, Kind::Docker28c, Kind::Containerd21], |peer, there| {
        let Some((far, _)) = far_side(&peer.environment) else { return };
        let near = Shell::with(&[&here.environment[..], &home(&far)].concat());
        near.run("docker load -q <$FIXTURES/two-images-docker20.tar");
        for ssh in ways(&far) {
            near.run(&format!("docker save hello-imgmv:1 bye-imgmv:1 | imgmv copy -q --ssh '{ssh}' - node1:"));
        }
        assert!(peer.id("docker.io/library/bye-imgmv:1").is_some(), "{:?}", peer.kind);
        assert_eq!(there.run(&run(peer.kind, "docker.io/library/hello-imgmv:1")), GREETING);
    });
}

#[test]
fn an_engine_is_copied_from_here_to_another_host_and_back_from_there_by_a_pipe() {
    let Some(here) = Peer::start(Kind::Docker28) else { return };
    let Some(there) = Peer::start(Kind::Docker20) else { return };
    let Some((far, _)) = far_side(&there.environment) else { return };
    let near = Shell::with(&[&here.environment[..], &home(&far)].concat());
    let ssh = client(&far);
    near.run("docker load -q <$FIXTURES/hello-docker28.tar");
    near.run(&format!("imgmv copy -q --ssh '{ssh}' docker-daemon:hello-imgmv:1 ssh://node1/t/away:1"));
    assert_eq!(there.id("t/away:1").as_deref(), Some(HELLO_CONFIG));
    near.run(&format!("{ssh} node1 docker save t/away:1 | imgmv copy -q - docker-daemon:t/home:1"));
    assert_eq!(here.id("t/home:1").as_deref(), Some(HELLO_CONFIG));
    let registry = Registry::start(near.path());
    let name = format!("{}/t/home:1", registry.address);
    let pushed = near.run(&format!("{ssh} node1 docker save t/away:1 | imgmv copy -q - docker://{name}"));
    assert_eq!(near.run(&format!("imgmv digest {name}")), pushed.rsplit('@').next().unwrap());
}

#[test]
fn a_host_without_an_engine_is_told_before_anything_is_sent() {
    let Some((far, near)) = far_side(&[]) else { return };
    for ssh in ways(&far) {
        let copy = "oci:$FIXTURES/layout:1 ssh://node1 --as t/x:1 --engine nerdctl";
        let (status, said) = near.fails(&format!("imgmv copy -q --ssh '{ssh}' {copy}"));
        assert_eq!(status, 7, "{ssh}: {said}");
        assert!(said.contains("node1: no working engine found; tried nerdctl"), "{ssh}: {said}");
    }
}

#[test]
fn whoever_is_not_known_to_the_other_ends_the_copy_with_the_status_of_a_refusal() {
    let Some((far, near)) = far_side(&[]) else { return };
    let refused = |what: &str| {
        for ssh in ways(&far) {
            let copy = "oci:$FIXTURES/layout:1 ssh://node1 --as t/x:1 --remote-command 'cat >/dev/null'";
            let (status, said) = near.fails(&format!("imgmv copy -q --ssh '{ssh}' {copy}"));
            assert_eq!(status, 4, "{what}, {ssh}: {said}");
            assert!(said.contains("node1"), "{what}, {ssh}: {said}");
        }
    };
    far.record("");
    refused("an unknown host");
    far.record(&far.host_key());
    far.key("home/.ssh/id_ed25519", "");
    refused("a wrong key");
}

#[test]
fn a_far_command_that_ends_early_ends_the_copy_with_its_words() {
    let Some((far, near)) = far_side(&[]) else { return };
    write_large(&near, "large", 256 << 20);
    for ssh in ways(&far) {
        for (command, words) in [
            ("head -c 1000000 >/dev/null; echo 'write /x: no space left' >&2; exit 3", "no space left"),
            ("no-such-loader", "not found"),
            // The session's own sshd is an ancestor of the command: the connection breaks.
            (
                "head -c 1000000 >/dev/null; p=$$; while p=$(ps -o ppid= -p $p); do case $(ps -o comm= -p $p) in \
                 sshd*) kill -9 $p; break;; esac; done",
                "node1",
            ),
        ] {
            near.write("command", command);
            let copy = "oci:large:1 ssh://node1 --as t/x:1 --remote-command \"$(cat command)\"";
            let (status, said) = near.fails(&format!("imgmv copy -q --ssh '{ssh}' {copy}"));
            assert_eq!(status, 7, "{ssh}, {command}: {said}");
            assert!(said.contains(words), "{ssh}, {command}: {said}");
            println!("{said}");
        }
    }
}
