//! Real signatures: what cosign and notation sign, and oras attaches, is verified behind every kind of copy.

use crate::signed::{SIGNATURE, image, referrer};
use crate::support::program::{Daemon, free_port, listens, peer};
use crate::support::shell::Shell;
use crate::world::World;
use imgmv::Descriptor;
use std::process::{Command, Stdio};

const COSIGN: &str = "--key cosign.key --yes --use-signing-config=false --tlog-upload=false --allow-http-registry \
                      --allow-insecure-registry";
const VERIFY: &str = "--key cosign.pub --insecure-ignore-tlog=true --allow-http-registry --allow-insecure-registry";

/// A registry on loopback: imgmv's own, which has the referrers API, or docker-registry, which has not.
struct Registry {
    host: String,
    _daemon: Daemon,
}

impl Registry {
    /// The storage.
    fn directory(&self, shell: &Shell) -> std::path::PathBuf {
        let port = self.host.rsplit(':').next().unwrap_or_default();
        shell.at(&format!("registry-{port}"))
    }

    fn start(shell: &Shell, has_api: bool) -> Registry {
        for _ in 0..5 {
            let port = free_port();
            let dir = shell.at(&format!("registry-{port}"));
            let mut command = match has_api {
                true => {
                    let mut serve = Command::new(env!("CARGO_BIN_EXE_imgmv"));
                    serve.args(["serve", "--writable", &format!("--listen=127.0.0.1:{port}")]);
                    serve.arg(format!("oci:{}", dir.display()));
                    serve
                }
                false => {
                    let config = shell.at(&format!("registry-{port}.yml"));
                    let text = format!(
                        "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp: \
                         {{addr: \"127.0.0.1:{port}\"}}\n",
                        dir.display()
                    );
                    std::fs::write(&config, text).unwrap();
                    let mut serve = Command::new("docker-registry");
                    serve.arg("serve").arg(config);
                    serve
                }
            };
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let mut daemon = Daemon(child);
            if listens(port) && matches!(daemon.0.try_wait(), Ok(None)) {
                return Registry { host: format!("127.0.0.1:{port}"), _daemon: daemon };
            }
        }
        panic!("no registry starts");
    }

    fn image(&self) -> String {
        format!("docker://{}/team/app:1", self.host)
    }
}

fn has_peers() -> bool {
    ["cosign", "notation", "oras", "docker-registry"].iter().all(|program| peer(program).is_some())
}

