//! Stores of credentials that fail (B5).

use super::*;
use crate::support::registry::{Auth, Double};
use crate::support::web::{Response, Web};
use std::fs;
use std::sync::Arc;

/// Before: "cannot read credentials from docker-credential-dead" while storing, and no file.
#[test]
fn errors_of_credential_stores_name_the_file_the_helper_and_what_it_was_to_do() {
    let double = Double::start();
    let basic = Auth::Basic { user: "me".into(), password: "secret".into() };
    double.image("team/app", "1", &[b"layer"]);
    double.faults().auth = basic;
    let host = double.host();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("auth.json");
    let shown = file.display().to_string();
    let bin = dir.path().join("docker-credential-grumpy");
    fs::write(&bin, "#!/bin/sh\necho the vault is locked\nexit 1\n").unwrap();
    fs::set_permissions(&bin, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let image = format!("{host}/team/app:1");
    for (text, helper, why) in [
        (r#"{"credsStore":"dead"}"#.to_owned(), "docker-credential-dead", "the program was not found in PATH"),
        (format!(r#"{{"credHelpers":{{"{host}":"grumpy"}}}}"#), "docker-credential-grumpy", "the vault is locked"),
        (r#"{"credsStore":"../x"}"#.to_owned(), "docker-credential-../x", "expected a name, not a path"),
    ] {
        fs::write(&file, &text).unwrap();
        for (verb, status, args) in [
            ("store", 8, &["login", &host, "-u", "me"][..]),
            ("remove", 8, &["logout", &host]),
            ("read", 4, &["digest", &image]),
        ] {
            let args = [args, &["--authfile", &shown]].concat();
            let done = run(program(&args).env("IMGMV_PASSWORD", "secret").env("PATH", &path));
            assert_eq!(done.0, status, "{}", done.1);
            let sentence = format!("cannot {verb} the credentials of {host} with {helper}, which {shown} names: ");
            let line = done.1.lines().find(|line| line.contains(&sentence));
            assert!(line.is_some_and(|line| line.contains(why)), "{sentence}{why} in {}", done.1);
            assert!(!done.1.contains("secret"), "{}", done.1);
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
    // Files that cannot be written, or are not what they should be.
    for (text, words) in [("{\"auths\": []}", "the \"auths\" of"), ("[", "is not JSON"), ("[]", "is not a JSON object")]
    {
        fs::write(&file, text).unwrap();
        let args = ["login", &host, "-u", "me", "--authfile", &shown];
        let done = run(program(&args).env("IMGMV_PASSWORD", "secret"));
        ended(&done, 5, &[&format!("cannot store the credentials of {host}"), words, &shown]);
    }
}

/// Before: exit 0, and the password was kept as if the registry had taken it.
#[test]
fn a_password_that_the_registry_never_saw_is_not_kept_as_checked() {
    let elsewhere = Web::start(None, Arc::new(|_, _| Some(Response::json(200, r#"{"token":"anonymous"}"#))));
    let stranger = elsewhere.address.to_string().replace("127.0.0.1", "localhost");
    let (bearer, redirect) = (format!("Bearer realm=\"http://{stranger}/token\""), format!("http://{stranger}/v2/"));
    for (challenge, status, words) in [
        (bearer, 4, "the credentials were not sent to it"),
        ("Basic realm=x".to_owned(), 0, "the password was not checked"),
    ] {
        let redirect = redirect.clone();
        let registry = Web::start(
            None,
            Arc::new(move |request, _| {
                Some(match request.header("authorization") {
                    None => Response::new(401).with("WWW-Authenticate", challenge.clone()),
                    Some(basic) if basic.starts_with("Basic") => Response::new(307).with("Location", redirect.clone()),
                    Some(_) => Response::json(200, "{}"),
                })
            }),
        );
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("auth.json");
        let args = ["login", &registry.address.to_string(), "-u", "me", "--authfile", &file.display().to_string()];
        let done = run(program(&args).env("IMGMV_PASSWORD", "wrong"));
        assert!(done.0 == status && done.1.contains(words), "{done:?}");
        assert_eq!(file.exists(), status == 0);
    }
}
