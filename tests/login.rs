//! How a user gets in at another host: configuration, hosts on the way, certificates, and what is asked for on a
//! terminal; over both ways where both can.

#[path = "support/engines.rs"]
mod engines;
#[path = "support/program.rs"]
mod program;
#[path = "support/sshd.rs"]
mod sshd;

use imgmv::Cancel;
use imgmv::internals::remote::builtin::Builtin;
use imgmv::internals::remote::{Host, SshTarget, capture};
use program::{fixture, peer};
use sshd::{Sshd, Way};
use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn answers(host: &dyn Host) -> bool {
    capture(host, &["echo", "here"]).is_ok_and(|answer| answer.stdout == "here\n")
}

/// Lines for the configuration by which `bastion` is the server behind `sshd`.
fn bastion(sshd: &Sshd, name: &str) -> String {
    format!(
        "Host {name}\n  HostName 127.0.0.1\n  Port {}\n  User root\n  IdentityFile {}\n  IdentitiesOnly yes\n",
        sshd.port,
        sshd.at("home/.ssh/id_ed25519")
    )
}

/// Makes `of`'s key one that the user of `sshd` knows too.
fn recorded(sshd: &Sshd, of: &[&Sshd]) {
    let line = |sshd: &Sshd| format!("[127.0.0.1]:{} {}\n", sshd.port, sshd.host_key());
    let known: String = of.iter().map(|other| line(other)).chain([line(sshd)]).collect();
    fs::write(sshd.known_hosts(), known).unwrap();
}

#[test]
fn a_host_is_reached_by_way_of_others() {
    let (Some(far), Some(first), Some(second)) = (Sshd::start("", &[]), Sshd::start("", &[]), Sshd::start("", &[]))
    else {
        return;
    };
    recorded(&far, &[&first, &second]);
    for (jump, logins) in [("first", [1, 0]), ("root@first,second", [1, 1])] {
        for way in Way::BOTH {
            let before = [&first, &second].map(|sshd| sshd.log().matches("Accepted publickey").count());
            let more = format!("{}{}", bastion(&first, "first"), bastion(&second, "second"));
            let config = format!("Host node1\n  ProxyJump {jump}\n{more}");
            let host = far.host_with(way, &config, &Cancel::default()).unwrap();
            let mut running = host.run(&["sha256sum"]).unwrap();
            let mut stdin = running.stdin.take().unwrap();
            for _ in 0..48 {
                stdin.write_all(&[7; 256 << 10]).unwrap();
            }
            drop(stdin);
            let mut sum = String::new();
            running.stdout.take().unwrap().read_to_string(&mut sum).unwrap();
            assert_eq!(sum[..64], imgmv::Digest::of(&vec![7; 12 << 20]).hex(), "{way:?} {jump}");
            assert!(running.wait().unwrap().success());
            drop(host);
            let after = [&first, &second].map(|sshd| sshd.log().matches("Accepted publickey").count());
            assert_eq!([after[0] - before[0], after[1] - before[1]], logins, "{way:?} {jump}");
        }
    }
    // Without the bastion's key nobody gets through, and in a circle neither.
    recorded(&far, &[]);
    let config = format!("Host node1\n  ProxyJump first\n{}", bastion(&first, "first"));
    assert_eq!(far.host_with(Way::Builtin, &config, &Cancel::default()).err().unwrap().kind(), imgmv::Kind::Denied);
    let circle = far.host_with(Way::Builtin, "Host *\n  ProxyJump node1", &Cancel::default()).err().unwrap();
    assert!(circle.to_string().contains("forms a loop"), "{circle}");
}

#[test]
fn included_files_and_an_alias_for_the_key_are_obeyed() {
    let Some(sshd) = Sshd::start("", &[]) else { return };
    fs::create_dir_all(sshd.at("home/.ssh/config.d")).unwrap();
    let lines = format!(
        "Host aliased\n  HostName localhost\n  HostKeyAlias the-node\n  Port {}\n  User root\n  IdentityFile {}\n  UserKnownHostsFile {}\n",
        sshd.port,
        sshd.at("home/.ssh/id_ed25519"),
        sshd.at("known")
    );
    fs::write(sshd.at("home/.ssh/config.d/nodes.conf"), lines).unwrap();
    fs::write(sshd.at("home/.ssh/config"), "Include config.d/*.conf\n").unwrap();
    fs::write(sshd.at("known"), format!("the-node {}\n", sshd.host_key())).unwrap();
    let (target, _) = SshTarget::parse("ssh://aliased").unwrap();
    let home = sshd.folder.path().join("home");
    assert!(answers(&Builtin::connect(&target, &home, &Cancel::default()).unwrap()));
}

