//! Real engines as destinations and sources, on this host: what is loaded is there under its own digest, and what goes
//! wrong is told in the engine's words.

#[path = "support/engines.rs"]
mod engines;
#[path = "support/memory.rs"]
mod memory;
#[path = "support/program.rs"]
mod program;

use engines::{Kind, Peer};
use imgmv::internals::archive::{Input, open};
use imgmv::internals::engine::{DetectedEngine, Engine, EngineSink, detect, save};
use imgmv::internals::image::media_type;
use imgmv::internals::layout::LayoutStore;
use imgmv::internals::remote::{Host, Local};
use imgmv::{
    Cancel, Event, Kind as Failure, Name, Naming, Options, Platform, Report, Result, Selector, Source, Watch, copy,
};
use program::fixture;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex},
};

/// The image of the fixtures (fixtures/README.md).
const MANIFEST: &str = "sha256:602b22ac";
const CONFIG: &str = "sha256:54e28c1b";
const NAME: &str = "docker.io/library/hello-imgmv:1";

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Watch for Told {
    fn event(&self, event: Event<'_>) {
        if let Event::Info(text) | Event::Detail(text) = event {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }
}

fn here(peer: &Peer) -> Local {
    let local = Local::new(&Cancel::default());
    peer.environment.iter().fold(local, |local, (key, value)| local.with_env(key, value))
}

fn found(peer: &Peer, namespace: Option<&str>) -> DetectedEngine {
    detect(&here(peer), &[peer.kind.engine()], namespace, None).unwrap()
}

fn layout() -> Source {
    Source::Store(Arc::new(LayoutStore::open(Path::new(&fixture("layout"))).unwrap()))
}

fn archive(name: &str) -> Source {
    let told: Arc<dyn Watch> = Arc::new(Told::default());
    open(&Input::File(fixture(name).into()), told).unwrap()
}

/// A stream, as it would come through a pipe.
fn piped(name: &str) -> Source {
    let file = fs::File::open(fixture(name)).unwrap();
    Source::Stream(Box::new(imgmv::ArchiveStream::new(Box::new(file), name)))
}

fn load(
    host: Arc<dyn Host>,
    found: DetectedEngine,
    source: Source,
    selectors: &[&str],
    names: &[&str],
) -> Result<Report> {
    let told: Arc<Told> = Arc::default();
    let sink = EngineSink::new(host, found, told.clone(), &Cancel::default());
    let options = Options {
        selectors: selectors.iter().map(|selector| Selector::Name((*selector).to_owned())).collect(),
        naming: match names {
            [] => Naming::Keep,
            names => Naming::Names(names.iter().map(|name| Name::new(*name).unwrap()).collect()),
        },
        ..Options::default()
    };
    copy(source, &sink, &options, None, told.as_ref(), &Cancel::default())
}

fn into(peer: &Peer, source: Source, selectors: &[&str], names: &[&str]) -> Result<Report> {
    load(Arc::new(here(peer)), found(peer, None), source, selectors, names)
}

/// What the engine calls the fixture's image.
fn is_hello(peer: &Peer, id: &str) -> bool {
    match peer.kind {
        Kind::Docker28c | Kind::Containerd16 | Kind::Containerd21 => id.starts_with(MANIFEST),
        _ => id.starts_with(CONFIG),
    }
}

/// Each engine in turn does all of it: starting one costs more than the rest.
fn everywhere(check: impl Fn(&Peer)) {
    for kind in Kind::ALL {
        if let Some(peer) = Peer::start(kind) {
            check(&peer);
        }
    }
}

#[test]
fn an_image_is_loaded_under_its_own_digest_by_every_engine() {
    everywhere(|peer| {
        let report = into(peer, layout(), &["1"], &[NAME]).unwrap();
        assert!(report.images[0].digest.to_string().starts_with(MANIFEST), "{:?}", peer.kind);
        let id = peer.id(NAME).unwrap();
        assert!(is_hello(peer, &id), "{:?}: {id}", peer.kind);
        // Again, under a second name, beside another image.
        into(peer, layout(), &["1"], &["docker.io/t/again:2"]).unwrap();
        into(peer, layout(), &["bye"], &["reg.lan:5000/t/bye:1"]).unwrap();
        assert_eq!(peer.id("docker.io/t/again:2").unwrap(), id, "{:?}", peer.kind);
        assert!(peer.id("reg.lan:5000/t/bye:1").is_some(), "{:?}", peer.kind);
    });
}

#[test]
fn archives_pass_into_every_engine_whether_they_are_read_in_place_or_piped() {
    everywhere(|peer| {
        let kind = peer.kind;
        let same = |what: &str, id: Option<String>| {
            assert!(id.as_ref().is_some_and(|id| is_hello(peer, id)), "{kind:?}: {what}: {id:?}");
        };
        into(peer, archive("hello-ctr16.tar"), &[], &["t/stored:1"]).unwrap();
        same("an archive read in place", peer.id("docker.io/t/stored:1"));
        into(peer, piped("hello-docker28c.tar"), &[], &["t/piped:1"]).unwrap();
        same("a piped archive of docker 28", peer.id("docker.io/t/piped:1"));
        // The old form passes as it is; what the engine makes of it is its own.
        into(peer, piped("hello-docker20.tar"), &[], &["t/relayed:1"]).unwrap();
        assert!(peer.id("docker.io/t/relayed:1").is_some(), "{kind:?}");
        into(peer, piped("two-images-docker20.tar"), &[], &[]).unwrap();
        for name in [NAME, "docker.io/library/hello-imgmv:latest", "docker.io/library/bye-imgmv:1"] {
            assert!(peer.id(name).is_some(), "{kind:?}: {name}");
        }
    });
}

#[test]
fn an_index_keeps_its_digest_where_the_engine_can_hold_one() {
    everywhere(|peer| {
        let multi = Source::Store(Arc::new(LayoutStore::open(Path::new(&fixture("multi"))).unwrap()));
        let Source::Store(store) = &multi else { unreachable!() };
        let root = store.roots(&[]).unwrap().into_iter().next().unwrap().descriptor.digest.to_string();
        let report = into(peer, multi, &[], &["t/multi:1"]).unwrap();
        let id = peer.id("docker.io/t/multi:1").unwrap();
        match peer.kind {
            Kind::Docker28c | Kind::Containerd16 | Kind::Containerd21 => {
                assert_eq!((report.images[0].digest.to_string(), id), (root.clone(), root), "{:?}", peer.kind);
            }
            _ => assert_ne!(report.images[0].digest.to_string(), root, "{:?}", peer.kind),
        }
    });
}

#[test]
fn docker_daemon_is_a_source_and_says_what_it_does_not_have() {
    for kind in [Kind::Docker20, Kind::Docker28, Kind::Docker28c] {
        let Some(peer) = Peer::start(kind) else { continue };
        into(&peer, layout(), &["1"], &[NAME]).unwrap();
        into(&peer, layout(), &["bye"], &["bye:1"]).unwrap();
        let read = |references: &[&str]| -> Result<Report> {
            let references: Vec<String> = references.iter().map(|text| (*text).to_owned()).collect();
            let stream = save(Arc::new(here(&peer)), &found(&peer, None), &references)?.stream();
            let folder = engines::folder();
            let told = Arc::new(Told::default());
            let sink = imgmv::internals::archive::ArchiveSink::to_file(&folder.path().join("out.tar"))?;
            copy(Source::Stream(Box::new(stream)), &sink, &Options::default(), None, told.as_ref(), &Cancel::default())
        };
        let report = read(&["hello-imgmv:1", "bye:1"]).unwrap();
        let mut names: Vec<&str> = report.images.iter().flat_map(|image| &image.names).map(Name::as_str).collect();
        names.sort();
        assert_eq!(names, ["docker.io/library/bye:1", NAME], "{kind:?}");
        let absent = read(&["no-such-image:1"]).unwrap_err();
        assert_eq!(absent.kind(), Failure::NotFound, "{kind:?}: {absent}");
        assert!(absent.to_string().contains("docker save no-such-image:1"), "{absent}");
        assert_eq!(read(&["-o"]).unwrap_err().kind(), Failure::Usage);
    }
}

#[test]
fn a_namespace_is_taken_as_given_or_kubelets_where_it_is() {
    for kind in [Kind::Containerd16, Kind::Containerd21] {
        let Some(peer) = Peer::start(kind) else { continue };
        assert_eq!(found(&peer, None).namespace, None);
        load(Arc::new(here(&peer)), found(&peer, Some("mine")), layout(), &["1"], &[NAME]).unwrap();
        assert!(peer.client(&["-n", "mine", "images", "ls", "-q"]).contains(NAME));
        assert_eq!(peer.client(&["images", "ls", "-q"]), "");
        peer.client(&["namespaces", "create", "k8s.io"]);
        assert_eq!(found(&peer, None).namespace.as_deref(), Some("k8s.io"));
        into(&peer, layout(), &["1"], &[NAME]).unwrap();
        assert!(peer.client(&["-n", "k8s.io", "images", "ls", "-q"]).contains(NAME));
        let set = here(&peer).with_env("CONTAINERD_NAMESPACE", "theirs");
        assert_eq!(detect(&set, &[Engine::Ctr], None, None).unwrap().namespace.as_deref(), Some("theirs"));
    }
}

#[test]
fn a_dead_engine_is_passed_over_and_named_when_none_answers() {
    let Some(peer) = Peer::start(Kind::Containerd16) else { return };
    let host = here(&peer).with_env("DOCKER_HOST", "unix:///nonexistent/sock");
    let wanted = [Engine::Docker, Engine::Ctr];
    assert!(detect(&host, &wanted, None, None).unwrap().to_string().starts_with("ctr 1."));
    let host = host.with_env("CONTAINERD_ADDRESS", "/nonexistent/sock");
    let error = detect(&host, &wanted, None, None).unwrap_err();
    assert_eq!(error.kind(), Failure::RemoteHost);
    assert_eq!(
        error.to_string(),
        "this host: no working engine found; tried docker and ctr (docker: the daemon is not running; ctr: the daemon \
         is not running); name one with --engine or --remote-command"
    );
}

#[test]
fn a_load_command_that_fails_ends_the_copy_with_its_own_words() {
    let host = Arc::new(Local::new(&Cancel::default()));
    for (command, said) in [
        (
            "head -c 5000 >/dev/null; echo 'write /x: no space left on device' >&2; exit 3",
            "status 3: write /x: no space",
        ),
        ("exit 1", "ended with status 1"),
        ("no-such-program-at-all", "was not found"),
        ("cat >/dev/null; echo 'Error unpacking image t/x:1: apply layer error'", "Error unpacking image t/x:1"),
        ("kill -9 $$", "ended by signal KILL"),
    ] {
        let found = detect(host.as_ref(), &[], None, Some(command)).unwrap();
        let error = load(host.clone(), found, layout(), &["1"], &["t/x:1"]).unwrap_err();
        assert_eq!(error.kind(), Failure::RemoteHost, "{command}: {error}");
        assert!(error.to_string().contains(said), "{command}: {error}");
    }
    let found = detect(host.as_ref(), &[], None, Some("cat >/dev/null")).unwrap();
    load(host, found, layout(), &["1"], &["t/x:1"]).unwrap();
}

#[test]
fn a_full_disk_is_told_in_the_engines_words_and_nothing_has_the_name() {
    let mut memory = memory::Memory::default();
    let large = memory.image(&Platform::host().to_string(), &[memory::layer(1, 1000), memory::layer(2, 50 << 20)]);
    memory.name("docker.io/t/large:1", &large);
    for kind in [Kind::Docker20, Kind::Docker28c, Kind::Containerd16, Kind::Podman4] {
        let Some(peer) = Peer::start_on_small_disk(kind, 30) else { continue };
        let error = into(&peer, Source::Store(Arc::new(memory.clone())), &[], &[]).unwrap_err();
        assert_eq!(error.kind(), Failure::RemoteHost, "{kind:?}: {error}");
        assert!(error.to_string().contains("no space left on device"), "{kind:?}: {error}");
        assert_eq!(peer.id("docker.io/t/large:1"), None, "{kind:?}");
    }
}

#[test]
fn an_engine_is_given_only_names_it_can_keep() {
    let host = Arc::new(Local::new(&Cancel::default()));
    let found = detect(host.as_ref(), &[], None, Some("cat >/dev/null")).unwrap();
    let error = load(host, found, layout(), &["1"], &[]).unwrap_err();
    assert_eq!(error.kind(), Failure::Usage);
    assert!(error.to_string().contains("--as"), "{error}");
}

fn script(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn an_engine_that_needs_root_is_called_by_sudo_where_that_asks_for_no_password() {
    let folder = engines::folder();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let host = Local::new(&Cancel::default()).with_env("PATH", &path);
    script(folder.path(), "id", "echo 1000");
    script(folder.path(), "nerdctl", "echo 'rootless containerd not running' >&2; exit 1");
    let docker = r#"
        if [ -z "$ROOT" ]; then echo 'permission denied while trying to connect' >&2; exit 1; fi
        case $1 in version) echo 24.0.7 ;; info) echo "linux/aarch64 overlay2 [[Backing Filesystem extfs]]" ;; esac"#;
    script(folder.path(), "docker", docker);
    script(folder.path(), "sudo", "[ \"$1\" = -n ] || exit 1; shift; ROOT=1 exec \"$@\"");
    let wanted = [Engine::Nerdctl, Engine::Docker];
    let found = detect(&host, &wanted, None, None).unwrap();
    assert_eq!(found.to_string(), "docker 24.0.7, by sudo");
    assert_eq!(found.load_command()[..2], ["sudo", "-n"]);
    assert_eq!(found.platform.to_string(), "linux/arm64");
    script(folder.path(), "sudo", "echo 'a password is required' >&2; exit 1");
    let error = detect(&host, &wanted, None, None).unwrap_err().to_string();
    assert!(error.contains("docker: permission denied, and sudo without a password is not available"), "{error}");
}

