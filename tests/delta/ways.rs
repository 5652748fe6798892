//! Other shapes, other ways: several images and platforms, a host that holds thousands of blobs, pins that somebody
//! left, ssh built in, and the packing for the way.

use crate::engines::{Kind, Peer};
use crate::memory::Memory;
use crate::sshd::Way;
use crate::world::{APP, BESIDE, Far, LAYER, noise, put, tar, unnamed, version};
use imgmv::internals::engine::{Engine, EngineSink, WireCompression, detect};
use imgmv::internals::image::media_type;
use imgmv::internals::layout::{BlobCheck, LayoutSink};
use imgmv::internals::remote::Local;
use imgmv::{Cancel, Coding, Digest, Manifest, Options, Platform, Silent, Source, copy};
use std::{
    io::Write,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

fn layers(seeds: &[u64]) -> Vec<Vec<u8>> {
    seeds.iter().map(|&seed| noise(seed, LAYER)).collect()
}

fn other_platform() -> Platform {
    let host = Platform::host();
    Platform::new("linux", if host.architecture == "arm64" { "amd64" } else { "arm64" }, None)
}

/// `t/app:1` as this host's docker saves it.
fn save(here: &Peer) -> Source {
    let local = Local::new(&Cancel::default());
    let local = here.environment.iter().fold(local, |local, (key, value)| local.with_env(key, value));
    let found = detect(&local, &[Engine::Docker], None, None).unwrap();
    Source::Stream(Box::new(
        imgmv::internals::engine::save(Arc::new(local), &found, &["t/app:1".to_owned()]).unwrap().stream(),
    ))
}

/// Puts `t/app:1` into this host's docker.
fn build(here: &Peer, seeds: &[u64]) {
    let local = Local::new(&Cancel::default());
    let local = here.environment.iter().fold(local, |local, (key, value)| local.with_env(key, value));
    let found = detect(&local, &[Engine::Docker], None, None).unwrap();
    let sink = EngineSink::new(Arc::new(local), found, Arc::new(Silent), &Cancel::default());
    let source = Source::Store(Arc::new(version(seeds, Coding::Raw)));
    copy(source, &sink, &Options::default(), None, &Silent, &Cancel::default()).unwrap();
}

#[test]
fn docker_as_a_source_says_its_layers_beforehand_and_passes_only_what_is_new() {
    let Some(here) = Peer::start(Kind::Docker28) else { return };
    for kind in Kind::ALL {
        let Some(far) = Far::start(kind) else { continue };
        build(&here, &[1, 2]);
        far.copy_from(save(&here), Options::default()).unwrap();
        build(&here, &[1, 2, 3]);
        let next = far.copy_from(save(&here), Options::default()).unwrap();
        assert!(next.up < (LAYER + LAYER / 10) as u64 + BESIDE, "{kind:?}: {} up\n{}", next.up, next.said);
        far.is_whole(APP, &layers(&[1, 2, 3]));
        assert_eq!(far.left_over(), "", "{kind:?}");
    }
}

/// `t/app:1` for two platforms; the host's has `seeds`.
fn multi(seeds: &[u64]) -> Memory {
    let mut memory = Memory::default();
    let here = unnamed(&mut memory, &Platform::host(), &layers(seeds), Coding::Gzip);
    let there = unnamed(&mut memory, &other_platform(), &layers(&[70, 71]), Coding::Gzip);
    let index = memory.index(&[there, here]);
    memory.name(APP, &index);
    memory
}

#[test]
fn of_an_image_for_several_platforms_only_what_is_new_for_this_host_goes() {
    for kind in Kind::ALL {
        let Some(far) = Far::start(kind) else { continue };
        assert_eq!(far.copy(&multi(&[1, 2])).unwrap().report.transferred.blobs, 3, "{kind:?}");
        let again = far.copy(&multi(&[1, 2])).unwrap();
        assert_eq!((again.report.transferred.blobs, again.exchanges), (0, 2), "{kind:?}: {}", again.said);
        let next = far.copy(&multi(&[1, 2, 3])).unwrap();
        assert_eq!(next.report.transferred.blobs, 2, "{kind:?}: {}", next.said);
        assert!(next.up < (LAYER + LAYER / 10) as u64 + BESIDE, "{kind:?}: {} up", next.up);
        far.is_whole(APP, &layers(&[1, 2, 3]));
        assert_eq!(far.left_over(), "", "{kind:?}");
    }
}

#[test]
fn of_several_images_those_that_are_there_stay_and_the_others_share_their_layers() {
    for kind in [Kind::Docker20, Kind::Docker28c, Kind::Containerd16, Kind::Podman4] {
        let Some(far) = Far::start(kind) else { continue };
        let mut memory = version(&[1, 2], Coding::Raw);
        far.copy(&memory).unwrap();
        put(&mut memory, "docker.io/t/other:1", &layers(&[1, 2, 3]), Coding::Raw);
        // Another order: docker holds none of it in this place.
        put(&mut memory, "docker.io/t/turned:1", &layers(&[2, 1]), Coding::Raw);
        let next = far.copy(&memory).unwrap();
        let moved = match kind {
            // Two configs and the new layer; what lies in another order is not held.
            Kind::Docker20 => 5,
            Kind::Podman4 => 5,
            _ => 3,
        };
        let said = next.said.contains("podman loads several images at once only with all their layers");
        assert_eq!(said, kind == Kind::Podman4, "{}", next.said);
        assert!(!next.said.contains("sending everything"), "{kind:?}: {}", next.said);
        assert_eq!(next.report.transferred.blobs, moved, "{kind:?}: {:?}\n{}", next.report.transferred, next.said);
        far.is_whole("docker.io/t/other:1", &layers(&[1, 2, 3]));
        far.is_whole("docker.io/t/turned:1", &layers(&[2, 1]));
        far.is_whole(APP, &layers(&[1, 2]));
    }
}

#[test]
fn a_host_with_thousands_of_blobs_is_not_asked_for_their_list() {
    const MANY: usize = 5000;
    let Some(far) = Far::start(Kind::Containerd16) else { return };
    far.copy(&version(&[1, 2], Coding::Raw)).unwrap();
    // An archive of small blobs that one manifest lists.
    let mut memory = Memory::default();
    let small: Vec<_> =
        (0..MANY).map(|n| memory.keep(media_type::OCI_LAYER, format!("blob {n}").into_bytes())).collect();
    let config = memory.keep(media_type::OCI_CONFIG, b"{}".to_vec());
    let manifest = Manifest::synthesise(&config, &small);
    memory.blobs.insert(manifest.digest(), manifest.bytes.clone());
    memory.name("docker.io/t/many:1", &manifest.descriptor);
    let file = far.peer.folder.path().join("many.tar");
    let told: Arc<crate::world::Told> = Default::default();
    let sink = imgmv::internals::archive::ArchiveSink::to_file(&file).unwrap();
    let source = Source::Store(Arc::new(memory));
    copy(source, &sink, &Default::default(), None, told.as_ref(), &Default::default()).unwrap();
    far.peer.client(&["images", "import", "--no-unpack", file.to_str().unwrap()]);
    assert!(far.peer.client(&["content", "ls", "-q"]).lines().count() > MANY);
    let next = far.copy(&version(&[1, 2, 3], Coding::Raw)).unwrap();
    let moved = LAYER as u64 + 2048;
    assert!(next.up + next.down <= moved + moved / 100 + BESIDE, "{} up, {} down", next.up, next.down);
    assert!(next.down < 40_000, "{} down", next.down);
}

#[test]
fn what_a_killed_run_left_there_the_next_one_sweeps() {
    let Some(far) = Far::start(Kind::Containerd21) else { return };
    far.copy(&version(&[1], Coding::Raw)).unwrap();
    let pin = |text: &str, label: &str| {
        let digest = Digest::of(text.as_bytes()).to_string();
        // A collection may run between the blob and its label, and takes the blob then.
        let pinned = (0..10).any(|_| {
            let mut ctr = std::process::Command::new("ctr-new");
            ctr.envs(far.peer.environment.iter().filter(|(key, _)| key != "PATH").map(|(k, v)| (k, v)));
            let mut child = ctr
                .args(["content", "ingest", "--expected-digest", &digest, text])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            child.wait().unwrap().success() && far.peer.try_client(&["content", "label", &digest, label]).is_some()
        });
        assert!(pinned, "{label}");
        digest
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mine = std::process::id();
    // Of a process that is gone, of one that had its id long ago, and of one that runs.
    pin("dead", &format!("containerd.io/gc.root=imgmv-{now}-4194305"));
    pin("old", &format!("containerd.io/gc.root=imgmv-{}-{mine}", now - 200_000));
    let living = pin("living", &format!("containerd.io/gc.root=imgmv-{now}-{mine}"));
    far.peer.client(&["images", "tag", APP, &format!("imgmv.invalid/loading:{}-abc-0", now - 200_000)]);
    let beside = format!("imgmv.invalid/loading:{now}-def-0");
    far.peer.client(&["images", "tag", APP, &beside]);
    far.copy(&version(&[1, 2], Coding::Raw)).unwrap();
    let left = far.left_over();
    assert!(left.lines().count() == 2 || !left.contains('\n'), "{left}");
    assert!(left.contains(&living) && left.contains(&beside), "{left}");
    assert!(
        !left.contains("-abc-") && !left.contains("4194305") && !left.contains(&format!("-{}", now - 200_000)),
        "{left}"
    );
}

#[test]
fn ssh_built_in_sends_as_little() {
    for kind in [Kind::Docker20, Kind::Containerd16] {
        let Some(mut far) = Far::start(kind) else { continue };
        far.way = Way::Builtin;
        far.copy(&version(&[1, 2], Coding::Raw)).unwrap();
        let again = far.copy(&version(&[1, 2], Coding::Raw)).unwrap();
        assert_eq!((again.report.transferred.blobs, again.exchanges), (0, 2), "{kind:?}: {}", again.said);
        let next = far.copy(&version(&[1, 2, 3], Coding::Raw)).unwrap();
        let moved = LAYER as u64 + 2048;
        assert!(next.up + next.down <= moved + moved / 100 + BESIDE, "{kind:?}: {} up, {} down", next.up, next.down);
        far.is_whole(APP, &layers(&[1, 2, 3]));
    }
}

#[test]
fn raw_layers_are_packed_for_the_way_and_are_raw_again_where_they_arrive() {
    for kind in Kind::ALL {
        let Some(mut far) = Far::start(kind) else { continue };
        for (wire, most) in
            [(None, 2 << 20), (Some(WireCompression::Gzip), 2 << 20), (Some(WireCompression::Plain), u64::MAX)]
        {
            far.wire = wire;
            let mut memory = Memory::default();
            let words = format!("the same words by {wire:?} again and again ");
            let text = tar("words", &words.as_bytes().repeat((8 << 20) / words.len()));
            let root = put(&mut memory, APP, std::slice::from_ref(&text), Coding::Raw);
            let cost = far.copy(&memory).unwrap();
            println!("{kind:?} {wire:?}: {} up of {}", cost.up, text.len());
            assert!(cost.up < most, "{kind:?} {wire:?}: {} up", cost.up);
            assert_eq!(cost.report.images[0].digest, root.digest);
            far.is_whole(APP, &[text]);
        }
    }
}

#[test]
fn kubelets_namespace_is_the_one_that_is_asked() {
    let Some(peer) = Peer::start(Kind::Containerd16) else { return };
    let Some(far) = Far::of(peer) else { return };
    far.copy(&version(&[1, 2], Coding::Raw)).unwrap();
    // What the default namespace holds does not count there.
    far.peer.client(&["namespaces", "create", "k8s.io"]);
    assert_eq!(far.copy(&version(&[1, 2], Coding::Raw)).unwrap().report.transferred.blobs, 3);
    assert_eq!(far.copy(&version(&[1, 2, 3], Coding::Raw)).unwrap().report.transferred.blobs, 2);
    let checked = far.peer.client(&["-n", "k8s.io", "images", "check"]);
    assert!(checked.contains("complete (5/5)") || checked.contains("complete (4/4)"), "{checked}");
}

#[test]
fn several_names_of_one_image_cost_no_more_than_one() {
    for kind in Kind::ALL {
        let Some(far) = Far::start(kind) else { continue };
        far.copy(&version(&[1, 2], Coding::Raw)).unwrap();
        let mut memory = version(&[1, 2, 3], Coding::Raw);
        let root = memory.roots[0].descriptor.clone();
        memory.name("docker.io/t/second:1", &root);
        memory.name("reg.lan:5000/t/third:x", &root);
        let next = far.copy(&memory).unwrap();
        assert_eq!(next.report.transferred.blobs, 2, "{kind:?}: {}", next.said);
        let ids = [APP, "docker.io/t/second:1", "reg.lan:5000/t/third:x"].map(|name| far.peer.id(name));
        assert!(ids[0].is_some() && ids.iter().all(|id| *id == ids[0]), "{kind:?}: {ids:?}");
        assert_eq!(far.left_over(), "", "{kind:?}");
        let again = far.copy(&memory).unwrap();
        assert_eq!((again.report.transferred.blobs, again.exchanges), (0, 2), "{kind:?}: {}", again.said);
    }
}

/// An OCI layout with `t/app:1` of these layers.
fn write_layout(dir: &std::path::Path, seeds: &[u64]) {
    let told: Arc<crate::world::Told> = Default::default();
    let sink = LayoutSink::open(dir, BlobCheck::Size, told.clone()).unwrap();
    let source = Source::Store(Arc::new(version(seeds, Coding::Raw)));
    copy(source, &sink, &Options::default(), None, told.as_ref(), &Cancel::default()).unwrap();
}

#[test]
fn a_killed_copy_leaves_the_old_image_and_the_next_one_sweeps_after_it() {
    for (kind, engine) in [(Kind::Docker20, "docker"), (Kind::Containerd16, "ctr")] {
        let Some(far) = Far::start(kind) else { continue };
        far.copy(&version(&[1], Coding::Raw)).unwrap();
        let before = far.peer.id(APP);
        let layout = far.peer.folder.path().join("layout");
        write_layout(&layout, &[1, 2, 3]);
        far.sshd.client_config("");
        let ssh = format!("ssh -F {} -o BatchMode=yes", far.sshd.at("home/.ssh/config"));
        let source = format!("oci:{}", layout.display());
        let run = |more: &[&str]| {
            let mut imgmv = crate::program::command(env!("CARGO_BIN_EXE_imgmv"));
            imgmv.args(["copy", "--ssh", &ssh, &source, "ssh://node1", "--engine", engine]).args(more);
            imgmv.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        far.line.counted();
        let mut slow = run(&["--limit-rate", "2M", "--wire", "none"]);
        let until = Instant::now() + Duration::from_secs(60);
        let mut up = 0;
        while up < LAYER as u64 / 2 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
            up += far.line.counted().0;
        }
        slow.kill().unwrap();
        slow.wait().unwrap();
        assert_eq!(far.peer.id(APP), before, "{kind:?}");
        let done = run(&["-v"]).wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{kind:?}: {said}");
        assert!(said.contains("compressed with zstd for the connection"), "{kind:?}: {said}");
        far.is_whole(APP, &layers(&[1, 2, 3]));
        // The killed one's far side may still have been at work.
        far.copy(&version(&[1, 2, 3, 4], Coding::Raw)).unwrap();
        assert_eq!(far.left_over(), "", "{kind:?}");
    }
}