#[test]
fn a_user_with_a_certificate_gets_in() {
    let Some(authority) = Sshd::start("", &[]) else { return };
    authority.key("authority", "");
    let Some(sshd) = Sshd::start(&format!("TrustedUserCAKeys {}.pub", authority.at("authority")), &[]) else { return };
    fs::write(sshd.at("authorized_keys"), "").unwrap();
    for way in Way::BOTH {
        assert!(!sshd.host(way).is_ok_and(|host| answers(host.as_ref())), "{way:?} got in without");
    }
    let key = sshd.at("home/.ssh/id_ed25519");
    let sign = ["-q", "-s", &authority.at("authority"), "-I", "me", "-n", "root", &format!("{key}.pub")];
    assert!(Command::new("ssh-keygen").args(sign).status().unwrap().success());
    for way in Way::BOTH {
        assert!(answers(sshd.host(way).unwrap().as_ref()), "{way:?}");
    }
}

/// A program on a terminal of its own, and what it shows there.
struct Terminal {
    child: Child,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    fn run(sshd: &Sshd, arguments: &str) -> Terminal {
        let line = format!("{} {arguments}", env!("CARGO_BIN_EXE_imgmv"));
        let mut child = Command::new("script")
            .args(["-qefc", &line, "/dev/null"])
            .env("HOME", sshd.at("home"))
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let shown: Arc<Mutex<String>> = Arc::default();
        let (mut out, keep) = (child.stdout.take().unwrap(), shown.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(n @ 1..) = out.read(&mut buffer) {
                keep.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        });
        Terminal { child, shown }
    }