/// nerdctl is in no Debian: a script stands in for it, which accepts the arguments that nerdctl has and hands over to
/// ctr.
const NERDCTL: &str = r#"
echo "$*" >>"$NERDCTL_LOG"
ns=default
if [ "$1" = --namespace ]; then ns=$2; shift 2; fi
case "$*" in
    version) exec ctr version ;;
    'namespace ls -q') exec ctr namespaces ls -q ;;
    load) exec ctr -n "$ns" images import - ;;
    'tag '*) exec ctr -n "$ns" images tag --force "$2" "$3" ;;
    'rmi '*) shift; exec ctr -n "$ns" images rm "$@" ;;
    'image inspect --mode=native --format {{json .Image.Target.Digest}} '*)
        eval "name=\${$#}"
        ctr -n "$ns" images ls "name==$name" | awk 'NR > 1 { print "\"" $3 "\"" }'
        ;;
    *) echo "unknown: $*" >&2; exit 64 ;;
esac
"#;

#[test]
fn nerdctl_is_called_as_it_expects() {
    let Some(peer) = Peer::start(Kind::Containerd16) else { return };
    let log = peer.folder.path().join("nerdctl.log");
    script(peer.folder.path(), "nerdctl", NERDCTL);
    let path = format!("{}:{}", peer.folder.path().display(), std::env::var("PATH").unwrap());
    let host = Arc::new(here(&peer).with_env("PATH", &path).with_env("NERDCTL_LOG", log.to_str().unwrap()));
    peer.client(&["namespaces", "create", "k8s.io"]);
    let found = detect(host.as_ref(), &Engine::ALL, None, None).unwrap();
    assert!(found.to_string().starts_with("nerdctl 1.6"), "{found}");
    load(host, found, layout(), &["1"], &[NAME]).unwrap();
    assert!(peer.client(&["-n", "k8s.io", "images", "ls", "-q"]).contains(NAME));
    let called = fs::read_to_string(log).unwrap();
    assert_eq!(called.lines().collect::<Vec<_>>(), ["version", "namespace ls -q", "--namespace k8s.io load"]);
}

