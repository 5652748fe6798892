//! Registries that this host's engines are told are insecure (B4).

use super::*;
use crate::support::proxy::{Proxy, Rules};
use crate::support::registry::{Auth, Double};
use crate::support::web::Tls;
use std::fs;
use std::path::Path;

fn write(root: &Path, name: &str, text: &str) {
    let file = root.join(name);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

/// Before: "is not trusted" and "does not speak TLS", whatever the files say.
#[test]
fn a_host_that_an_engine_calls_insecure_needs_no_certificate_and_no_tls_unless_the_user_says_otherwise() {
    let tls = Double::start_tls(Tls::Server);
    tls.image("team/app", "1", &[b"layer"]);
    let plain = Double::start();
    plain.image("team/app", "1", &[b"layer"]);
    let proxy = Proxy::start(plain.host(), Rules::default()).address.to_string();
    for host in [tls.host(), "registry.invalid:5000".to_owned()] {
        let podman = format!("[[registry]]\nlocation = \"{host}\"\ninsecure = true\n");
        let docker = format!(r#"{{"insecure-registries": ["{host}"]}}"#);
        for (file, text) in [("containers/registries.conf", podman), ("docker/daemon.json", docker)] {
            let home = tempfile::tempdir().unwrap();
            write(home.path(), file, &text);
            let image = format!("{host}/team/app:1");
            let asked = |more: &[&str], variables: &[(&str, &str)]| {
                let mut program = program(&[&["digest", &image, "--retry", "0"], more].concat());
                let program = program.env("XDG_CONFIG_HOME", home.path()).env("HTTP_PROXY", &proxy);
                run(program.env("HTTPS_PROXY", &proxy).envs(variables.iter().copied()))
            };
            let done = asked(&[], &[]);
            assert_eq!(done.0, 0, "{}", done.1);
            let said = done.1.lines().filter(|line| line.contains(&format!("{host} is insecure by"))).count();
            assert!(said == 1 && done.1.contains(file), "{}", done.1);
            for value in ["true", "false"] {
                let option = format!("--src-insecure={value}");
                let status = if value == "true" { 0 } else { 6 };
                let by_option = asked(&[&option], &[("IMGMV_SRC_INSECURE", "")]);
                let by_variable = asked(&[], &[("IMGMV_SRC_INSECURE", value)]);
                assert_eq!((by_option.0, by_variable.0), (status, status), "{}{}", by_option.1, by_variable.1);
                assert!(!by_option.1.contains("is insecure by"), "{}", by_option.1);
            }
        }
    }
    // The option takes no word that follows it.
    let image = format!("{}/team/app:1", tls.host());
    assert_eq!(run(&mut program(&["digest", "--src-insecure", &image])).0, 0);
    assert_eq!(run(&mut program(&["digest", "--src-insecure=perhaps", &image])).0, 2);
}

/// Before: credentials went over plain HTTP wherever it was used.
#[test]
fn credentials_go_over_plain_http_only_where_the_user_said_so_or_logged_in_there() {
    let double = Double::start();
    double.image("team/app", "1", &[b"layer"]);
    double.faults().auth = Auth::Basic { user: "me".into(), password: "secret".into() };
    let proxy = Proxy::start(double.host(), Rules::default()).address.to_string();
    let host = "registry.invalid:5000";
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "docker/daemon.json", &format!(r#"{{"insecure-registries": ["{host}"]}}"#));
    write(home.path(), "auth.json", &format!(r#"{{"auths":{{"{host}":{{"auth":"bWU6c2VjcmV0"}}}}}}"#));
    let auth = home.path().join("auth.json").display().to_string();
    let asked = |args: &[&str]| {
        let mut program = program(&[args, &["--authfile", &auth, "--retry", "0"]].concat());
        program.env("IMGMV_PASSWORD", "secret").env("IMGMV_SRC_PASSWORD", "secret");
        run(program.env("XDG_CONFIG_HOME", home.path()).env("HTTP_PROXY", &proxy).env("HTTPS_PROXY", &proxy))
    };
    let shown = || double.requests().iter().filter(|request| request.header("authorization").is_some()).count();
    let image = format!("{host}/team/app:1");
    for args in [
        &["digest", &*image][..],
        &["digest", &image, "--src-creds", "me:secret"],
        &["digest", &image, "--src-creds", "me"],
        &["login", host, "-u", "me"],
    ] {
        ended(&asked(args), 4, &["does not use TLS, so its credentials were not sent", "imgmv login --insecure"]);
    }
    assert_eq!(shown(), 0);
    let done = asked(&["digest", &image, "--src-insecure"]);
    assert!(done.0 == 0 && shown() > 0, "{}", done.1);
    // A login at the HTTP host counts from then on.
    let done = asked(&["login", host, "-u", "me", "--insecure"]);
    assert_eq!(done.0, 0, "{}", done.1);
    let done = asked(&["digest", &image]);
    assert_eq!(done.0, 0, "{}", done.1);
    assert!(fs::read_to_string(&auth).unwrap().contains("\"http://registry.invalid:5000\""));
    assert_eq!(asked(&["logout", host]).0, 2, "logout has no --retry");
    let done = run(&mut program(&["logout", host, "--authfile", &auth]));
    assert!(done.0 == 0 && !fs::read_to_string(&auth).unwrap().contains("registry.invalid"), "{}", done.1);
}
