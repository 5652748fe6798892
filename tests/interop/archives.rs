//! Archives and layouts: imgmv's in the hands of every engine and tool, and theirs in imgmv's.

use super::*;
use support::shell::{config, root};
use support::signing::{Signatures, sign};

/// `hello.tar` of one image, `bundle.tar` of two that share layers, `multi.tar` of an index.
fn write_archives(shell: &Shell) {
    shell.run(
        "imgmv copy -q oci:$FIXTURES/layout:1 hello.tar --as t/hello:1
         imgmv copy -q oci:$FIXTURES/layout:1 oci:two:docker.io/t/one:1
         imgmv copy -q oci:$FIXTURES/layout:bye oci:two:docker.io/t/two:1
         imgmv save -q oci:two -o bundle.tar
         imgmv copy -q oci:$FIXTURES/multi:1 multi.tar --as t/multi:1",
    );
}

#[test]
fn what_imgmv_writes_every_engine_loads_under_its_names_and_digests_and_runs() {
    everywhere(|peer, shell| {
        let kind = peer.kind;
        let take = |archive: &str| shell.run(&format!("{} <{archive}", load(kind)));
        let is = |name: &str, manifest: &str, config: &str| {
            assert_eq!(peer.id(name).as_deref(), Some(id(peer, manifest, config)), "{kind:?}: {name}");
        };
        write_archives(shell);
        take("hello.tar");
        is("docker.io/t/hello:1", HELLO, HELLO_CONFIG);
        assert_eq!(shell.run(&run(kind, "docker.io/t/hello:1")), GREETING, "{kind:?}");
        take("bundle.tar");
        is("docker.io/t/one:1", HELLO, HELLO_CONFIG);
        is("docker.io/t/two:1", BYE, BYE_CONFIG);
        take("multi.tar");
        is("docker.io/t/multi:1", MULTI, &peer.id("docker.io/t/multi:1").expect("a platform of the index"));
        // What an old docker saved, through imgmv.
        shell.run("imgmv copy -q $FIXTURES/hello-docker20.tar old.tar --as t/old:1");
        take("old.tar");
        is("docker.io/t/old:1", RAW_HELLO, HELLO_CONFIG);
        // Re-tagged in place: the file is replaced whole.
        shell.run("imgmv tag -q hello.tar t/again:2");
        take("hello.tar");
        is("docker.io/t/again:2", HELLO, HELLO_CONFIG);
    });
}

/// What belongs to an image is in its archive, and no engine takes it for an image or fails on it.
#[test]
fn an_archive_of_a_signed_image_is_loaded_by_every_engine() {
    everywhere(|peer, shell| {
        shell.run("imgmv copy -q oci:$FIXTURES/multi:1 oci:signed:1");
        let signatures = sign(&shell.at("signed"), MULTI);
        shell.run("imgmv copy -q oci:signed:1 signed.tar --as t/signed:1");
        // The original index is in the archive, but only the image of the platform is loaded.
        let host = imgmv::Platform::host();
        shell.run(&format!("imgmv save -q --platform {host} oci:signed:1 -o narrowed.tar --as t/narrowed:1"));
        let child = shell.run("imgmv digest narrowed.tar");
        assert_ne!(child, MULTI);
        for (name, root) in [("signed", MULTI), ("narrowed", &child)] {
            holds_all(shell, &format!("{name}.tar"), &signatures);
            shell.run(&format!("{} <{name}.tar", load(peer.kind)));
            let (kind, full) = (peer.kind, format!("docker.io/t/{name}:1"));
            let found = peer.id(&full).unwrap_or_else(|| panic!("{kind:?}: {name} is not loaded"));
            assert_eq!(found, id(peer, root, &found), "{kind:?}: {name}");
            match kind {
                Kind::Containerd16 | Kind::Containerd21 => {
                    // As kind and k3s import it.
                    shell.run(&format!("ctr -n {name} images import --all-platforms --digests {name}.tar"));
                    assert!(shell.run(&format!("ctr -n {name} images ls -q")).contains(&full), "{kind:?}");
                }
                Kind::Podman4 | Kind::Podman5 => {
                    assert_eq!(shell.run(&format!("podman pull -q oci-archive:{name}.tar")), config_of(&found));
                    // Without the list of docker's form, podman reads the archive as a layout.
                    shell.run(&format!("rm -rf open && mkdir open && tar -C open -xf {name}.tar"));
                    shell.run("tar -C open -cf plain.tar oci-layout index.json blobs");
                    shell.run(&format!("podman rmi -f {full} && podman load -q <plain.tar"));
                    assert_eq!(peer.id(&full), Some(found), "{kind:?}: {name} without manifest.json");
                }
                _ => {}
            }
        }
    });
}

