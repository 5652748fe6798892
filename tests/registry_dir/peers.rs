//! The real registry over a tree that imgmv writes while it runs, and its clients.

use super::owner::{USER, belongs, give, is_root};
use super::*;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use support::engines::Peer;
use support::program::{Daemon, free_port, listens, peer};
use support::shell::{Shell, root};

const HELLO: &str = "sha256:602b22ac0877e98491067019bf894774c63bd3f2b4be96809c3c1e9a29cca06c";
const MULTI: &str = "sha256:1e8da6cd7fd1d027d8c4b738aec76f1bf0686397fcc80da6e7a70db620d8aaf6";

/// A running registry.
struct Server {
    program: &'static str,
    /// `127.0.0.1:PORT`.
    address: String,
    config: PathBuf,
    _daemon: Daemon,
}

/// The releases of the registry that this host has.
fn programs() -> Vec<&'static str> {
    ["docker-registry", "docker-registry-new"].into_iter().filter(|program| peer(program).is_some()).collect()
}

/// Without a cache of blob descriptors, and with the one in memory that most configurations have.
const CACHES: [&str; 2] = ["", "  cache: {blobdescriptor: inmemory}\n"];

fn start(program: &'static str, cache: &str, dir: &Dir, user: Option<u32>) -> Server {
    for attempt in 0..5 {
        let port = free_port();
        let config = dir.at(&format!("registry-{attempt}.yml"));
        let text = format!(
            "version: 0.1\nlog: {{accesslog: {{disabled: true}}, level: error}}\nstorage:\n  filesystem: \
             {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n{cache}http: {{addr: \"127.0.0.1:{port}\"}}\n",
            dir.tree.root().display()
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new(program);
        command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        let mut daemon = Daemon(command.spawn().unwrap());
        if listens(port) && matches!(daemon.0.try_wait(), Ok(None)) {
            return Server { program, address: format!("127.0.0.1:{port}"), config, _daemon: daemon };
        }
    }
    panic!("{program} does not start");
}

impl Server {
    fn garbage_collect(&self, options: &[&str]) -> String {
        let output =
            Command::new(self.program).arg("garbage-collect").args(options).arg(&self.config).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
        told
    }

    /// Every client pulls `name`, and has the image `digest`.
    fn pulled(&self, shell: &Shell, name: &str, digest: &str) {
        for (program, pull) in [
            ("skopeo", "skopeo --insecure-policy copy -q --all --src-tls-verify=false docker://$FROM oci:pulled:1"),
            ("crane", "crane pull --format=oci $FROM pulled"),
            ("imgmv", "imgmv copy -q docker://$FROM oci:pulled:1"),
        ] {
            if program != "imgmv" && peer(program).is_none() {
                continue;
            }
            shell.run(&format!("rm -rf pulled; FROM={}/{name}; {pull}; imgmv verify -q oci:pulled", self.address));
            assert_eq!(root(&shell.at("pulled")), digest, "{program}: {name}");
        }
    }
}

/// Runs `check` for each release and each cache.
fn each(user: Option<u32>, check: impl Fn(&Dir, &Server, &Shell)) {
    for program in programs() {
        for cache in CACHES {
            println!("{program}{cache}");
            let (dir, shell) = (Dir::new(), Shell::new());
            fs::create_dir(dir.tree.root()).unwrap();
            if let Some(user) = user {
                fs::set_permissions(dir.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
                chown(dir.tree.root(), Some(user), Some(user)).unwrap();
            }
            let server = start(program, cache, &dir, user);
            check(&dir, &server, &shell);
        }
    }
}

#[test]
fn a_running_registry_serves_at_once_what_is_written() {
    each(None, |dir, server, shell| {
        let host = &server.address;
        // The registry has looked for them, and has not found them.
        shell.fails(&format!("imgmv digest docker://{host}/t/hello:1"));
        let to = dir.address("");
        shell.run(&format!(
            "imgmv copy -q oci:$FIXTURES/layout:1 {to}:t/hello:1
             imgmv copy -q oci:$FIXTURES/multi:1 {to}:deep/er/multi:1"
        ));
        server.pulled(shell, "t/hello:1", HELLO);
        server.pulled(shell, "deep/er/multi:1", MULTI);
        assert_eq!(
            shell.run(&format!("imgmv list {to} | sort | cut -d' ' -f1 | paste -sd' '")),
            "localhost/deep/er/multi:1 localhost/t/hello:1"
        );
        // A tag that moves is seen at once.
        shell.run(&format!("imgmv copy -q oci:$FIXTURES/multi:1 {to}:t/hello:1"));
        server.pulled(shell, "t/hello:1", MULTI);
        server.pulled(shell, &format!("t/hello@{HELLO}"), HELLO);
        // A second tag costs no layer.
        shell.run(&format!("imgmv tag -q {to}:deep/er/multi:1 stable"));
        server.pulled(shell, "deep/er/multi:stable", MULTI);
        assert_eq!(dir.tree.resolves(), 3);
    });
}

#[test]
fn docker_pulls_what_is_written() {
    let Some(docker) = Peer::start(support::engines::Kind::Docker28) else { return };
    each(None, |dir, server, shell| {
        shell.run(&format!("imgmv copy -q oci:$FIXTURES/layout:1 {}", dir.address("t/hello:1")));
        let name = format!("{}/t/hello:1", server.address);
        docker.client(&["pull", "-q", &name]);
        docker.client(&["rmi", "-f", &name]);
    });
}

#[test]
fn the_registrys_own_clients_push_and_delete_afterwards() {
    each(None, |dir, server, shell| {
        let (host, to) = (&server.address, dir.address(""));
        shell.run(&format!(
            "imgmv copy -q oci:$FIXTURES/layout:1 {to}:t/hello:1
             skopeo --insecure-policy copy -q --all --dest-tls-verify=false oci:$FIXTURES/multi:1 docker://{host}/t/hello:2
             skopeo --insecure-policy copy -q --dest-tls-verify=false oci:$FIXTURES/layout:1 docker://{host}/u/hello:1"
        ));
        assert_eq!(dir.tree.resolves(), 3);
        // What the registry stored is read without it.
        for (name, digest) in [("t/hello:2", MULTI), ("u/hello:1", HELLO)] {
            assert_eq!(shell.run(&format!("imgmv digest {to}:{name}")), digest);
            shell.run(&format!("imgmv verify -q {to}:{name}"));
        }
        // Deleting a manifest takes away the tag that imgmv wrote, by its `index` link.
        shell.run(&format!("skopeo delete --tls-verify=false docker://{host}/t/hello:1"));
        let tags = |repository: &str| dir.tree.tags(repository).into_keys().collect::<Vec<_>>();
        assert_eq!((tags("t/hello"), tags("u/hello")), (vec!["2".to_owned()], vec!["1".to_owned()]));
        shell.run(&format!("imgmv copy -q oci:$FIXTURES/layout:1 {to}:t/hello:1"));
        server.pulled(shell, "t/hello:1", HELLO);
    });
}

/// Without `-m` in a tree with an index: the registry's own `-m` (2.8) deletes the images below any index, since they
/// have no tag of their own, whoever wrote them.
#[test]
fn a_garbage_collection_takes_nothing_of_an_image() {
    each(None, |dir, server, shell| {
        let (host, to) = (&server.address, dir.address(""));
        let takes_nothing = |options: &[&str], images: usize| {
            let before = dir.tree.blobs();
            let told = server.garbage_collect(options);
            assert!(told.contains(" 0 blobs and 0 manifests eligible for deletion"), "{told}");
            assert!(dir.tree.blobs() == before);
            assert_eq!(dir.tree.resolves(), images);
        };
        shell.run(&format!(
            "imgmv copy -q oci:$FIXTURES/layout:1 {to}:t/hello:1
             skopeo --insecure-policy copy -q --dest-tls-verify=false oci:$FIXTURES/layout:1 docker://{host}/u/hello:1"
        ));
        takes_nothing(&[], 2);
        takes_nothing(&["-m"], 2);
        shell.run(&format!("imgmv copy -q oci:$FIXTURES/multi:1 {to}:t/multi:1"));
        takes_nothing(&[], 3);
        // What an interrupted copy leaves is skipped.
        fs::write(dir.tree.base().join("blobs/sha256/.imgmv-0000000000000000.tmp"), b"left").unwrap();
        write_file(&dir.tree.base().join("blobs/sha256/.imgmv-0000000000000001.tmp/current/link"), b"left");
        takes_nothing(&[], 3);
        server.pulled(shell, "t/multi:1", MULTI);
        let catalog = shell.run(&format!("imgmv list {to} | wc -l"));
        assert_eq!(catalog, "3");
        // One image is deleted and collected; the other one keeps the blobs that both have.
        shell.run(&format!("skopeo delete --tls-verify=false docker://{host}/t/hello:1"));
        server.garbage_collect(&[]);
        assert_eq!(dir.tree.resolves(), 2);
        shell.run(&format!("imgmv verify -q {to}:u/hello:1 && imgmv verify -q {to}:t/multi:1"));
        // Written again after the collection: the links of the layers were left behind, the data was not.
        shell.run(&format!("skopeo delete --tls-verify=false docker://{host}/u/hello:1"));
        assert!(server.garbage_collect(&[]).contains("eligible for deletion"));
        shell.run(&format!("imgmv copy -q oci:$FIXTURES/layout:1 {to}:t/hello:1"));
        assert_eq!(dir.tree.resolves(), 2);
        shell.run(&format!("imgmv verify -q {to}:t/hello:1"));
    });
}

#[test]
fn a_registry_that_runs_as_another_user_writes_on_where_root_wrote() {
    if !is_root() {
        return;
    }
    each(Some(USER), |dir, server, shell| {
        let (host, to) = (&server.address, dir.address(""));
        shell.run(&format!(
            "imgmv copy -q oci:$FIXTURES/layout:1 {to}:t/hello:1
             skopeo --insecure-policy copy -q --all --dest-tls-verify=false oci:$FIXTURES/multi:1 docker://{host}/t/hello:2
             skopeo --insecure-policy copy -q --all --dest-tls-verify=false oci:$FIXTURES/multi:1 docker://{host}/t/hello:1
             imgmv copy -q oci:$FIXTURES/multi:1 {to}:t/multi:1
             skopeo --insecure-policy copy -q --dest-tls-verify=false oci:$FIXTURES/layout:1 docker://{host}/t/multi:2
             skopeo delete --tls-verify=false docker://{host}/t/multi:1"
        ));
        let uploads = walkdir::WalkDir::new(dir.tree.root()).into_iter().flatten();
        uploads
            .filter(|entry| entry.file_name() == "_uploads")
            .for_each(|entry| fs::remove_dir_all(entry.path()).unwrap());
        belongs(&dir.tree, USER, (0o755, 0o644));
        give(&dir.tree, USER);
        assert_eq!(dir.tree.resolves(), 3);
    });
}

#[test]
fn a_real_registrys_disk_is_read_when_the_registry_is_gone() {
    for program in programs() {
        let (dir, shell) = (Dir::new(), Shell::new());
        let server = start(program, "", &dir, None);
        let host = server.address.clone();
        shell.run(&format!(
            "imgmv copy -q oci:$FIXTURES/layout:1 docker://{host}/hello:1
             imgmv copy -q oci:$FIXTURES/multi:1 docker://{host}/a/b/multi:1
             imgmv copy -q oci:$FIXTURES/multi:1 docker://{host}/a/b/multi:2"
        ));
        drop(server);
        let from = dir.address("");
        assert_eq!(
            shell.run(&format!("imgmv list {from} | sort | cut -d' ' -f1 | paste -sd' '")),
            "localhost/a/b/multi:1 localhost/a/b/multi:2 localhost/hello:1"
        );
        shell.run(&format!(
            "imgmv verify -q {from} && imgmv copy -q {from} oci-archive:all.tar && imgmv verify -q all.tar"
        ));
        for (name, digest) in [("hello:1", HELLO), ("a/b/multi:2", MULTI)] {
            assert_eq!(shell.run(&format!("imgmv digest {from}:{name}")), digest);
            assert_eq!(shell.run(&format!("imgmv digest oci-archive:all.tar:localhost/{name}")), digest);
        }
        shell.run(&format!("imgmv inspect {from}:hello:1"));
    }
}
