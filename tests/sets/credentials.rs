//! Credentials: they belong to one host, and their templates are expanded only if the user allows it.

use crate::shown::{lines, no_templates, plain};
use imgmv::internals::registry::Secret;
use imgmv::internals::sets::{ImageSet, ReadOptions, read};
use imgmv::{Error, Kind, Result};

fn with_templates(text: &str) -> Result<ImageSet> {
    let options = ReadOptions {
        allow_templates: true,
        allow_empty: false,
        env: &|name| (name == "HUB_USER").then(|| "me".to_owned()),
        file: &|path| match path {
            "/run/secrets/hub" => Ok("s3cret\n".to_owned()),
            path => Err(Error::not_found(format!("cannot read {path}: no such file"))),
        },
    };
    read(text.as_bytes(), &options)
}

fn regsync(user: &str, pass: &str) -> String {
    format!(
        "creds:\n- registry: docker.io\n  user: '{user}'\n  pass: '{pass}'\nsync:\n- {{source: a, target: b, type: image}}\n"
    )
}

fn image_syncer(password: &str) -> String {
    format!(r#"{{"auth": {{"a.lan": {{"username": "me", "password": "{password}"}}}}, "images": {{"a.lan/b:1": ""}}}}"#)
}

#[test]
fn a_template_needs_the_users_permission() {
    for document in [
        regsync("{{env \"HUB_USER\"}}", "x"),
        regsync("x", "{{file \"/run/secrets/hub\"}}"),
        image_syncer("${HUB_USER}"),
        image_syncer("$HUB_USER"),
    ] {
        let error = plain(&document).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{error}");
        assert!(error.to_string().contains("--allow-templates"), "{error}");
    }
}

#[test]
fn an_allowed_template_is_expanded_in_credentials_only() {
    let set = with_templates(&regsync("{{ env \"HUB_USER\" }}-x", "<{{file `/run/secrets/hub`}}>")).unwrap();
    let login = set.hosts[0].login.clone().unwrap();
    assert_eq!((login.user.as_str(), &login.password), ("me-x", &Secret::new("<s3cret>")));
    let set = with_templates(&image_syncer("${HUB_USER}")).unwrap();
    assert_eq!(set.hosts[0].login.clone().unwrap().password, Secret::new("me"));
    for elsewhere in [
        "creds: [{registry: '{{env \"HUB_USER\"}}', tls: disabled}]\nsync: [{source: a, target: b, type: image}]",
        "sync: [{source: '{{env \"HUB_USER\"}}', target: b, type: image}]",
        "sync: [{source: a, target: '{{env \"HUB_USER\"}}', type: image}]",
    ] {
        assert_eq!(with_templates(elsewhere).unwrap_err().kind(), Kind::Invalid, "{elsewhere}");
    }
}

#[test]
fn an_unknown_call_is_an_error_without_the_secret() {
    for (pass, reason) in [
        ("s3cret{{exec \"rm\"}}", "the call of a template is unknown"),
        ("s3cret{{env HUB_USER}}", "the call of a template is unknown"),
        ("s3cret{{env \"HUB_USER\" | upper}}", "the call of a template is unknown"),
        ("s3cret{{}}", "the call of a template is unknown"),
        ("s3cret{{env \"HUB_USER\"", "not closed"),
        ("s3cret{{env \"OTHER\"}}", "the variable OTHER is not set"),
        ("s3cret{{file \"/etc/none\"}}", "cannot read /etc/none"),
    ] {
        let error = with_templates(&regsync("me", pass)).unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains("creds[0].pass") && !error.contains("s3cret"), "{error}");
    }
    let error = with_templates(&image_syncer("${OTHER}")).unwrap_err();
    assert!(error.to_string().contains("the variable OTHER is not set"), "{error}");
}

#[test]
fn a_secret_is_never_in_a_message() {
    for document in [
        "creds: [{registry: a.lan, pass: s3cret}]\nsync: []\n",
        "creds: [{registry: a.lan, user: [s3cret], pass: s3cret}]\nsync: []\n",
        "creds: [{registry: a.lan, user: x, pass: {s3cret: s3cret}}]\nsync: []\n",
        "creds: [{registry: a.lan, user: x, pass: \"s3cret\\n\"}]\nsync: []\n",
        "creds: [{registry: a.lan, user: x, pass: s3cret}]\nsync: [{source: a, target: b, type: image}]\ncreds: 1",
    ] {
        let error = plain(document).unwrap_err().to_string();
        assert!(!error.contains("s3cret"), "{error}");
    }
    let set = plain("creds: [{registry: a.lan, user: x, pass: s3cret}]\nsync: [{source: a, target: b, type: image}]")
        .unwrap();
    assert!(!format!("{set:?}").contains("s3cret"));
}

#[test]
fn a_password_without_a_template_stays_as_written() {
    let set = plain(&regsync("me", "${x}$y z")).unwrap();
    assert_eq!(set.hosts[0].login.clone().unwrap().password, Secret::new("${x}$y z"));
    let set = plain("a.lan: {credentials: {username: me, password: '{{env}}'}, images: {b: [c]}}").unwrap();
    assert_eq!(set.hosts[0].login.clone().unwrap().password, Secret::new("{{env}}"));
    let set = plain("a.lan: {credentials: {username: 007, password: 1.10}, images: {b: [c]}}").unwrap();
    let login = set.hosts[0].login.clone().unwrap();
    assert_eq!((login.user.as_str(), login.password), ("007", Secret::new("1.10")));
}

#[test]
fn docker_hub_is_one_host() {
    let document =
        "creds: [{registry: index.docker.io, user: a, pass: b}]\nsync: [{source: a, target: b, type: image}]";
    let set = read(document.as_bytes(), &no_templates()).unwrap();
    assert_eq!(lines(&set)[2], "host docker.io as a");
}
