//! Another host, over a real sshd: through the user's ssh client and through ssh built in, the same promises.

#[path = "support/engines.rs"]
mod engines;
#[path = "support/program.rs"]
mod program;
#[path = "support/sshd.rs"]
mod sshd;

use engines::{Kind, Peer};
use imgmv::internals::engine::{Engine, EngineSink, detect};
use imgmv::internals::layout::LayoutStore;
use imgmv::internals::remote::{Host, capture};
use imgmv::{Cancel, Digest, Name, Naming, Options, Selector, Silent, Source, copy};
use program::fixture;
use sshd::{Sshd, Way};
use std::{
    fs,
    io::{ErrorKind, Read, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

/// Bytes that no compression and no repetition hides faults in.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Writes `bytes` into `command` and gives back what comes out meanwhile.
fn through(host: &dyn Host, command: &[&str], bytes: Vec<u8>) -> Vec<u8> {
    let mut running = host.run(command).unwrap();
    let mut stdin = running.stdin.take().unwrap();
    let mut stdout = running.stdout.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
    let mut out = Vec::new();
    stdout.read_to_end(&mut out).unwrap();
    writer.join().unwrap();
    assert!(running.wait().unwrap().success());
    out
}

/// Checks `promise` both ways.
fn both(sshd: &Sshd, promise: impl Fn(Way, &dyn Host)) {
    for way in Way::BOTH {
        promise(way, sshd.host(way).unwrap().as_ref());
    }
}

#[test]
fn a_command_gets_its_input_and_gives_output_status_and_last_words() {
    let Some(sshd) = Sshd::start("", &[]) else { return };
    both(&sshd, |way, host| {
        assert_eq!(host.name(), "node1");
        let mut running = host.run(&["sh", "-c", "cat; printf 'b\\033[31mad\\n' >&2; exit 7"]).unwrap();
        running.stdin.take().unwrap().write_all(b"some input").unwrap();
        let mut out = String::new();
        running.stdout.as_mut().unwrap().read_to_string(&mut out).unwrap();
        let exit = running.wait().unwrap();
        assert_eq!((out.as_str(), exit.describe().as_str()), ("some input", "ended with status 7: bad"), "{way:?}");
        assert!(capture(host, &["true"]).unwrap().exit.success(), "{way:?}");
        assert_eq!(capture(host, &["no-such-program"]).unwrap().exit.status, Some(127), "{way:?}");
    });
}

#[test]
fn megabytes_pass_both_ways_at_once_whatever_the_keys_do() {
    // A new key every megabyte: the flow must survive the exchange.
    let Some(sshd) = Sshd::start("RekeyLimit 1M", &[]) else { return };
    let bytes = noise(12 << 20);
    both(&sshd, |way, host| {
        assert!(through(host, &["cat"], bytes.clone()) == bytes, "{way:?}");
        let sum = through(host, &["sha256sum"], bytes.clone());
        assert_eq!(String::from_utf8(sum).unwrap()[..64], Digest::of(&bytes).hex(), "{way:?}");
    });
}

#[test]
fn arguments_arrive_whatever_is_in_them() {
    let Some(sshd) = Sshd::start("", &[]) else { return };
    let all: String = (1..=0x17f).filter_map(char::from_u32).collect();
    let words = ["", " ", "'", "\\", "$(id)", "`id`", ";id", "-n", "*", "~", "a\nb\n", "!!", "\u{10ffff}", &all];
    both(&sshd, |way, host| {
        let command = [&["printf", "%s\\0"][..], &words].concat();
        let mut running = host.run(&command).unwrap();
        let mut out = String::new();
        running.stdout.as_mut().unwrap().read_to_string(&mut out).unwrap();
        assert_eq!(out.split_terminator('\0').collect::<Vec<_>>(), words, "{way:?}");
    });
}

#[test]
fn a_command_that_ends_early_ends_the_writing_at_once() {
    let Some(sshd) = Sshd::start("", &[]) else { return };
    both(&sshd, |way, host| {
        for end in ["echo full >&2; exit 3", "exit 3"] {
            let mut running = host.run(&["sh", "-c", &format!("head -c 100000 >/dev/null; {end}")]).unwrap();
            let mut stdin = running.stdin.take().unwrap();
            let error = (0..4096).find_map(|_| stdin.write_all(&[7; 65536]).err());
            assert_eq!(error.map(|e| e.kind()), Some(ErrorKind::BrokenPipe), "{way:?}: 256 MiB went nowhere");
            assert_eq!(running.wait().unwrap().status, Some(3), "{way:?}");
        }
        // Nobody reads its output, of which there is more than any buffer holds.
        let mut running = host.run(&["sh", "-c", "head -c 8000000 /dev/zero; exit 4"]).unwrap();
        running.stdout = None;
        assert_ne!(running.wait().unwrap().status, Some(0), "{way:?}");
    });
}

#[test]
fn a_signal_is_no_success() {
    let Some(sshd) = Sshd::start("", &[]) else { return };
    both(&sshd, |way, host| {
        let exit = capture(host, &["sh", "-c", "kill -9 $$"]).unwrap().exit;
        assert!(!exit.success(), "{way:?}");
        match way {
            Way::Client => assert_eq!(exit.status, Some(255)),
            Way::Builtin => assert_eq!((exit.status, exit.signal.as_deref()), (None, Some("KILL"))),
        }
    });
}

#[test]
fn commands_share_one_connection_which_ends_with_the_job() {
    let Some(sshd) = Sshd::start("", &[]) else { return };
    for (way, logins) in [(Way::Client, 1), (Way::Builtin, 2)] {
        let host = sshd.host(way).unwrap();
        for _ in 0..3 {
            assert!(capture(host.as_ref(), &["true"]).unwrap().exit.success());
        }
        drop(host);
        assert_eq!(sshd.log().matches("Accepted publickey").count(), logins, "{way:?}");
        let gone = |log: &str| log.matches("Disconnected from user").count() + log.matches("Connection closed").count();
        let until = Instant::now() + Duration::from_secs(20);
        while gone(&sshd.log()) < logins && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(gone(&sshd.log()) >= logins, "{way:?}: the connection stayed: {}", sshd.log());
    }
}

/// What a user sees of a host that may not be talked to.
fn refusal(sshd: &Sshd, way: Way) -> imgmv::Error {
    let error = sshd.host(way).and_then(|host| detect(host.as_ref(), &Engine::ALL, None, None));
    error.expect_err("the host was talked to")
}

#[test]
fn an_unknown_host_is_refused_with_the_line_that_would_make_it_known() {
    let Some(sshd) = Sshd::start("", &[]) else { return };
    sshd.record("");
    for way in Way::BOTH {
        let error = refusal(&sshd, way);
        assert_eq!(error.kind(), imgmv::Kind::Denied, "{way:?}: {error}");
    }
    let error = refusal(&sshd, Way::Builtin).to_string();
    let (_, line) = error.split_once("add this line to the file: ").unwrap();
    fs::write(sshd.known_hosts(), format!("{line}\n")).unwrap();
    both(&sshd, |_, host| assert!(capture(host, &["true"]).unwrap().exit.success()));
}

#[test]
fn a_host_that_shows_another_key_is_refused() {
    let Some(sshd) = Sshd::start("", &[]) else { return };
    sshd.key("other_key", "");
    let other = fs::read_to_string(sshd.at("other_key.pub")).unwrap();
    sshd.record(other.trim());
    for way in Way::BOTH {
        let error = refusal(&sshd, way);
        assert_eq!(error.kind(), imgmv::Kind::Denied, "{way:?}: {error}");
    }
    assert!(refusal(&sshd, Way::Builtin).to_string().contains("differs from the one in ~/.ssh/known_hosts"));
    assert!(!sshd.log().contains("Accepted"), "somebody logged in at a host with another key");
    // Hashed, as many systems keep it.
    sshd.record(&sshd.host_key());
    let hashed =
        Command::new("ssh-keygen").args(["-q", "-H", "-f", &sshd.known_hosts()]).stderr(Stdio::null()).status();
    assert!(hashed.unwrap().success() && fs::read_to_string(sshd.known_hosts()).unwrap().starts_with("|1|"));
    both(&sshd, |_, host| assert!(capture(host, &["true"]).unwrap().exit.success()));
}

#[test]
fn a_user_without_the_right_key_is_refused() {
    let Some(sshd) = Sshd::start("", &[]) else { return };
    sshd.key("home/.ssh/id_ed25519", "");
    for way in Way::BOTH {
        let error = refusal(&sshd, way);
        assert_eq!(error.kind(), imgmv::Kind::Denied, "{way:?}: {error}");
    }
}

#[test]
fn nothing_is_forwarded_even_where_the_configuration_says_so() {
    let Some(sshd) = Sshd::start("", &[]) else { return };
    let agent = sshd.at("agent");
    let mut ssh_agent = Command::new("ssh-agent");
    let _agent = program::Daemon(ssh_agent.args(["-D", "-a", &agent]).stdout(Stdio::null()).spawn().unwrap());
    let port = program::free_port();
    let config = format!(
        "  ForwardAgent yes\n  IdentityAgent {agent}\n  ForwardX11 yes\n  LocalForward 127.0.0.1:{port} 127.0.0.1:{}\n",
        sshd.port
    );
    let listening = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    let seen = |host: &dyn Host| {
        let shown = capture(host, &["sh", "-c", "echo agent=$SSH_AUTH_SOCK display=$DISPLAY"]).unwrap();
        (shown.stdout, listening())
    };
    for way in Way::BOTH {
        let host = sshd.host_with(way, &config, &Cancel::default()).unwrap();
        assert_eq!(seen(host.as_ref()), ("agent= display=\n".to_owned(), false), "{way:?}");
    }
    // The configuration would forward: without imgmv's options ssh obeys it.
    sshd.client_config(&config);
    let bare = ["-F", &sshd.at("home/.ssh/config"), "node1", "echo agent=$SSH_AUTH_SOCK"];
    let bare = Command::new("ssh").args(bare).stdin(Stdio::null()).output().unwrap();
    assert!(String::from_utf8_lossy(&bare.stdout).trim().len() > "agent=".len());
}

#[test]
fn cancelling_ends_what_runs() {
    let Some(sshd) = Sshd::start("", &[]) else { return };
    for way in Way::BOTH {
        let cancel = Cancel::default();
        let host = sshd.host_with(way, "", &cancel).unwrap();
        let mut running = host.run(&["cat"]).unwrap();
        running.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        cancel.raise();
        let mut out = Vec::new();
        running.stdout.as_mut().unwrap().read_to_end(&mut out).unwrap();
        assert_eq!(running.wait().unwrap_err().kind(), imgmv::Kind::Interrupted, "{way:?}");
    }
}

#[test]
fn a_connection_that_is_cut_is_told_and_waited_for_by_nobody() {
    let Some(sshd) = Sshd::start("", &[]) else { return };
    both(&sshd, |way, host| {
        let mut running = host.run(&["sh", "-c", "head -c 1000 >/dev/null; kill -9 $PPID; sleep 2"]).unwrap();
        let mut stdin = running.stdin.take().unwrap();
        let error = (0..4096).find_map(|_| stdin.write_all(&[7; 65536]).err());
        assert!(error.is_some(), "{way:?}");
        drop(stdin);
        assert!(!running.wait().is_ok_and(|exit| exit.success()), "{way:?}");
    });
}

#[test]
fn a_locked_key_is_said_where_nobody_can_be_asked() {
    let Some(sshd) = Sshd::start("", &[]) else { return };
    if fs::File::open("/dev/tty").is_ok() {
        println!("skipped: there is a terminal to ask on");
        return;
    }
    sshd.key("home/.ssh/id_ed25519", "secret");
    fs::copy(sshd.at("home/.ssh/id_ed25519.pub"), sshd.at("authorized_keys")).unwrap();
    let error = sshd.host(Way::Builtin).err().unwrap();
    assert!(error.to_string().contains("encrypted, and no terminal for its passphrase"), "{error}");
}

fn copy_hello(host: Box<dyn Host>, wanted: &[Engine], name: &str) -> imgmv::Result<()> {
    let host: Arc<dyn Host> = Arc::from(host);
    let found = detect(host.as_ref(), wanted, None, None)?;
    let sink = EngineSink::new(host, found, Arc::new(Silent), &Cancel::default());
    let source = Source::Store(Arc::new(LayoutStore::open(Path::new(&fixture("layout")))?));
    let options = Options {
        selectors: vec![Selector::Name("1".to_owned())],
        naming: Naming::Names(vec![Name::new(name)?]),
        ..Options::default()
    };
    copy(source, &sink, &options, None, &Silent, &Cancel::default()).map(|_| ())
}

#[test]
fn an_image_goes_into_the_engine_of_another_host() {
    for kind in [Kind::Docker20, Kind::Containerd16, Kind::Podman4] {
        let Some(peer) = Peer::start(kind) else { continue };
        let Some(sshd) = Sshd::start("", &peer.environment) else { return };
        for (way, name) in [(Way::Client, "docker.io/t/client:1"), (Way::Builtin, "docker.io/t/builtin:1")] {
            copy_hello(sshd.host(way).unwrap(), &[kind.engine()], name).unwrap();
            assert!(peer.id(name).is_some(), "{kind:?} {way:?}");
        }
        // A copy each way, on one connection each.
        assert_eq!(sshd.log().matches("Accepted publickey").count(), 2, "{kind:?}: {}", sshd.log());
    }
}

#[test]
fn a_login_that_chatters_does_not_confuse_the_question() {
    let Some(peer) = Peer::start(Kind::Containerd16) else { return };
    let chatter =
        "ForceCommand echo engine=podman; echo imgmv; sh -c \"$SSH_ORIGINAL_COMMAND\"; s=$?; echo bye; exit $s";
    let Some(sshd) = Sshd::start(chatter, &peer.environment) else { return };
    for way in Way::BOTH {
        copy_hello(sshd.host(way).unwrap(), &[Engine::Ctr], "docker.io/t/chatter:1").unwrap();
        assert!(peer.id("docker.io/t/chatter:1").is_some());
    }
}

#[test]
fn a_host_that_gives_no_shell_says_so() {
    let Some(sshd) = Sshd::start("ForceCommand echo 'this account is for backups' >&2; exit 1", &[]) else { return };
    for way in Way::BOTH {
        let error = refusal(&sshd, way);
        assert_eq!(error.kind(), imgmv::Kind::RemoteHost);
        assert!(error.to_string().contains("this account is for backups"), "{way:?}: {error}");
    }
}
