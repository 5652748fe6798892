//! The socket of another host, through a real sshd, by both ssh clients; and a host that refuses to forward it.

use crate::daemon::{Containerd, NAMESPACE};
use crate::line::Line;
use crate::support::docker_dir::tar_of;
use crate::support::noise::noise;
use crate::support::odd_layers;
use crate::support::program::{Output, command, fixture, imgmv};
use crate::support::sshd::{Sshd, Way};
use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

const NAME: &str = "docker.io/t/hello:1";
/// The manifest of `1` in `fixtures/layout`.
const HELLO: &str = "sha256:602b22ac0877e98491067019bf894774c63bd3f2b4be96809c3c1e9a29cca06c";
const BY_COMMANDS: &str = "are used instead";

/// imgmv with the keys and the configuration of the user of `sshd`, and its sockets in `runtime`.
pub fn imgmv_of(sshd: &Sshd, way: Way, runtime: &Path, arguments: &[&str]) -> Command {
    sshd.client_config("");
    let client = match way {
        Way::Client => format!("ssh -F {} -o BatchMode=yes", sshd.at("home/.ssh/config")),
        Way::Builtin => "builtin".to_owned(),
    };
    let mut run = command(env!("CARGO_BIN_EXE_imgmv"));
    run.args(arguments).args(["--ssh", &client]).env("HOME", sshd.at("home")).env("XDG_RUNTIME_DIR", runtime);
    run.stdin(Stdio::null());
    run
}

