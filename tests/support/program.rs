//! The program itself, the fixtures, and a real registry to talk to.
#![allow(dead_code)]

use std::{
    fs,
    io::Write,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// What one run of imgmv gave.
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub bytes: Vec<u8>,
    pub stderr: String,
}

/// A command with nothing of this user's configuration in it.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    let nowhere = concat!(env!("CARGO_TARGET_TMPDIR"), "/no-config");
    for name in ["HOME", "DOCKER_CONFIG", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"] {
        command.env(name, nowhere);
    }
    command.env("XDG_CACHE_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/cache"));
    command.env_remove("REGISTRY_AUTH_FILE");
    command
}

/// Runs the program with `args` and, on standard input, the file `stdin`: through a pipe, not as a file.
pub fn imgmv(args: &[&str], stdin: Option<&Path>) -> Output {
    let mut child = command(env!("CARGO_BIN_EXE_imgmv"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let bytes = stdin.map(|file| fs::read(file).unwrap()).unwrap_or_default();
    let feeder = std::thread::spawn(move || drop(pipe.write_all(&bytes)));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    Output {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        bytes: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

pub fn fixture(name: &str) -> String {
    format!("{}/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Where `program` lies, if it does. Its absence is said, and is a failure with IMGMV_REQUIRE_PEERS=1.
pub fn peer(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).map(|dir| dir.join(program)).find(|file| file.is_file());
    if found.is_none() {
        assert!(std::env::var("IMGMV_REQUIRE_PEERS").as_deref() != Ok("1"), "{program} is not on PATH");
        println!("skipped: no {program} on PATH");
    }
    found
}

/// A free port on loopback. Somebody may take it before it is used: callers try again.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until something listens on `port`.
pub fn listens(port: u16) -> bool {
    let until = Instant::now() + Duration::from_secs(30);
    while Instant::now() < until {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// A child that ends with its owner.
pub struct Daemon(pub Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // TERM first: dockerd and containerd have children of their own to end.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        for _ in 0..250 {
            if let Ok(Some(_)) = self.0.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
