use super::*;

fn file(text: &str) -> AuthFile {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    fs::write(&path, text).unwrap();
    AuthFile::read(&path).unwrap().unwrap()
}

fn found(file: &AuthFile, host: &str, repository: &str) -> Option<String> {
    match file.find(host, repository, &mut |e| panic!("{e}")) {
        Some(LoginSecret::Password { user, password }) => Some(format!("{user}:{}", password.reveal())),
        Some(LoginSecret::Identity(token)) => Some(format!("identity {}", token.reveal())),
        Some(LoginSecret::Token(token)) => Some(format!("token {}", token.reveal())),
        None => None,
    }
}

fn auth(text: &str) -> String {
    STANDARD.encode(text)
}

#[test]
fn the_longest_prefix_of_a_repository_wins() {
    let text = format!(
        r#"{{"auths":{{"r.lan":{{"auth":"{}"}},"r.lan/team":{{"auth":"{}"}},"r.lan/team/app":{{"auth":"{}"}},"other":{{}}}}}}"#,
        auth("h:1"),
        auth("t:2"),
        auth("a:3:x")
    );
    let file = file(&text);
    assert_eq!(found(&file, "r.lan", "team/app").as_deref(), Some("a:3:x"));
    assert_eq!(found(&file, "r.lan", "team/db").as_deref(), Some("t:2"));
    assert_eq!(found(&file, "r.lan", "teams").as_deref(), Some("h:1"));
    assert_eq!(found(&file, "r.lan:5000", "team/app"), None);
    assert_eq!(found(&file, "other", "team/app"), None);
}

#[test]
fn dockers_own_registry_is_found_under_every_name_it_has() {
    for key in [
        "https://index.docker.io/v1/",
        "index.docker.io",
        "docker.io",
        "registry-1.docker.io",
        "http://index.docker.io/v1",
    ] {
        let file = file(&format!(r#"{{"auths":{{"{key}":{{"identitytoken":"secret"}}}}}}"#));
        assert_eq!(found(&file, "docker.io", "library/app").as_deref(), Some("identity secret"), "{key}");
    }
}

#[test]
fn a_broken_file_never_shows_what_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("auth.json");
    fs::write(&path, r#"{"auths":{"r.lan":{"auth":"c2VjcmV0OnNlY3JldA==}}"#).unwrap();
    let error = AuthFile::read(&path).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("auth.json") && !error.contains("c2Vj"), "{error}");
}

#[test]
fn login_keeps_what_it_does_not_know_and_logout_takes_only_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/config.json");
    AuthFile::store(&path, "docker.io", "me", &Secret::new("pw"), LoginTransport::Tls).unwrap();
    AuthFile::store(&path, "r.lan:5000", "you", &Secret::new("p:w"), LoginTransport::Tls).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(HUB_KEY));
    text = text.replacen('{', r#"{"psFormat":"table","#, 1);
    fs::write(&path, text).unwrap();
    assert!(AuthFile::remove(&path, "docker.io").unwrap());
    assert!(!AuthFile::remove(&path, "docker.io").unwrap());
    let file = AuthFile::read(&path).unwrap().unwrap();
    assert_eq!(found(&file, "r.lan:5000", "a").as_deref(), Some("you:p:w"));
    assert_eq!(file.document["psFormat"], "table");
}

#[test]
fn a_login_over_plain_http_is_marked_until_one_over_tls() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    for (transport, over_http) in
        [(LoginTransport::Tls, false), (LoginTransport::PlainHttp, true), (LoginTransport::Tls, false)]
    {
        AuthFile::store(&path, "r.lan:5000", "you", &Secret::new("pw"), transport).unwrap();
        let file = AuthFile::read(&path).unwrap().unwrap();
        assert_eq!(file.is_over_http("r.lan:5000"), over_http);
        assert!(!file.is_over_http("r.lan"));
        assert_eq!(found(&file, "r.lan:5000", "a").as_deref(), Some("you:pw"));
        assert_eq!(file.document["auths"].as_object().unwrap().len(), 1);
    }
}