/// The ID that podman prints, without the algorithm.
fn config_of(id: &str) -> &str {
    id.strip_prefix("sha256:").unwrap_or(id)
}

/// Checks that `archive` has the original index and all that belongs to it, and gives them to a layout.
fn holds_all(shell: &Shell, archive: &str, signatures: &Signatures) {
    let files = shell.run(&format!("tar -tf {archive}"));
    let index: imgmv::Digest = MULTI.parse().unwrap();
    for digest in [index, signatures.referrer, signatures.tagged] {
        assert!(files.contains(&digest.blob_path()), "{archive} lacks {digest}");
    }
    shell.run(&format!("rm -rf back && imgmv copy -q {archive} oci:back"));
    let listed = shell.run("imgmv list --referrers --json oci:back");
    for digest in [index, signatures.referrer, signatures.tagged] {
        assert!(listed.contains(&digest.to_string()), "{archive}: {listed}");
    }
}

#[test]
fn what_imgmv_writes_skopeo_reads_as_both_kinds_of_archive() {
    for skopeo in installed(&["skopeo", "skopeo-new"]) {
        let shell = Shell::new();
        write_archives(&shell);
        shell.run(&format!(
            "{skopeo} --insecure-policy copy -q oci-archive:hello.tar oci:kept:1
             {skopeo} --insecure-policy copy -q --all oci-archive:multi.tar oci:index:1
             {skopeo} --insecure-policy copy -q docker-archive:hello.tar oci:made:1
             {skopeo} --insecure-policy copy -q docker-archive:bundle.tar:docker.io/t/two:1 oci:second:1"
        ));
        assert_eq!(root(&shell.at("kept")), HELLO, "{skopeo}");
        assert_eq!(root(&shell.at("index")), MULTI, "{skopeo}");
        // skopeo makes a manifest of its own from this form; the image is the same.
        assert_eq!(config(&shell.at("made")), HELLO_CONFIG, "{skopeo}");
        assert_eq!(config(&shell.at("second")), BYE_CONFIG, "{skopeo}");
    }
}

#[test]
fn what_imgmv_writes_crane_and_oras_copy() {
    let shell = Shell::new();
    write_archives(&shell);
    for oras in installed(&["oras"]) {
        shell.run(&format!("{oras} copy --from-oci-layout hello.tar:1 --to-oci-layout copied:1"));
        assert_eq!(root(&shell.at("copied")), HELLO);
    }
    for crane in installed(&["crane"]) {
        let registry = Registry::start(shell.path());
        let name = format!("{}/t/hello:1", registry.address);
        shell.run(&format!("{crane} push hello.tar {name} && imgmv copy -q docker://{name} oci:pushed:1"));
        assert_eq!(config(&shell.at("pushed")), HELLO_CONFIG);
        shell.run(&format!("mkdir open && tar -C open -xf hello.tar && {crane} push open {name}"));
        assert_eq!(shell.run(&format!("{crane} digest {name}")), HELLO);
    }
}

#[test]
fn layouts_that_imgmv_writes_umoci_unpacks() {
    for umoci in installed(&["umoci", "umoci-new"]) {
        let shell = Shell::new();
        shell.run("imgmv copy -q oci:$FIXTURES/layout:1 oci:dir:1");
        assert_eq!(shell.run(&format!("{umoci} list --layout dir")), "1");
        shell.run(&format!("{umoci} unpack --image dir:1 bundle && {umoci} stat --image dir:1 --json >stat.json"));
        assert_eq!(shell.run("bundle/rootfs/bin/hello"), GREETING, "{umoci}");
        // What umoci changes and collects there, imgmv reads.
        shell.run(&format!("{umoci} tag --image dir:1 2 && {umoci} rm --image dir:1 && {umoci} gc --layout dir"));
        assert_eq!(shell.run("imgmv verify -q oci:dir >out && imgmv digest oci:dir:2"), HELLO, "{umoci}");
    }
}

