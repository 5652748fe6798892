//! Environment variables, options and configuration files with garbage in them: the program says so and ends with a
//! status of its own. A panic would be 101, a crash a signal.

use super::*;
use crate::support::program::free_port;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// Values that have broken parsers before.
fn garbage() -> Vec<OsString> {
    let long = "9".repeat(40);
    let texts = [
        "",
        " ",
        "-",
        "--",
        "=",
        ":",
        "/",
        "//",
        "@",
        "@:",
        "%",
        "%zz",
        "\\",
        "\"",
        "'",
        "[",
        "[::1",
        "]:",
        "{",
        "{}",
        "[]",
        "null",
        "0",
        "-1",
        "1e999",
        "NaN",
        &long,
        "é",
        "\u{202e}",
        "\u{1}\u{1b}[31m",
        "a\nb",
        "../../..",
        "/dev/full",
        "socks5h://127.0.0.1:9",
        "http://",
        "http://[",
        "http://a:b:c@d:e/",
        "://",
        "sha256:",
        "a@b@c",
        "linux/",
        "*",
        "**,,",
        "~x/y",
    ];
    let bytes = [&b"\xff"[..], b"\xc3\x28x", b"http://\xff"];
    texts.iter().map(OsString::from).chain(bytes.iter().map(|bytes| OsStr::from_bytes(bytes).to_owned())).collect()
}

/// The value of each variable or option that takes one, as the program's own help lists them.
fn listed(help: &str, begin: &str) -> Vec<String> {
    let is_of = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    let words = help.match_indices(begin).map(|(at, _)| help[at..].split(|c| !is_of(c)).next().unwrap_or_default());
    let mut words: Vec<String> = words.filter(|word| word.len() > begin.len()).map(str::to_owned).collect();
    words.sort();
    words.dedup();
    words
}

