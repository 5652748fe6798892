//! Archives and layouts: imgmv's in the hands of every engine and tool, and theirs in imgmv's.

use super::*;
use support::shell::{config, root};

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

/// The referrers of an image are in its archive, and no engine takes them for images or fails on them.
#[test]
fn an_archive_of_a_signed_image_is_loaded_by_every_engine() {
    everywhere(|peer, shell| {
        if installed(&["oras"]).is_empty() {
            return;
        }
        shell.run(&format!(
            "imgmv copy -q oci:$FIXTURES/multi:1 oci:signed:1
             echo sbom >sbom.json
             oras attach --oci-layout --artifact-type application/spdx+json signed@{MULTI} sbom.json
             imgmv copy -q oci:signed:1 signed.tar --as t/signed:1"
        ));
        assert!(shell.run("imgmv list --json signed.tar").contains("t/signed:1"));
        let files = shell.run("tar -tf signed.tar | wc -l");
        let without = shell.run(
            "imgmv copy -q --no-referrers oci:signed:1 bare.tar --as t/bare:1 >/dev/null; tar -tf bare.tar | wc -l",
        );
        assert!(files.trim().parse::<u32>().unwrap() > without.trim().parse::<u32>().unwrap(), "{files} {without}");
        shell.run(&format!("{} <signed.tar", load(peer.kind)));
        assert!(peer.id("docker.io/t/signed:1").is_some(), "{:?}", peer.kind);
        if matches!(peer.kind, Kind::Containerd16 | Kind::Containerd21) {
            shell.run("ctr -n plain images import --all-platforms --digests signed.tar");
            assert!(shell.run("ctr -n plain images ls -q").contains("docker.io/t/signed:1"));
        }
    });
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