#[test]
fn what_every_engine_saves_imgmv_reads_from_a_file_and_from_a_pipe() {
    everywhere(|peer, shell| {
        let kind = peer.kind;
        write_archives(shell);
        shell.run(&format!("{} <bundle.tar", load(kind)));
        let one = save(kind, "docker.io/t/one:1");
        shell.run(&format!("{one} >saved.tar && imgmv copy -q saved.tar oci:file:1 && imgmv verify -q oci:file"));
        shell.run(&format!("{one} | imgmv copy -q - oci:pipe:1 && imgmv verify -q oci:pipe"));
        let found = root(&shell.at("file"));
        assert_eq!(root(&shell.at("pipe")), found, "{kind:?}: a pipe is read as a file is");
        match kind {
            Kind::Docker28c | Kind::Containerd16 | Kind::Containerd21 => assert_eq!(found, HELLO, "{kind:?}"),
            // Unpacked layers, one manifest, whoever wrote them.
            _ => assert_eq!(found, RAW_HELLO, "{kind:?}"),
        }
        let two = save(kind, "docker.io/t/one:1 docker.io/t/two:1");
        shell.run(&format!("{two} | imgmv copy -q - both.tar"));
        let named = shell.run("imgmv list both.tar");
        for name in ["docker.io/t/one:1", "docker.io/t/two:1"] {
            assert!(named.contains(name), "{kind:?}: {named}");
        }
        if matches!(kind, Kind::Podman4 | Kind::Podman5) {
            shell.run("podman save -q --format oci-archive -o oci.tar docker.io/t/one:1");
            shell.run("imgmv copy -q oci.tar oci:oci:1 && imgmv verify -q oci:oci");
            assert_eq!(config(&shell.at("oci")), HELLO_CONFIG, "{kind:?}");
        }
    });
}

#[test]
fn what_skopeo_and_oras_write_imgmv_reads() {
    for skopeo in installed(&["skopeo", "skopeo-new"]) {
        let shell = Shell::new();
        shell.run(&format!(
            "{skopeo} --insecure-policy copy -q oci:$FIXTURES/layout:1 oci-archive:oci.tar:x
             {skopeo} --insecure-policy copy -q oci:$FIXTURES/layout:1 docker-archive:docker.tar:t/x:1
             {skopeo} --insecure-policy copy -q --all oci:$FIXTURES/multi:1 oci-archive:multi.tar"
        ));
        assert_eq!(shell.run("imgmv verify -q oci.tar >out && imgmv digest oci.tar"), HELLO, "{skopeo}");
        assert_eq!(shell.run("imgmv verify -q multi.tar >out && imgmv digest multi.tar"), MULTI, "{skopeo}");
        assert_eq!(shell.run("imgmv verify -q docker.tar >out && imgmv digest docker.tar"), RAW_HELLO, "{skopeo}");
        assert_eq!(shell.run("imgmv copy -q - oci:piped:1 <docker.tar >out; imgmv digest oci:piped:1"), RAW_HELLO);
    }
    for oras in installed(&["oras"]) {
        let shell = Shell::new();
        shell.run(&format!("{oras} copy --from-oci-layout $FIXTURES/multi:1 --to-oci-layout dir:1"));
        assert_eq!(shell.run("imgmv verify -q oci:dir >out && imgmv digest oci:dir:1"), MULTI);
    }
}

#[test]
fn what_crane_pulls_into_files_imgmv_reads() {
    for crane in installed(&["crane"]) {
        let shell = Shell::new();
        let registry = Registry::start(shell.path());
        let name = format!("{}/t/hello:1", registry.address);
        shell.run(&format!("imgmv copy -q oci:$FIXTURES/layout:1 docker://{name}"));
        for (format, expected) in [("tarball", HELLO), ("legacy", RAW_HELLO), ("oci", HELLO)] {
            let pull = format!("{crane} pull --format={format} {name} {format}");
            let read = match format {
                "oci" => "imgmv digest oci:oci".to_owned(),
                _ => format!("imgmv verify -q docker-archive:{format} >out && imgmv digest docker-archive:{format}"),
            };
            assert_eq!(shell.run(&format!("{pull} && {read}")), expected, "{format}");
        }
    }
}
