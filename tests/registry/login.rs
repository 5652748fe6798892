//! `login` and `logout`.

use super::support::registry::{Auth, Bearer, Double};
use super::*;
use imgmv::Kind;
use imgmv::transport::registry::{Credentials, Secret, login, logout};

fn as_user(file: &std::path::Path, password: &str) -> Access {
    let credentials = Credentials::Password { user: "me".into(), password: Secret::new(password) };
    Access { credentials, authfile: Some(file.to_owned()), ..access() }
}

#[test]
fn credentials_are_tried_then_kept_then_used_then_removed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("auth.json");
    let user = || Some(("me".to_owned(), "right".to_owned()));
    for auth in [
        Auth::Basic { user: "me".into(), password: "right".into() },
        Auth::Bearer(Bearer { user: user(), ..Bearer::default() }),
    ] {
        let double = Double::start();
        double.image("app", "1", &[]);
        double.faults().auth = auth;
        let wrong = login(&double.host(), &as_user(&file, "wrong"), Arc::new(Silent), Cancel::default());
        assert_eq!(wrong.unwrap_err().kind(), Kind::Denied);
        assert!(!file.exists());
        let kept = login(&double.host(), &as_user(&file, "right"), Arc::new(Silent), Cancel::default()).unwrap();
        assert_eq!((kept.verified, kept.location), (true, file.display().to_string()));
        let stored = Access { authfile: Some(file.clone()), ..access() };
        super::pull(&reach(&double.host(), stored.clone()).repository("app"), "1").unwrap();
        assert!(logout(&double.host(), &stored).unwrap());
        assert!(!logout(&double.host(), &stored).unwrap());
        assert!(super::pull(&reach(&double.host(), stored).repository("app"), "1").is_err());
        std::fs::remove_file(&file).unwrap();
    }
}

#[test]
fn a_registry_that_lets_everybody_in_says_nothing_of_a_password() {
    let dir = tempfile::tempdir().unwrap();
    let double = Double::start();
    let access = as_user(&dir.path().join("auth.json"), "any");
    let kept = login(&double.host(), &access, Arc::new(Silent), Cancel::default()).unwrap();
    assert!(!kept.verified);
}