fn over_ssh(sshd: &Sshd, way: Way, runtime: &Path, arguments: &[&str]) -> Output {
    let output = imgmv_of(sshd, way, runtime, arguments).output().unwrap();
    Output {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        bytes: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A short path: sockets lie below it.
pub fn runtime() -> TempDir {
    tempfile::Builder::new().prefix("imgmv-r").tempdir_in("/tmp").unwrap()
}

fn archive(dir: &Path) -> String {
    let file = dir.join("hello.tar").display().to_string();
    let made = imgmv(&["copy", &format!("oci:{}:1", fixture("layout")), &file, "--as", NAME], None);
    assert!(made.status.success(), "{}", made.stderr);
    file
}

/// Writes the image to the host and reads it again, and checks which way was used.
fn there_and_back(containerd: &Containerd, sshd: &Sshd, way: Way, forwards: bool) {
    let (dir, runtime) = (TempDir::new().unwrap(), runtime());
    let file = archive(dir.path());
    let case = format!("{:?} {way:?} {forwards}", containerd.release);
    let logins = || sshd.log().matches("Accepted publickey").count();
    let before = logins();
    let to = ["-v", "copy", &file, "ssh://node1", "--namespace", NAMESPACE];
    let written = over_ssh(sshd, way, runtime.path(), &to);
    assert!(written.status.success(), "{case}: {}", written.stderr);
    let table = containerd.ctr(&["images", "check", &format!("name=={NAME}")]);
    assert!(table.contains(HELLO) && table.contains(" complete ("), "{case}: {table}");
    let copied = dir.path().join("copied.tar").display().to_string();
    let from = format!("ssh://node1/{NAME}");
    let read = over_ssh(sshd, way, runtime.path(), &["-v", "copy", &from, &copied, "--src-namespace", NAMESPACE]);
    assert!(read.status.success(), "{case}: {}", read.stderr);
    assert!(imgmv(&["digest", &copied], None).stdout.contains(HELLO), "{case}");
    for stderr in [&written.stderr, &read.stderr] {
        assert_eq!(stderr.contains(BY_COMMANDS), !forwards, "{case}: {stderr}");
        if !forwards {
            let words = match way {
                Way::Client => "open failed",
                Way::Builtin => "refused to forward",
            };
            assert!(stderr.contains(words), "{case}: {stderr}");
        }
    }
    if forwards && way == Way::Client {
        // The socket is forwarded by the shared connection: a password is asked for once.
        assert_eq!(logins() - before, 2, "{case}: {}", sshd.log());
    }
    let left: Vec<_> = fs::read_dir(runtime.path()).unwrap().collect();
    assert!(left.is_empty(), "{case}: {left:?}");
    containerd.ctr(&["images", "rm", "--sync", NAME]);
}

#[test]
fn the_socket_of_another_host_is_used_where_it_is_forwarded() {
    for containerd in Containerd::each() {
        let Some(sshd) = Sshd::start("", &containerd.environment()) else { return };
        Way::BOTH.into_iter().for_each(|way| there_and_back(&containerd, &sshd, way, true));
    }
}

#[test]
fn where_forwarding_is_refused_the_commands_are_used_and_ssh_says_why() {
    for containerd in Containerd::each() {
        for refused in ["AllowStreamLocalForwarding no", "AllowTcpForwarding no", "DisableForwarding yes"] {
            let Some(sshd) = Sshd::start(refused, &containerd.environment()) else { return };
            Way::BOTH.into_iter().for_each(|way| there_and_back(&containerd, &sshd, way, false));
        }
    }
}

/// A ctr with more rights than its user, as by sudo: it reaches containerd by another socket.
#[test]
fn a_socket_of_another_user_is_not_used_and_ssh_says_why() {
    let Some(containerd) = Containerd::each().next() else { return };
    let open = TempDir::new().unwrap();
    fs::set_permissions(open.path(), Permissions::from_mode(0o755)).unwrap();
    let socket = open.path().join("socket");
    let _line = Line::new(&socket, containerd.socket().as_ref(), u64::MAX, || {});
    fs::set_permissions(&socket, Permissions::from_mode(0o777)).unwrap();
    let script = format!("#!/bin/sh\nexec {} --address {} \"$@\"\n", containerd.client().display(), socket.display());
    fs::write(open.path().join("ctr"), script).unwrap();
    fs::set_permissions(open.path().join("ctr"), Permissions::from_mode(0o755)).unwrap();
    let path = ("PATH".to_owned(), format!("{}:/usr/bin:/bin", open.path().display()));
    let Some(sshd) = Sshd::start_for_nobody(&[("CONTAINERD_ADDRESS".to_owned(), containerd.socket()), path]) else {
        return;
    };
    containerd.let_others_see();
    let dir = TempDir::new().unwrap();
    let file = archive(dir.path());
    for way in Way::BOTH {
        let runtime = runtime();
        let to = ["-v", "copy", &file, "ssh://nobody@node1", "--namespace", NAMESPACE];
        let written = over_ssh(&sshd, way, runtime.path(), &to);
        assert!(written.status.success(), "{way:?}: {}", written.stderr);
        let words = if way == Way::Client { "open failed" } else { "refused to forward" };
        assert!(written.stderr.contains(BY_COMMANDS) && written.stderr.contains(words), "{way:?}: {}", written.stderr);
        let table = containerd.ctr(&["images", "check", &format!("name=={NAME}")]);
        assert!(table.contains(HELLO) && table.contains(" complete ("), "{way:?}: {table}");
        containerd.ctr(&["images", "rm", "--sync", NAME]);
    }
}

#[test]
fn a_socket_that_the_user_names_is_not_replaced_by_commands() {
    let Some(containerd) = Containerd::each().next() else { return };
    let Some(sshd) = Sshd::start("", &containerd.environment()) else { return };
    for way in Way::BOTH {
        let runtime = runtime();
        let list =
            |address: &str| over_ssh(&sshd, way, runtime.path(), &["list", "ssh://node1", "--src-address", address]);
        let named = list(&containerd.socket());
        assert!(named.status.success(), "{way:?}: {}", named.stderr);
        let missing = list("/tmp/no-such-socket");
        assert_eq!(missing.status.code(), Some(7), "{way:?}: {}", missing.stderr);
        assert!(missing.stderr.to_lowercase().contains("open fail"), "{way:?}: {}", missing.stderr);
    }
}

#[test]
fn layers_that_shrink_go_by_commands_which_compress_them() {
    let Some(containerd) = Containerd::each().next() else { return };
    let Some(sshd) = Sshd::start("", &containerd.environment()) else { return };
    let (dir, runtime) = (TempDir::new().unwrap(), runtime());
    let file = |name: &str, content: Vec<u8>| {
        let dir = dir.path().join(name);
        fs::create_dir(&dir).unwrap();
        odd_layers::archive(&dir, NAME, &[tar_of(&[("file", &content)])]).display().to_string()
    };
    let noisy = file("noise", noise(1, 6 << 20));
    let wordy = file("words", b"the same words again and again ".repeat((6 << 20) / 31));
    let copy = |file: &str, more: &[&str]| {
        let arguments = [&["-v", "copy", file, "ssh://node1", "--namespace", NAMESPACE], more].concat();
        let output = over_ssh(&sshd, Way::Client, runtime.path(), &arguments);
        assert!(output.status.success(), "{}", output.stderr);
        containerd.ctr(&["images", "rm", "--sync", NAME]);
        (output.stderr.contains("writing to its namespace"), output.stderr.contains("loading into ctr"))
    };
    assert_eq!(copy(&noisy, &[]), (true, false));
    assert_eq!(copy(&wordy, &[]), (false, true));
    assert_eq!(copy(&wordy, &["--dst-address", &containerd.socket()]), (true, false));
    assert_eq!(copy(&archive(dir.path()), &[]), (true, false));
    assert_eq!(copy(&archive(dir.path()), &["--engine", "ctr"]), (false, true));
}
