//! What the environment decides: where credentials lie, which helper is asked, which proxy is gone through. Each test
//! runs itself in a process of its own, whose environment is the test's.

use super::support::proxy::{Proxy, Rules};
use super::support::registry::{Auth, Double};
use super::*;
use imgmv::transport::registry::{Credentials, Secret, login, logout};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// What the child is to do, and where.
const TASK: &str = "IMGMV_TEST_TASK";

/// Runs `task` of [`the_child`] with nothing but `variables` (and `PATH`) in its environment.
fn run(task: &str, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "environment::the_child", "--nocapture"]).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env(TASK, task);
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{task}: {text}");
    text
}

/// Does nothing unless a test above has started it.
#[test]
fn the_child() {
    let Ok(task) = std::env::var(TASK) else { return };
    let (verb, host) = task.split_once(' ').unwrap();
    let access = Access { authfile: None, ..access() };
    let given = |password: &str| Access {
        credentials: Credentials::Password { user: "me".into(), password: Secret::new(password) },
        ..access.clone()
    };
    match verb {
        "pull" => {
            super::pull(&reach(host, access).repository("team/app"), "1").unwrap();
        }
        "plain" => {
            let access = Access { insecure: Insecure::ByUser, ..access };
            super::pull(&reach(host, access).repository("team/app"), "1").unwrap();
        }
        "login" => {
            let kept = login(host, &given("secret"), Arc::new(Silent), Cancel::default()).unwrap();
            println!("kept in {}", kept.location);
        }
        "logout" => println!("removed {}", logout(host, &access).unwrap()),
        _ => panic!("{verb}?"),
    }
}

fn double() -> Double {
    let double = Double::start();
    double.image("team/app", "1", &[b"layer"]);
    double.faults().auth = Auth::Basic { user: "me".into(), password: "secret".into() };
    double
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[test]
fn credentials_are_found_wherever_docker_and_podman_keep_them() {
    let double = double();
    let host = double.host();
    // me:secret
    let right = format!(r#"{{"auths":{{"{host}":{{"auth":"bWU6c2VjcmV0"}}}}}}"#);
    let wrong = format!(r#"{{"auths":{{"{host}":{{"auth":"bWU6b3RoZXI="}}}}}}"#);
    let places: [(&str, &[(&str, &str)]); 6] = [
        (".docker/config.json", &[("HOME", "")]),
        ("config.json", &[("DOCKER_CONFIG", "")]),
        ("containers/auth.json", &[("XDG_RUNTIME_DIR", "")]),
        ("containers/auth.json", &[("XDG_CONFIG_HOME", "")]),
        (".config/containers/auth.json", &[("HOME", "")]),
        ("auth.json", &[("REGISTRY_AUTH_FILE", "auth.json"), ("HOME", "elsewhere")]),
    ];
    for (file, variables) in places {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join(file), &right);
        write(&dir.path().join("elsewhere/.docker/config.json"), &wrong);
        let values: Vec<String> = variables.iter().map(|(_, to)| dir.path().join(to).display().to_string()).collect();
        let variables: Vec<(&str, &str)> = variables.iter().zip(&values).map(|((name, _), v)| (*name, &**v)).collect();
        run(&format!("pull {host}"), &variables);
    }
}

/// A credential helper that notes what it is asked and answers `answer` to `get`.
fn helper(dir: &Path, answer: &str) -> String {
    let program = dir.join("docker-credential-test");
    let notes = dir.join("notes");
    let text = format!(
        "#!/bin/sh\nread -r server\necho \"$1 $server\" >> '{}'\n[ \"$1\" = get ] && echo '{answer}'\nexit 0\n",
        notes.display()
    );
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", dir.display(), std::env::var("PATH").unwrap_or_default())
}

#[test]
fn a_credential_helper_is_asked_told_and_made_to_forget() {
    let double = double();
    let host = double.host();
    for config in [r#"{"credsStore":"test"}"#.to_owned(), format!(r#"{{"credHelpers":{{"{host}":"test"}}}}"#)] {
        let dir = tempfile::tempdir().unwrap();
        let path = helper(dir.path(), r#"{"ServerURL":"x","Username":"me","Secret":"secret"}"#);
        write(&dir.path().join("config.json"), &config);
        let home = dir.path().display().to_string();
        let variables = [("PATH", &*path), ("DOCKER_CONFIG", &*home)];
        run(&format!("pull {host}"), &variables);
        assert!(run(&format!("login {host}"), &variables).contains("kept in docker-credential-test"));
        assert!(run(&format!("logout {host}"), &variables).contains("removed true"));
        let notes = std::fs::read_to_string(dir.path().join("notes")).unwrap();
        let notes: Vec<&str> = notes.lines().collect();
        assert_eq!((notes[0], notes[2]), (&*format!("get {host}"), &*format!("erase {host}")));
        let stored: serde_json::Value = serde_json::from_str(notes[1].strip_prefix("store ").unwrap()).unwrap();
        assert_eq!((&stored["ServerURL"], &stored["Secret"]), (&host.as_str().into(), &"secret".into()));
        // Nothing of it went into the file.
        assert_eq!(std::fs::read_to_string(dir.path().join("config.json")).unwrap(), config);
    }
}

#[test]
fn a_helper_that_is_missing_or_a_path_is_passed_over() {
    let double = double();
    let host = double.host();
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().display().to_string();
    for name in ["nowhere", "../../bin/sh", "/bin/sh"] {
        let text = format!(r#"{{"credsStore":"{name}","auths":{{"{host}":{{"auth":"bWU6c2VjcmV0"}}}}}}"#);
        write(&dir.path().join("config.json"), &text);
        run(&format!("pull {host}"), &[("DOCKER_CONFIG", &home)]);
    }
}

#[test]
fn login_goes_into_dockers_file_unless_told_otherwise() {
    let double = double();
    let host = double.host();
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().display().to_string();
    run(&format!("login {host}"), &[("HOME", &home)]);
    assert!(dir.path().join(".docker/config.json").exists());
    let file = dir.path().join("own.json").display().to_string();
    run(&format!("login {host}"), &[("HOME", &home), ("REGISTRY_AUTH_FILE", &file)]);
    run(&format!("pull {host}"), &[("REGISTRY_AUTH_FILE", &file)]);
}

#[test]
fn a_proxy_is_gone_through_except_where_it_is_not_to_be() {
    let double = Double::start();
    double.image("team/app", "1", &[b"layer"]);
    let proxy = Proxy::start(double.host(), Rules::default());
    let address = format!("http://{}", proxy.address);
    let variables = [("HTTP_PROXY", &*address), ("HTTPS_PROXY", &*address), ("NO_PROXY", "other.invalid")];
    run("plain registry.invalid:5000", &variables);
    let lines = proxy.lines();
    // A tunnel is asked for TLS, which the registry turns out not to have.
    assert_eq!(lines[0], "CONNECT registry.invalid:5000 HTTP/1.1");
    assert!(
        lines.len() > 1 && lines[1..].iter().all(|line| line.contains(" http://registry.invalid:5000/v2/")),
        "{lines:?}"
    );
    // Loopback never goes through one.
    run(&format!("pull {}", double.host()), &variables);
    assert_eq!(proxy.lines(), Vec::<String>::new());
}