/// Signs the image in `registry` in every way.
fn sign(shell: &Shell, registry: &Registry) {
    let host = &registry.host;
    shell.run(&format!(
        "export HOME=$PWD XDG_CONFIG_HOME=$PWD/.config COSIGN_PASSWORD=
         imgmv copy -q oci:$FIXTURES/multi:1 {to}
         digest=$(imgmv digest {to})
         cosign generate-key-pair 2>/dev/null
         cosign sign {COSIGN} {host}/team/app@$digest 2>/dev/null
         cosign sign {COSIGN} --new-bundle-format=false {host}/team/app@$digest 2>/dev/null
         notation cert generate-test --default imgmv.example >/dev/null
         notation sign --insecure-registry {host}/team/app@$digest >/dev/null
         echo '{{}}' >sbom.json
         oras attach --plain-http --artifact-type application/spdx+json {host}/team/app@$digest sbom.json >/dev/null
         oras attach --plain-http --artifact-type application/vnd.in-toto+json {host}/team/app@$digest sbom.json >/dev/null
         cat >policy.json <<'JSON'
{{\"version\":\"1.0\",\"trustPolicies\":[{{\"name\":\"all\",\"registryScopes\":[\"*\"],
\"signatureVerification\":{{\"level\":\"strict\"}},\"trustStores\":[\"ca:imgmv.example\"],\"trustedIdentities\":[\"*\"]}}]}}
JSON
         notation policy import policy.json >/dev/null 2>&1",
        to = registry.image()
    ));
}

/// Checks `registry` with every program; returns what oras discovers.
fn verify(shell: &Shell, registry: &Registry) -> String {
    let host = &registry.host;
    shell.run(&format!(
        "export HOME=$PWD XDG_CONFIG_HOME=$PWD/.config
         cosign verify {VERIFY} {host}/team/app:1 >/dev/null 2>&1
         cosign verify {VERIFY} --new-bundle-format=false {host}/team/app:1 >/dev/null 2>&1
         digest=$(imgmv digest {image})
         notation verify --insecure-registry {host}/team/app@$digest >/dev/null
         oras discover --plain-http --format json {host}/team/app:1 | grep -o '\"digest\": *\"[^\"]*\"' | sort",
        image = registry.image()
    ))
}

#[test]
fn signatures_are_verified_behind_every_copy() {
    if !has_peers() {
        return;
    }
    let shell = Shell::new();
    let start = |has_api| Registry::start(&shell, has_api);
    let (source, fallback) = (start(true), start(false));
    sign(&shell, &source);
    let expected = verify(&shell, &source);
    let copied = |from: &str, has_api: bool| {
        let to = start(has_api);
        shell.run(&format!("imgmv copy -q {from} {}", to.image()));
        assert_eq!(verify(&shell, &to), expected, "{from} to a registry (API: {has_api})");
    };
    copied(&source.image(), true);
    shell.run(&format!("imgmv copy -q {} {}", source.image(), fallback.image()));
    assert_eq!(verify(&shell, &fallback), expected);
    copied(&fallback.image(), true);
    copied(&fallback.image(), false);
    shell.run(&format!("imgmv copy -q {} oci:layout:1", source.image()));
    copied("oci:layout:1", true);
    shell.run(&format!("imgmv save -q {} -o all.tar", fallback.image()));
    copied("all.tar", true);
    shell.run(&format!("imgmv save -q --platform linux/amd64 {} -o one.tar", source.image()));
    copied("one.tar", true);
    // Into the tree of a running registry, and out of it.
    let running = start(false);
    let tree = format!("registry-dir:{}:team/app:1", running.directory(&shell).display());
    shell.run(&format!("imgmv copy -q {} {tree}", source.image()));
    assert_eq!(verify(&shell, &running), expected, "{tree}");
    copied(&tree, true);
}

/// A cache between the signed image and its users passes everything on.
#[test]
fn signatures_are_verified_through_a_proxy() {
    if !has_peers() {
        return;
    }
    let shell = Shell::new();
    for has_api in [true, false] {
        let source = Registry::start(&shell, has_api);
        sign(&shell, &source);
        let expected = verify(&shell, &source);
        let port = free_port();
        let mut serve = Command::new(env!("CARGO_BIN_EXE_imgmv"));
        serve.args([
            "serve",
            &format!("--proxy=docker.io=http://{}", source.host),
            &format!("--listen=127.0.0.1:{port}"),
        ]);
        serve.arg(format!("--cache=oci:{}", shell.at("cache").display()));
        let child = serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let proxy = Registry { host: format!("127.0.0.1:{port}"), _daemon: Daemon(child) };
        assert!(listens(port));
        assert_eq!(verify(&shell, &proxy), expected, "API: {has_api}");
        std::fs::remove_dir_all(shell.at("cache")).unwrap();
        shell.run("rm -rf .config cosign.*");
    }
}

/// Signing after a copy, and copying again.
#[test]
fn a_signature_that_comes_later_is_copied_later() {
    if !has_peers() {
        return;
    }
    let shell = Shell::new();
    let (source, target) = (Registry::start(&shell, true), Registry::start(&shell, false));
    let copy = format!("imgmv copy -q {} {}", source.image(), target.image());
    shell.run(&format!("imgmv copy -q oci:$FIXTURES/multi:1 {} && {copy}", source.image()));
    sign(&shell, &source);
    shell.run(&copy);
    assert_eq!(verify(&shell, &target), verify(&shell, &source));
}

/// Copies at the same time, each with another signature, to a registry without the API: the list has the signature
/// of each copy that succeeded.
#[test]
fn copies_at_the_same_time_lose_no_entry_of_a_referrers_tag() {
    const WRITERS: usize = 6;
    if peer("docker-registry").is_none() {
        return;
    }
    let shell = Shell::new();
    let to = Registry::start(&shell, false);
    let worlds: Vec<(World, Descriptor)> = (0..WRITERS).map(own_signature).collect();
    let mut succeeded = 0;
    for round in 0..5 {
        let repository = format!("docker://{}/team/round{round}", to.host);
        let done = |args: &[&str]| {
            let output = worlds[0].0.run(args);
            assert!(output.status.success(), "{}", output.stderr);
            output.stdout
        };
        done(&["copy", "--no-referrers", "oci:DIR/l:1", &format!("{repository}:1")]);
        let copy = |world: &World, nth: usize| {
            world.run(&["copy", "oci:DIR/l:1", &format!("{repository}:t{nth}")]).status.success()
        };
        let copy = &copy;
        let results: Vec<bool> = std::thread::scope(|scope| {
            let worlds = worlds.iter().enumerate();
            let running: Vec<_> = worlds.map(|(nth, (world, _))| scope.spawn(move || copy(world, nth))).collect();
            running.into_iter().map(|copy| copy.join().unwrap()).collect()
        });
        let listed = done(&["list", "--referrers", "--json", &format!("{repository}:1")]);
        for ((_, own), _) in worlds.iter().zip(&results).filter(|(_, succeeded)| **succeeded) {
            assert!(listed.contains(&own.digest.to_string()), "round {round}: {} is lost", own.digest);
        }
        succeeded += results.into_iter().filter(|succeeded| *succeeded).count();
    }
    assert!(succeeded > 0);
}

/// A layout with an image that is the same for every `nth`, and a signature that is not.
fn own_signature(nth: usize) -> (World, Descriptor) {
    let mut world = World::new();
    let image = image(&mut world, "linux/amd64", b"shared");
    world.name("1", &image);
    let own = referrer(&mut world, SIGNATURE, &image, format!("signature {nth}").as_bytes());
    (world, own)
}