    fn shown(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    /// Waits until `question` has been asked `times` times, then types `answer`.
    fn answer(&mut self, question: &str, times: usize, answer: &str) {
        let until = Instant::now() + Duration::from_secs(60);
        while self.shown().matches(question).count() < times {
            assert!(Instant::now() < until, "it never asked {question:?}: {}", self.shown());
            std::thread::sleep(Duration::from_millis(20));
        }
        let line = format!("{answer}\n");
        self.child.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    }

    /// The exit status, and everything that was shown.
    fn end(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        (status.code(), self.shown())
    }
}

/// A copy by the built-in ssh, to two hosts that are one: two connections each.
fn copy() -> String {
    format!(
        "copy {} ssh://node1 --as app:1 --ssh builtin --remote-command 'cat >/dev/null' --progress none",
        fixture("hello-docker28c.tar")
    )
}

#[test]
fn an_unknown_host_is_asked_about_on_a_terminal_and_known_from_then_on() {
    let (Some(_), Some(sshd)) = (peer("script"), Sshd::start("", &[])) else { return };
    sshd.client_config("");
    fs::write(sshd.known_hosts(), "other ssh-ed25519 AAAA").unwrap();
    let mut terminal = Terminal::run(&sshd, &copy());
    terminal.answer("Type yes to continue", 1, "no");
    let (status, shown) = terminal.end();
    assert!(status == Some(4) && shown.contains("not accepted"), "{status:?} {shown}");
    let mut terminal = Terminal::run(&sshd, &copy());
    terminal.answer("Type yes to continue", 1, "yes");
    let (status, shown) = terminal.end();
    assert!(status == Some(0) && shown.matches("Type yes").count() == 1, "{status:?} {shown}");
    let known = fs::read_to_string(sshd.known_hosts()).unwrap();
    assert!(known.starts_with("other ssh-ed25519 AAAA\n[127.0.0.1]:") && known.ends_with('\n'), "{known}");
    let (status, shown) = Terminal::run(&sshd, &copy()).end();
    assert!(status == Some(0) && !shown.contains("Type yes"), "{status:?} {shown}");
    // A key that has changed is no question.
    sshd.key("other_key", "");
    sshd.record(fs::read_to_string(sshd.at("other_key.pub")).unwrap().trim());
    let (status, shown) = Terminal::run(&sshd, &copy()).end();
    assert!(status == Some(4) && shown.contains("differs from the one in") && !shown.contains("Type yes"), "{shown}");
}

#[test]
fn a_passphrase_is_asked_for_once_and_again_where_it_was_wrong() {
    let (Some(_), Some(sshd)) = (peer("script"), Sshd::start("", &[])) else { return };
    sshd.client_config("Host node2\n  HostName 127.0.0.1");
    sshd.key("home/.ssh/id_ed25519", "secret");
    fs::copy(sshd.at("home/.ssh/id_ed25519.pub"), sshd.at("authorized_keys")).unwrap();
    let second = format!("{} ssh://node2:{}", copy(), sshd.port);
    let mut terminal = Terminal::run(&sshd, &second);
    terminal.answer("passphrase for", 1, "wrong");
    terminal.answer("passphrase for", 2, "secret");
    let (status, shown) = terminal.end();
    assert_eq!((status, shown.matches("passphrase for").count()), (Some(0), 2), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
fn a_password_and_a_hosts_own_questions_are_answered_on_the_terminal() {
    if peer("script").is_none() {
        return;
    }
    for (more, question) in [
        ("UsePAM yes\nPasswordAuthentication yes\nKbdInteractiveAuthentication no", "root@node1's password"),
        ("UsePAM yes\nPasswordAuthentication no\nKbdInteractiveAuthentication yes", "root@node1 asks: Password"),
    ] {
        let Some(sshd) = Sshd::start_with_password(more, "letmein") else { return };
        sshd.client_config("");
        let mut terminal = Terminal::run(&sshd, &copy());
        terminal.answer(question, 1, "wrong");
        terminal.answer(question, 2, "letmein");
        let (status, shown) = terminal.end();
        assert_eq!((status, shown.matches(question).count()), (Some(0), 2), "{shown}\n{}", sshd.log());
        assert!(!shown.contains("letmein"), "{shown}");
    }
}

#[test]
fn the_users_client_is_the_one_that_is_named_and_gets_what_its_configuration_leaves_open() {
    let Some(sshd) = Sshd::start("", &[]) else { return };
    let Some(real) = peer("ssh") else { return };
    let log = sshd.at("asked");
    let script = format!("#!/bin/sh\necho \"$@\" >>{log}\nexec {} \"$@\"\n", real.display());
    fs::write(sshd.at("ssh-mine"), script).unwrap();
    let runs = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(sshd.at("ssh-mine"), runs).unwrap();
    let named = format!("{} -F {}", sshd.at("ssh-mine"), sshd.at("home/.ssh/config"));
    let copy = |by: &str| {
        let _ = fs::remove_file(&log);
        let logins = sshd.log().matches("Accepted publickey").count();
        let mut copy = program::command(env!("CARGO_BIN_EXE_imgmv"));
        copy.args(["copy", &fixture("hello-docker28c.tar"), "ssh://node1", "--as", "app:1", "-q"]);
        copy.args(["--remote-command", "cat >/dev/null"]);
        match by {
            "environment" => copy.env("IMGMV_SSH", &named),
            _ => copy.args(["--ssh", &named]),
        };
        assert!(copy.status().unwrap().success(), "{by}");
        // One connection, however many commands.
        assert_eq!(sshd.log().matches("Accepted publickey").count() - logins, 1, "{by}");
        fs::read_to_string(&log).unwrap()
    };
    sshd.client_config("");
    let asked = [copy("option"), copy("environment")];
    assert!(asked.iter().all(|asked| asked.contains("ControlMaster=auto") && asked.contains(" -G ")), "{asked:?}");
    let aes = fs::read_to_string("/proc/cpuinfo").is_ok_and(|info| info.contains(" aes"));
    assert_eq!(asked[0].contains("Ciphers=^aes128-gcm"), aes, "{}", asked[0]);
    // Where the user has chosen, the choice stays.
    sshd.client_config("  Ciphers aes256-ctr\n  ServerAliveInterval 7\n");
    let asked = copy("option");
    assert!(!asked.contains("Ciphers=") && !asked.contains("ServerAliveInterval"), "{asked}");
}