/// A Helm chart: neither its config nor its layer is one of an image.
fn chart() -> memory::Memory {
    let mut chart = memory::Memory::default();
    let config =
        chart.keep("application/vnd.cncf.helm.config.v1+json", br#"{"name":"chart","version":"1.0.0"}"#.to_vec());
    let layer = chart.keep("application/vnd.cncf.helm.chart.content.v1.tar+gzip", b"not a real chart".to_vec());
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": [layer],
    });
    let root = chart.keep(media_type::OCI_MANIFEST, manifest.to_string().into_bytes());
    chart.name("docker.io/t/helm:1", &root);
    chart
}

/// The sentence for an artifact that the engine cannot store.
fn refuses_artifact(error: &imgmv::Error) -> bool {
    let text = error.to_string();
    error.kind() == Failure::Usage
        && text.contains("stores only runnable images")
        && text.contains("is an artifact (application/vnd.cncf.helm.config.v1+json)")
}

#[test]
fn an_artifact_is_refused_before_anything_is_sent() {
    let folder = engines::folder();
    let at = |name: &str| folder.path().join(name);
    let _socket = std::os::unix::net::UnixListener::bind(at("sock")).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let host = Local::new(&Cancel::default()).with_env("PATH", &path);
    let host = Arc::new(host.with_env("CONTAINERD_ADDRESS", at("sock").to_str().unwrap()));
    let labelled =
        |version: &str| format!("printf 'Client:\\n  Version:  {version}\\nServer:\\n  Version:  {version}\\n'");
    for (engine, version, is_refused) in [
        (Engine::Docker, "echo 20.10.24; echo 'linux/amd64 overlay2 [[Backing Filesystem extfs]]'".to_owned(), true),
        (Engine::Podman, "echo 5.8.0 amd64".to_owned(), true),
        (Engine::Nerdctl, labelled("2.0.0"), true),
        (Engine::Ctr, labelled("1.6.20~ds1"), true),
        (Engine::Ctr, labelled("v1.7.28"), true),
        (Engine::Ctr, labelled("v2.1.4"), false),
    ] {
        // It takes what it is sent, and has no image afterwards.
        let sent = at("sent").display().to_string();
        let answers = format!("case \"$*\" in *load|*import*) cat >{sent} ;; *version*|*info*) {version} ;; esac");
        script(folder.path(), engine.name(), &answers);
        let found = detect(host.as_ref(), &[engine], None, None).unwrap();
        let error = load(host.clone(), found, Source::Store(Arc::new(chart())), &[], &[]).unwrap_err();
        assert_eq!(refuses_artifact(&error), is_refused, "{engine:?} {version}: {error}");
        assert_eq!(!at("sent").exists(), is_refused, "{engine:?} {version}");
    }
}

#[test]
fn a_real_engine_stores_an_artifact_or_is_not_sent_it() {
    everywhere(|peer| {
        let loaded = into(peer, Source::Store(Arc::new(chart())), &[], &[]);
        let id = peer.id("docker.io/t/helm:1");
        match peer.kind {
            Kind::Docker28c | Kind::Containerd21 => {
                let digest = loaded.unwrap().images[0].digest.to_string();
                assert_eq!(id, Some(digest), "{:?}", peer.kind);
            }
            _ => {
                let error = loaded.unwrap_err();
                assert!(refuses_artifact(&error), "{:?}: {error}", peer.kind);
                assert_eq!(id, None, "{:?}", peer.kind);
            }
        }
    });
}
