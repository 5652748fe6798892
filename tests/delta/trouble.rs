//! What goes wrong between asking and loading: the image is whole in the end, or the old one is still there.

use crate::engines::{Kind, Peer};
use crate::world::{APP, BESIDE, Between, Far, LAYER, Told, noise, version};
use imgmv::{Coding, Digest, Kind as Failure};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

fn layers(seeds: &[u64]) -> Vec<Vec<u8>> {
    seeds.iter().map(|&seed| noise(seed, LAYER)).collect()
}

/// A call of the engine's client at the moment when the host was asked and nothing was sent.
fn between(peer: &Peer, arguments: &[&str]) -> Between {
    let (call, arguments) = (peer.caller(), arguments.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
    Box::new(move || {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        assert!(call(&words).is_some(), "{words:?} failed");
    })
}

/// What somebody over there would say who removes the image, as politely as the engine knows.
fn remove(peer: &Peer) -> Vec<&'static str> {
    match peer.kind {
        Kind::Containerd16 | Kind::Containerd21 => vec!["images", "rm", "--sync", APP],
        _ => vec!["rmi", APP],
    }
}

#[test]
fn what_was_found_there_stays_while_it_is_counted_on() {
    for kind in [Kind::Docker20, Kind::Docker28, Kind::Docker28c, Kind::Containerd16, Kind::Containerd21] {
        let Some(far) = Far::start(kind) else { continue };
        far.copy(&version(&[1, 2], Coding::Raw)).unwrap();
        let next = far.copy_while(&version(&[1, 2, 3], Coding::Raw), between(&far.peer, &remove(&far.peer))).unwrap();
        assert!(next.said.contains("pinned"), "{kind:?}: {}", next.said);
        assert!(next.up < (LAYER + LAYER / 10) as u64 + BESIDE, "{kind:?}: {} {}", next.up, next.said);
        far.is_whole(APP, &layers(&[1, 2, 3]));
        assert_eq!(far.left_over(), "", "{kind:?}");
    }
}

#[test]
fn a_layer_that_is_torn_away_meanwhile_makes_everything_go() {
    for kind in Kind::ALL {
        let Some(far) = Far::start(kind) else { continue };
        far.copy(&version(&[1, 2], Coding::Raw)).unwrap();
        let gone = Digest::of(&noise(2, LAYER)).to_string();
        let id = far.peer.id(APP).unwrap();
        let tear: Between = match kind {
            Kind::Containerd16 | Kind::Containerd21 => between(&far.peer, &["content", "rm", &gone]),
            Kind::Docker28c => {
                let socket = far.peer.folder.path().join("exec/containerd/containerd.sock");
                let words = ["ctr", "-a", socket.to_str().unwrap(), "-n", "moby", "content", "rm", &gone];
                let words = words.map(str::to_owned);
                Box::new(move || {
                    let done = Command::new(&words[0]).args(&words[1..]).stdout(Stdio::null()).status();
                    assert!(done.unwrap().success());
                })
            }
            _ => between(&far.peer, &["rmi", "-f", &id]),
        };
        let next = far.copy_while(&version(&[1, 2, 3], Coding::Raw), tear).unwrap();
        assert!(next.said.contains("sending everything"), "{kind:?}: {}", next.said);
        assert_eq!(next.report.transferred.blobs, 4, "{kind:?}: {:?}", next.report);
        far.is_whole(APP, &layers(&[1, 2, 3]));
        assert_eq!(far.left_over(), "", "{kind:?}");
    }
}

#[test]
fn a_layer_in_another_packing_is_never_mistaken_for_the_one_that_is_wanted() {
    for kind in Kind::ALL {
        let Some(far) = Far::start(kind) else { continue };
        for (before, after, seeds) in
            [(Coding::Gzip, Coding::Raw, [1, 2, 3]), (Coding::Raw, Coding::Gzip, [11, 12, 13])]
        {
            far.copy(&version(&seeds[..2], before)).unwrap();
            let next = far.copy(&version(&seeds, after)).unwrap();
            far.is_whole(APP, &layers(&seeds));
            let moved = next.report.transferred.blobs;
            match kind {
                // By what is unpacked, whatever the packing.
                Kind::Docker20 | Kind::Docker28 => assert_eq!(moved, 2, "{kind:?}: {}", next.said),
                // A raw layer is what podman has unpacked; a packed one only when it came packed like this.
                Kind::Podman4 | Kind::Podman5 if after == Coding::Raw => {
                    assert_eq!(moved, 2, "{kind:?}: {}", next.said)
                }
                Kind::Podman4 | Kind::Podman5 => {}
                _ => {
                    assert_eq!(moved, 4, "{kind:?}: {}", next.said);
                    assert!(next.said.contains("exist only as snapshots are sent (2;"), "{kind:?}: {}", next.said);
                }
            }
            assert!(!next.said.contains("sending everything"), "{kind:?}: {}", next.said);
        }
    }
}