fn help(verb: &str) -> String {
    let output = program(&[verb, "--help"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A place without anything, in which the program may do what it likes.
struct Scene {
    dir: tempfile::TempDir,
    image: String,
}

impl Scene {
    fn new() -> Scene {
        Scene { dir: tempfile::tempdir().unwrap(), image: format!("127.0.0.1:{}/a/b:1", free_port()) }
    }

    /// A run that fails soon by itself: nothing listens.
    fn command(&self, verb: &str) -> Command {
        let layout = format!("oci:{}/out:1", self.dir.path().display());
        let args: &[&str] = match verb {
            "copy" => &["copy", &self.image, &layout],
            "login" => &["login", "127.0.0.1:1", "-u", "me"],
            verb => &[verb, &self.image],
        };
        let mut command = program(args);
        command.current_dir(self.dir.path()).env("HOME", self.dir.path()).env("IMGMV_PASSWORD", "x");
        command.env("IMGMV_RETRY", "0").env("IMGMV_TIMEOUT", "1");
        command
    }
}

fn survives(command: &mut Command, what: &dyn std::fmt::Debug) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let status = output.status.code();
    assert!(status.is_some_and(|status| status != 101 && status < 126), "{what:?}: {:?}: {said}", output.status);
    assert!(!said.contains("panicked at"), "{what:?}: {said}");
}

/// Before: `ALL_PROXY=socks5h://127.0.0.1:9` was a panic.
#[test]
fn no_environment_variable_makes_the_program_panic() {
    let scene = Scene::new();
    let mut variables = listed(&help("copy"), "IMGMV_");
    assert!(variables.len() > 20, "{variables:?}");
    let others = "HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy all_proxy no_proxy HOME DOCKER_CONFIG XDG_CONFIG_HOME \
                  XDG_CACHE_HOME XDG_RUNTIME_DIR REGISTRY_AUTH_FILE SSL_CERT_FILE SSL_CERT_DIR TMPDIR PATH LANG TERM COLUMNS \
                  NO_COLOR CONTAINERD_NAMESPACE CONTAINERD_ADDRESS DOCKER_HOST USER";
    variables.extend(others.split_ascii_whitespace().map(str::to_owned));
    let all = garbage();
    for (number, variable) in variables.iter().enumerate() {
        // Every value once for each variable would take minutes; the proxies, which parse most, get them all.
        let step = if variable.to_ascii_lowercase().contains("proxy") { 1 } else { 11 };
        for value in all.iter().skip(number % step).step_by(step) {
            let mut command = scene.command("copy");
            if variable.contains("PROXY") {
                command.args(["--src-insecure"]).arg("--mirror").arg("registry.invalid");
            }
            survives(command.env(variable, value), &(variable, value));
        }
    }
}

#[test]
fn no_option_makes_the_program_panic() {
    let scene = Scene::new();
    let all = garbage();
    for verb in ["copy", "digest", "login"] {
        let mut options = listed(&help(verb), "--");
        options.retain(|option| option != "--help" && option != "--version");
        assert!(options.len() > 10, "{options:?}");
        for (number, option) in options.iter().enumerate() {
            for value in all.iter().skip(number % 9).step_by(9) {
                let mut joined = OsString::from_vec(option.as_bytes().to_vec());
                joined.push("=");
                joined.push(value);
                survives(scene.command(verb).arg(&joined), &(verb, &joined));
            }
        }
    }
    for (number, verb) in
        ["copy", "digest", "login", "logout", "inspect", "list", "verify", "tag", "save", "load"].iter().enumerate()
    {
        for value in all.iter().skip(number % 3).step_by(3) {
            survives(program(&[verb]).current_dir(scene.dir.path()).arg(value), &(verb, value));
        }
    }
}

/// Files of docker, podman and ssh, each with every piece of garbage and with some that is nearly right.
#[test]
fn no_configuration_file_makes_the_program_panic() {
    let nearly: [&[u8]; 12] = [
        br#"{"auths":{"":{"auth":"%%%"},"://":{"auth":"Og=="},"127.0.0.1":{"auth":"/w=="}}}"#,
        br#"{"auths":[],"credHelpers":7,"credsStore":["x"]}"#,
        br#"{"credsStore":"../../bin/sh","credHelpers":{"127.0.0.1":"a b"}}"#,
        br#"{"insecure-registries":["/", "1/999", "::/129", "10.0.0.0/-1", "\u0000", 7],"registry-mirrors":["http://","//",7]}"#,
        b"[[registry]]\nlocation=\"\xff\"",
        b"[[registry]]\nprefix=\"*\"\nlocation=\"*.\"\ninsecure=true\n[[registry.mirror]]\n[[registry.mirror]]\nlocation=\"/\"",
        b"[[[[\n]]]]\n=\n= =\n[a\nb]\nx = [\n",
        b"Host *\nPort 99999999\nIdentityFile %\nInclude *\nInclude ~/.ssh/config\nProxyJump ,,@:\nHostName %h%h\n",
        b"Match all\nUser\nHost !\nHost \"\nPort -1\n",
        b"@cert-authority * ssh-rsa AAAA\n|1|%%|== ssh-rsa x\n[h]:x ssh-rsa AAAA\n",
        b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
    ];
    let files = [
        ".docker/config.json",
        ".config/containers/auth.json",
        ".config/containers/registries.conf",
        ".config/containers/registries.conf.d/x.conf",
        ".config/containers/certs.d/localhost:1/x.crt",
        ".config/docker/daemon.json",
        ".ssh/config",
        ".ssh/known_hosts",
    ];
    let scene = Scene::new();
    let home = scene.dir.path();
    let all = garbage();
    let contents: Vec<&[u8]> = all.iter().map(|own| own.as_bytes()).chain(nearly).collect();
    for file in files {
        let path = home.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        for content in &contents {
            fs::write(&path, content).unwrap();
            let what = (file, String::from_utf8_lossy(content));
            for mut command in commands(file, home) {
                command.env("IMGMV_RETRY", "0").env("IMGMV_TIMEOUT", "1").env("IMGMV_PASSWORD", "x");
                for name in ["DOCKER_CONFIG", "XDG_CONFIG_HOME"] {
                    command.env_remove(name);
                }
                survives(command.env("HOME", home).current_dir(home), &what);
            }
        }
        fs::remove_file(&path).unwrap();
    }
}

/// The runs that read `file`.
fn commands(file: &str, home: &Path) -> Vec<Command> {
    match file {
        ".ssh/config" | ".ssh/known_hosts" => {
            let archive = format!("{}/fixtures/hello-docker.tar", env!("CARGO_MANIFEST_DIR"));
            vec![program(&["copy", &archive, "nobody@127.0.0.1:", "--ssh", "builtin"])]
        }
        ".docker/config.json" | ".config/containers/auth.json" => {
            let path = home.join(file).display().to_string();
            vec![
                program(&["digest", "localhost:1/a/b:1"]),
                program(&["logout", "127.0.0.1:1", "--authfile", &path]),
                program(&["logout", "docker.io", "--authfile", &path]),
            ]
        }
        _ => vec![program(&["digest", "localhost:1/a/b:1"])],
    }
}
