//! The most telling of it through the program: what it says, with which status it ends, what it runs.

use super::images::plain;
use super::support::program::{command, fixture};
use super::support::registry::{Auth, Double};
use super::support::web::{Response, Web};
use super::target::Target;
use super::ways::{WAYS, Way, gzip, oci_archive, write_layout};
use super::world::{World, layer};
use imgmv::Digest;
use imgmv::internals::image::media_type;
use serde_json::json;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

fn program() -> Command {
    let mut program = command(env!("CARGO_BIN_EXE_imgmv"));
    program.stdin(Stdio::null()).args(["--progress", "none"]);
    program
}

/// Runs it: its status, what it answered, what it said.
fn run(program: &mut Command) -> (i32, String, String) {
    let output = program.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// It failed with `status` and one sentence that is fit for a terminal.
fn failed(status: i32, done: &(i32, String, String)) {
    let (found, answer, said) = done;
    assert_eq!(*found, status, "{said}");
    assert!(said.lines().last().is_some_and(|line| line.starts_with("imgmv: ")), "{said}");
    assert!(said.lines().all(plain) && answer.lines().all(plain), "{said:?} {answer:?}");
}

fn to(target: &Target) -> String {
    format!("oci:{}", target.layout().display())
}

fn honest() -> World {
    let mut world = World::default();
    let root = world.image(&[layer(1), layer(2)]);
    world.name(root)
}

fn lying() -> World {
    let mut world = honest();
    let wrong = world.blobs.iter().find(|(_, bytes)| **bytes == layer(2)).map(|(digest, _)| *digest).unwrap();
    world.blobs.get_mut(&wrong).unwrap()[600] ^= 1;
    world
}

/// An executable of the shell in `folder`.
fn script(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_lying_image_ends_in_status_5_and_names_nothing() {
    for way in WAYS.into_iter().filter(|way| *way != Way::Registry) {
        let (target, folder) = (Target::new(), tempfile::tempdir().unwrap());
        let path = folder.path().join("it.tar");
        let source = match way {
            Way::Layout => {
                write_layout(&lying(), folder.path());
                format!("oci:{}", folder.path().display())
            }
            Way::File => {
                fs::write(&path, oci_archive(&lying())).unwrap();
                path.display().to_string()
            }
            _ => {
                fs::write(&path, gzip(&oci_archive(&lying()))).unwrap();
                "-".to_owned()
            }
        };
        let mut copy = program();
        copy.args(["copy", &source, &to(&target)]);
        if source == "-" {
            copy.stdin(File::open(&path).unwrap());
        }
        failed(5, &run(&mut copy));
        assert_eq!(target.sound(), 0, "{way:?}");
        // Into an archive: no file appears.
        let out = folder.path().join("out.tar");
        let mut copy = program();
        copy.args(["copy", &source]).arg(&out);
        if source == "-" {
            copy.stdin(File::open(&path).unwrap());
        }
        failed(5, &run(&mut copy));
        assert!(!out.exists(), "{way:?}");
        // Other blobs, which were what they should be, may wait there for the next copy.
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert!(names.filter(|name| name.contains("imgmv")).all(|name| name.starts_with(".out.tar.imgmv-")));
    }
}

#[test]
fn an_endless_standard_input_is_left() {
    for (device, status) in [("/dev/zero", 5), ("/dev/null", 5)] {
        let target = Target::new();
        let done = run(program().args(["copy", "-", &to(&target)]).stdin(File::open(device).unwrap()));
        failed(status, &done);
        assert_eq!(target.sound(), 0);
    }
}

#[test]
fn what_strangers_wrote_is_shown_without_what_a_terminal_obeys() {
    let hostile = "\u{1b}]0;owned\u{7}\u{202e}\r\nimgmv: done";
    let mut world = World::default();
    let mut manifest = world.manifest(&[layer(1)]);
    manifest["annotations"] = json!({ hostile: hostile });
    manifest["artifactType"] = json!(hostile);
    manifest["layers"][0]["mediaType"] = json!(hostile);
    let config = json!({ "architecture": hostile, "os": hostile, "config": { "Cmd": [hostile], "Labels": { hostile: hostile } } });
    manifest["config"] = world.document(media_type::OCI_CONFIG, &config);
    let mut child = world.document(media_type::OCI_MANIFEST, &manifest);
    child["platform"] = json!({ "os": hostile, "architecture": hostile, "variant": hostile });
    let root = world.index(&[child.clone()]);
    let world = world.name(root);
    let folder = tempfile::tempdir().unwrap();
    write_layout(&world, folder.path());
    let place = format!("oci:{}", folder.path().display());
    for verb in [
        &["list"][..],
        &["list", "--json"],
        &["inspect"],
        &["inspect", "--json"],
        &["inspect", "--platform", "linux/s390x"],
        &["verify"],
        &["digest"],
        &["copy", "--dry-run"],
        &["copy", "--platform", "linux/amd64"],
    ] {
        let target = Target::new();
        let mut program = program();
        program.args(verb).arg(&place);
        if verb[0] == "copy" {
            program.arg(to(&target));
        }
        let (_, answer, said) = run(&mut program);
        let forged = |line: &str| line.starts_with("imgmv: done");
        // A document that is asked for as it is keeps JSON's own escapes, which are plain.
        assert!(answer.lines().all(|line| plain(line) && !forged(line)), "{verb:?}: {answer:?}");
        assert!(said.lines().all(|line| plain(line) && !forged(line)), "{verb:?}: {said:?}");
    }
}

#[test]
fn a_credential_helper_is_never_a_path() {
    let double = Double::start();
    double.image("app", "1", &[&layer(1)]);
    double.faults().auth = Auth::Basic { user: "user".into(), password: "secret".into() };
    for name in ["../evil", "/evil", "a/../../evil", "evil;touch evil-ran", "-evil", "e\nvil"] {
        let folder = tempfile::tempdir().unwrap();
        let ran = folder.path().join("evil-ran");
        let text = format!("touch {}; echo '{{\"Username\":\"user\",\"Secret\":\"secret\"}}'", ran.display());
        for place in ["evil", "docker-credential-/../evil", "docker-credential-a/x", "docker-credential-../evil"] {
            script(folder.path(), place, &text);
        }
        let config = json!({ "credsStore": name, "credHelpers": { double.host(): name } });
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let target = Target::new();
        let source = format!("docker://{}/app:1", double.host());
        let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
        let mut copy = program();
        copy.args(["copy", &source, &to(&target)]).current_dir(folder.path());
        failed(4, &run(copy.env("DOCKER_CONFIG", folder.path()).env("PATH", path)));
        assert!(!ran.exists(), "{name:?} was run");
        assert_eq!(target.sound(), 0);
    }
}

#[test]
fn an_unreadable_auth_file_is_said_and_does_not_stop_a_public_pull() {
    let double = Double::start();
    double.image("app", "1", &[&layer(1)]);
    for text in ["{", "[]", &"[".repeat(100_000), "{\"auths\":{\"x\":{\"auth\":\"\u{1b}[2J\"}}}", "\u{0}"] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), text).unwrap();
        let target = Target::new();
        let source = format!("docker://{}/app:1", double.host());
        let (status, _, said) =
            run(program().args(["copy", &source, &to(&target)]).env("DOCKER_CONFIG", folder.path()));
        assert!(status == 0 && said.lines().all(plain), "{said:?}");
        assert_eq!(target.sound(), 1);
    }
}