#[test]
fn a_docker_that_reads_no_zstd_is_sent_only_what_is_new_all_the_same() {
    let Some(far) = Far::start(Kind::Docker20) else { return };
    far.copy(&version(&[1, 2], Coding::Zstd)).unwrap();
    let next = far.copy(&version(&[1, 2, 3], Coding::Zstd)).unwrap();
    assert_eq!(next.report.transferred.blobs, 2, "{}", next.said);
    assert!(!next.said.contains("sending everything"), "{}", next.said);
    far.is_whole(APP, &layers(&[1, 2, 3]));
    assert_eq!(far.copy(&version(&[1, 2, 3], Coding::Zstd)).unwrap().report.transferred.blobs, 0);
}

#[test]
fn layers_that_containerd_has_discarded_go_again_and_that_is_said() {
    let Some(far) = Far::start(Kind::Containerd21) else { return };
    let one = version(&[1, 2], Coding::Gzip);
    let file = far.peer.folder.path().join("one.tar");
    let told = std::sync::Arc::new(Told::default());
    let sink = imgmv::internals::archive::ArchiveSink::to_file(&file).unwrap();
    let source = imgmv::Source::Store(std::sync::Arc::new(one.clone()));
    imgmv::copy(source, &sink, &Default::default(), None, told.as_ref(), &Default::default()).unwrap();
    let import = ["images", "import", "--local", "--discard-unpacked-layers", file.to_str().unwrap()];
    far.peer.client(&import);
    let next = far.copy(&version(&[1, 2, 3], Coding::Gzip)).unwrap();
    assert_eq!(next.report.transferred.blobs, 4, "{}", next.said);
    assert!(next.said.contains("exist only as snapshots are sent (2;"), "{}", next.said);
    far.is_whole(APP, &layers(&[1, 2, 3]));
}

#[test]
fn a_command_of_the_users_own_is_sent_everything_and_that_is_said() {
    let Some(far) = Far::start(Kind::Containerd16) else { return };
    let host = std::sync::Arc::from(far.sshd.host(far.way).unwrap());
    let found = imgmv::internals::engine::detect(&*host, &[], None, Some("ctr images import -")).unwrap();
    let told = std::sync::Arc::new(Told::default());
    let sink = imgmv::internals::engine::EngineSink::new(host, found, told.clone(), &Default::default());
    let source = imgmv::Source::Store(std::sync::Arc::new(version(&[1], Coding::Raw)));
    imgmv::copy(source, &sink, &Default::default(), None, told.as_ref(), &Default::default()).unwrap();
    let said = told.0.lock().unwrap().join("\n");
    assert!(said.contains("not known for a custom --remote-command; all layers are sent"), "{said}");
    far.is_whole(APP, &layers(&[1]));
}

#[test]
fn a_line_that_is_cut_leaves_the_old_image_and_the_rerun_brings_the_new_one() {
    for kind in Kind::ALL {
        let Some(far) = Far::start(kind) else { continue };
        far.copy(&version(&[1], Coding::Raw)).unwrap();
        let before = far.peer.id(APP);
        let two = version(&[1, 2, 3], Coding::Raw);
        far.line.cut_after((LAYER + LAYER / 2 + LAYER / 4) as u64);
        let error = far.copy(&two).err().unwrap();
        assert_eq!(error.kind(), Failure::RemoteHost, "{kind:?}: {error}");
        assert!(!error.to_string().contains("sending everything"), "{kind:?}: {error}");
        assert_eq!(far.peer.id(APP), before, "{kind:?}");
        far.line.cut_after(0);
        // containerd keeps the layers that had arrived, once its import has noticed.
        let kept = matches!(kind, Kind::Docker28c | Kind::Containerd16 | Kind::Containerd21);
        assert!(!kept || far.comes_to_hold(&Digest::of(&noise(2, LAYER))), "{kind:?}");
        let next = far.copy(&two).unwrap();
        assert_eq!(next.report.transferred.blobs, if kept { 2 } else { 3 }, "{kind:?}: {}", next.said);
        far.is_whole(APP, &layers(&[1, 2, 3]));
        // Where the cut run's shell over there had not noticed yet, its pin was taken for a living one's: a later copy
        // sweeps it.
        let swept = (0..20).any(|_| {
            let clean = far.left_over().is_empty();
            if !clean {
                std::thread::sleep(std::time::Duration::from_millis(500));
                far.copy(&two).unwrap();
            }
            clean
        });
        assert!(swept, "{kind:?}: {}", far.left_over());
    }
}

#[test]
fn a_full_disk_leaves_the_old_image_and_is_not_tried_twice() {
    for kind in [Kind::Docker20, Kind::Docker28c, Kind::Containerd16, Kind::Podman4] {
        let Some(peer) = Peer::start_on_small_disk(kind, 30) else { continue };
        let Some(far) = Far::of(peer) else { return };
        far.copy(&version(&[1], Coding::Raw)).unwrap();
        let before = far.peer.id(APP);
        // It is full once all has come, or long before.
        for layers in [8, 20] {
            let large: Vec<u64> = (1..=layers).collect();
            let error = far.copy(&version(&large, Coding::Raw)).err().unwrap();
            assert_eq!(error.kind(), Failure::RemoteHost, "{kind:?}: {error}");
            // podman 4.3 sometimes crashes in its tar-split code instead.
            let crashed = kind == Kind::Podman4 && error.to_string().contains("ended with status 2");
            assert!(crashed || error.to_string().contains("no space left on device"), "{kind:?}: {error}");
            assert!(!error.to_string().contains("sending everything"), "{kind:?}: {error}");
            assert_eq!(far.peer.id(APP), before, "{kind:?}");
            assert_eq!(far.left_over(), "", "{kind:?}");
        }
    }
}