#[test]
fn a_thief_in_a_registrys_place_gets_no_password() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let hear = seen.clone();
    let thief = Web::start(
        None,
        Arc::new(move |request, body| {
            let mut text = String::new();
            let _ = std::io::Read::read_to_string(&mut std::io::Read::take(body, 10_000), &mut text);
            hear.lock().unwrap().push(format!("{request:?} {text}"));
            Some(Response::json(200, r#"{"token":"x"}"#))
        }),
    );
    // Another name for loopback: another host as far as names go.
    let base = format!("http://localhost:{}", thief.address.port());
    let double = Double::start();
    double.image("app", "1", &[&layer(1)]);
    let realm = Web::start(None, {
        let base = base.clone();
        Arc::new(move |_, _| {
            Some(Response::new(401).with("WWW-Authenticate", format!("Bearer realm=\"{base}/token\",service=\"s\"")))
        })
    });
    let redirect =
        Web::start(None, Arc::new(move |_, _| Some(Response::new(307).with("Location", format!("{base}/v2/")))));
    for host in [realm.address.to_string(), redirect.address.to_string()] {
        let target = Target::new();
        let source = format!("docker://{host}/app:1");
        let mut copy = program();
        copy.args(["copy", &source, &to(&target), "--src-creds", "user:hunter2"]);
        let (status, _, said) = run(&mut copy);
        assert!(status != 0 && !said.contains("hunter2"), "{said}");
        assert_eq!(target.sound(), 0);
    }
    let seen = seen.lock().unwrap();
    assert!(!seen.is_empty(), "the thief was asked, but for nothing");
    // user:hunter2 in base64
    let secret = ["hunter2", "dXNlcjpodW50ZXIy"];
    assert!(seen.iter().all(|request| secret.iter().all(|secret| !request.contains(secret))), "{seen:?}");
}

#[test]
fn an_engine_that_rants_is_quoted_plainly() {
    let folder = tempfile::tempdir().unwrap();
    let rant = r#"printf '\033]0;owned\007no space \342\200\256 left\r\nimgmv: done\n\033[2Jreally' >&2; exit 1"#;
    let version = "case $1 in version) echo 20.10; exit 0;; info) echo 'linux/x86_64 overlay2 []'; exit 0;; esac";
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    for (what, load) in [
        ("reads all", format!("cat >/dev/null; {rant}")),
        ("reads nothing", rant.to_owned()),
        ("reads a little", format!("head -c 1000 >/dev/null; {rant}")),
        ("floods", format!("head -c 20000000 /dev/zero | tr '\\0' '\\033' >&2; {rant}")),
    ] {
        script(folder.path(), "docker", &format!("{version}\n{load}"));
        let mut copy = program();
        copy.args(["load", "--engine", "docker", "-i", &fixture("hello-docker20.tar")]);
        let done = run(copy.env("PATH", &path));
        failed(7, &done);
        assert!(done.2.len() < 4000, "{what}: {}", done.2.len());
    }
}

#[test]
fn an_ssh_that_rants_is_quoted_plainly() {
    let folder = tempfile::tempdir().unwrap();
    let rant = r#"printf '\033]0;owned\007Permission\r\nimgmv: done\n\033[2J denied' >&2; exit 255"#;
    script(folder.path(), "fake-ssh", rant);
    let ssh = folder.path().join("fake-ssh");
    let source = fixture("hello-docker20.tar");
    for text in [rant.to_owned(), "yes '\u{1b}[2J' | head -c 30000000".to_owned(), format!("echo; {rant}")] {
        script(folder.path(), "fake-ssh", &text);
        let mut copy = program();
        copy.args(["copy", &source, "ssh://node1", "--as", "app:1", "--ssh"]).arg(&ssh);
        let done = run(&mut copy);
        failed(7, &done);
        assert!(done.2.len() < 4000, "{}", done.2.len());
    }
}

#[test]
fn hosts_and_names_that_look_like_options_or_paths_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let ran = folder.path().join("ran");
    script(folder.path(), "fake-ssh", &format!("touch {}", ran.display()));
    let (source, ssh) = (fixture("hello-docker20.tar"), folder.path().join("fake-ssh"));
    for place in
        ["ssh://-oProxyCommand=touch x", "ssh://-x", "-x@y:", "ssh://a;b", "ssh://$(x)", "ssh://a b", "ssh://user@-x"]
    {
        let mut copy = program();
        copy.args(["copy", "--as", "app:1", "--ssh"]).arg(&ssh).args(["--", &source, place]);
        failed(2, &run(&mut copy));
        assert!(!ran.exists(), "{place}");
    }
    let absent = Digest::of(b"absent");
    for place in
        ["docker://../../etc:1", "docker://h.x/../a", "docker://h.x/a:../b", &format!("docker://h.x/a@{absent}x")]
    {
        let target = Target::new();
        failed(2, &run(program().args(["copy", place, &to(&target)])));
        assert_eq!(target.sound(), 0);
    }
}