fn script(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).unwrap();
}

/// The peer with `folder/bin` before everything else on its path.
fn overlaid(mut peer: Peer, programs: &[(&str, &str)]) -> Peer {
    let bin = peer.folder.path().join("bin");
    fs::create_dir(&bin).unwrap();
    programs.iter().for_each(|(name, text)| script(&bin, name, text));
    let path = peer.environment.iter_mut().find(|(key, _)| key == "PATH").unwrap();
    path.1 = format!("{}:{}", bin.display(), path.1);
    peer
}

#[test]
fn where_containerd_may_not_be_asked_everything_goes_and_the_reason_is_said() {
    let Some(peer) = Peer::start(Kind::Docker28c) else { return };
    let refused = "echo 'ctr: failed to dial: permission denied' >&2; exit 1";
    let Some(far) = Far::of(overlaid(peer, &[("ctr", refused)])) else { return };
    far.copy(&version(&[1, 2], Coding::Raw)).unwrap();
    let next = far.copy(&version(&[1, 2, 3], Coding::Raw)).unwrap();
    assert_eq!(next.report.transferred.blobs, 4);
    assert!(
        next.said.contains("permission to query containerd was denied (root has it); all layers are sent"),
        "{}",
        next.said
    );
    far.is_whole(APP, &layers(&[1, 2, 3]));
    // That it is there as a whole docker itself says.
    assert_eq!(far.copy(&version(&[1, 2, 3], Coding::Raw)).unwrap().exchanges, 2);
}

/// nerdctl's command line over the ctr of this Debian; `load` does what `$LOAD` says.
const NERDCTL: &str = r#"
ns=default
if [ "$1" = --namespace ]; then ns=$2; shift 2; fi
case "$*" in
    version) exec /usr/bin/ctr version ;;
    'namespace ls -q') exec /usr/bin/ctr namespaces ls -q ;;
    load) LOAD ;;
    'tag '*) exec /usr/bin/ctr -n "$ns" images tag --force "$2" "$3" ;;
    'rmi '*) shift; exec /usr/bin/ctr -n "$ns" images rm "$@" ;;
    'image inspect --mode=native --format {{json .Image.Target.Digest}} '*)
        eval "name=\${$#}"
        /usr/bin/ctr -n "$ns" images ls "name==$name" | awk 'NR > 1 { print "\"" $3 "\"" }'
        ;;
    *) echo "unknown: $*" >&2; exit 64 ;;
esac"#;

#[test]
fn nerdctl_is_asked_through_ctr_and_goes_without_it() {
    let imports = NERDCTL.replace("LOAD", "exec /usr/bin/ctr -n \"$ns\" images import -");
    for (programs, moved) in
        [(vec![("nerdctl", imports.as_str())], 2), (vec![("nerdctl", imports.as_str()), ("ctr", "exit 1")], 4)]
    {
        let Some(peer) = Peer::start(Kind::Containerd16) else { return };
        let Some(mut far) = Far::of(overlaid(peer, &programs)) else { return };
        far.engines = vec![imgmv::internals::engine::Engine::Nerdctl];
        far.copy(&version(&[1, 2], Coding::Raw)).unwrap();
        let next = far.copy(&version(&[1, 2, 3], Coding::Raw)).unwrap();
        assert_eq!(next.report.transferred.blobs, moved, "{}", next.said);
        far.is_whole(APP, &layers(&[1, 2, 3]));
        assert_eq!(far.left_over(), "");
    }
}

#[test]
fn a_load_that_says_yes_and_does_nothing_is_not_believed_and_the_old_image_stays() {
    let Some(peer) = Peer::start(Kind::Containerd16) else { return };
    // It loads once, and never again.
    let once = "if [ -e $HOME/loaded ]; then cat >/dev/null; else touch $HOME/loaded; exec /usr/bin/ctr -n \"$ns\" images import -; fi";
    let nerdctl = NERDCTL.replace("LOAD", once);
    let Some(mut far) = Far::of(overlaid(peer, &[("nerdctl", nerdctl.as_str())])) else { return };
    far.engines = vec![imgmv::internals::engine::Engine::Nerdctl];
    far.copy(&version(&[1, 2], Coding::Raw)).unwrap();
    let before = far.peer.id(APP);
    let error = far.copy(&version(&[1, 2, 3], Coding::Raw)).err().unwrap();
    assert_eq!(error.kind(), Failure::RemoteHost);
    assert!(error.to_string().contains("sending everything"), "{error}");
    assert_eq!(far.peer.id(APP), before);
    assert_eq!(far.left_over(), "");
    let _ = Told::default();
}
