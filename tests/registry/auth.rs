//! Who is shown what: challenges, tokens, credentials.

use super::support::registry::{Auth, Bearer, Double};
use super::support::web::{Body, Request, Response, Web};
use super::*;
use imgmv::Kind;
use imgmv::internals::registry::{Credentials, Secret};

const PASSWORD: &str = "hunter2-secret";

fn known() -> Access {
    let password = Secret::new(PASSWORD);
    Access { credentials: Credentials::Password { user: "me".into(), password }, ..access() }
}

fn user() -> Option<(String, String)> {
    Some(("me".into(), PASSWORD.into()))
}

fn bearer(double: &Double, bearer: Bearer) {
    double.faults().auth = Auth::Bearer(bearer);
}

fn authorizations(requests: &[Request]) -> Vec<&str> {
    requests.iter().filter_map(|request| request.header("authorization")).collect()
}

#[test]
fn a_token_is_fetched_once_and_carried_from_then_on() {
    let double = Double::start();
    double.image("team/app", "1", &[b"one", b"two"]);
    bearer(&double, Bearer { user: user(), ..Bearer::default() });
    super::pull(&reach(&double.host(), known()).repository("team/app"), "1").unwrap();
    // The question that taught it, the token, and the four requests of a pull.
    assert_eq!(double.requests().len(), 6);
    assert_eq!(double.count("GET", "/token"), 1);
    let token = &double.requests()[1];
    assert_eq!(token.parameter("scope").as_deref(), Some("repository:team/app:pull"));
    assert_eq!(token.parameter("service").as_deref(), Some("double"));
}

#[test]
fn the_bearer_challenge_is_found_among_others_in_one_header() {
    let double = Double::start();
    double.image("app", "1", &[]);
    bearer(&double, Bearer { before: "Negotiate, Basic realm=\"a, b\", ".into(), ..Bearer::default() });
    super::pull(&store(&double, "app"), "1").unwrap();
    assert_eq!(double.count("GET", "/token"), 1);
}

#[test]
fn a_token_that_expires_midway_is_renewed() {
    let double = Double::start();
    double.image("app", "1", &[b"one", b"two", b"three"]);
    bearer(&double, Bearer { user: user(), uses: 2, ..Bearer::default() });
    super::pull(&reach(&double.host(), known()).repository("app"), "1").unwrap();
    assert_eq!(double.count("GET", "/token"), 3);
}

#[test]
fn a_push_takes_a_token_that_may_push_and_a_mount_one_for_both_repositories() {
    let double = Double::start();
    let image = double.image("team/a", "1", &[b"one"]);
    bearer(&double, Bearer { user: user(), ..Bearer::default() });
    let registry = reach(&double.host(), known());
    send(registry.repository("team/a"), &registry.sink("team/b"), "1").unwrap();
    assert_eq!(double.tag("team/b", "1"), Some(image.digest()));
    let scopes: Vec<String> = double
        .requests()
        .iter()
        .filter(|r| r.path == "/token")
        .map(|r| {
            let pairs = url::form_urlencoded::parse(r.query.as_bytes());
            pairs.filter(|(name, _)| name == "scope").map(|(_, scope)| scope.into_owned()).collect::<Vec<_>>().join(" ")
        })
        .collect();
    assert!(scopes.iter().any(|scope| scope == "repository:team/b:pull,push repository:team/a:pull"), "{scopes:?}");
}

#[test]
fn an_identity_token_is_exchanged_by_post_and_by_get_where_post_is_not_known() {
    for post in [true, false] {
        let double = Double::start();
        double.image("app", "1", &[]);
        bearer(&double, Bearer { identity: Some("identity-secret".into()), post, ..Bearer::default() });
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        std::fs::write(&file, format!(r#"{{"auths":{{"{}":{{"identitytoken":"identity-secret"}}}}}}"#, double.host()))
            .unwrap();
        let access = Access { authfile: Some(file), ..access() };
        super::pull(&reach(&double.host(), access).repository("app"), "1").unwrap();
        assert_eq!((double.count("POST", "/token"), double.count("GET", "/token")), (1, usize::from(!post)));
        // The identity token goes to the token service alone.
        let shown: Vec<Request> = double.requests().into_iter().filter(|r| r.path != "/token").collect();
        assert!(authorizations(&shown).iter().all(|value| value.starts_with("Bearer token-")));
    }
}

#[test]
fn basic_credentials_come_from_the_file_by_the_longest_prefix() {
    let double = Double::start();
    double.image("team/app", "1", &[]);
    double.faults().auth = Auth::Basic { user: "me".into(), password: PASSWORD.into() };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("auth.json");
    let auth = |text: String| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    let (host, wrong, right) = (double.host(), auth("me:wrong".into()), auth(format!("me:{PASSWORD}")));
    std::fs::write(
        &file,
        format!(r#"{{"auths":{{"{host}":{{"auth":"{wrong}"}},"{host}/team":{{"auth":"{right}"}}}}}}"#),
    )
    .unwrap();
    let access = Access { authfile: Some(file), ..access() };
    super::pull(&reach(&host, access).repository("team/app"), "1").unwrap();
    assert_eq!(double.requests().len(), 3);
}

#[test]
fn a_broken_file_of_credentials_does_not_stop_a_public_pull() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("auth.json");
    std::fs::write(&file, "{ \"auths\": secret").unwrap();
    let pull_with = |auth: Auth| {
        let double = Double::start();
        double.image("app", "1", &[]);
        double.faults().auth = auth;
        let heard = Arc::new(Heard::default());
        let access = Access { authfile: Some(file.clone()), ..access() };
        let registry = Registry::new(&double.host(), access, heard.clone(), Cancel::default()).unwrap();
        (super::pull(&registry.repository("app"), "1"), heard.all())
    };
    // Nobody asks: the file is not even read.
    let (done, heard) = pull_with(Auth::Open);
    assert!(done.is_ok() && heard.is_empty(), "{heard}");
    // Tokens for everybody: said, and gone on.
    let (done, heard) = pull_with(Auth::Bearer(Bearer::default()));
    assert!(done.is_ok() && heard.contains("auth.json"), "{heard}");
    // Only for those who are known: the error names the file.
    let (done, heard) = pull_with(Auth::Basic { user: "me".into(), password: PASSWORD.into() });
    let error = done.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.to_string().contains("auth.json") && error.to_string().contains("imgmv login"), "{error}");
    assert!(!error.to_string().contains("secret") && !heard.contains("secret"));
}

#[test]
fn refusals_say_what_to_do_and_never_show_a_secret() {
    let quoting = format!(r#"{{"errors":[{{"code":"DENIED","message":"no {PASSWORD} here"}}]}}"#);
    for auth in [
        Auth::Basic { user: "me".into(), password: "other".into() },
        Auth::Bearer(Bearer { user: Some(("me".into(), "other".into())), ..Bearer::default() }),
    ] {
        for access in [access(), known()] {
            let double = Double::start();
            double.image("app", "1", &[]);
            double.faults().auth = auth.clone();
            let heard = Arc::new(Heard::default());
            let registry = Registry::new(&double.host(), access, heard.clone(), Cancel::default()).unwrap();
            let error = super::pull(&registry.repository("app"), "1").unwrap_err();
            assert_eq!(error.kind(), Kind::Denied, "{error}");
            assert!(error.to_string().contains(&format!("imgmv login {}", double.host())), "{error}");
            assert!(!format!("{error} {error:?} {}", heard.all()).contains(PASSWORD), "{error}");
        }
    }
    let double = Double::start();
    double.faults().auth = Auth::Basic { user: "me".into(), password: PASSWORD.into() };
    double.image("app", "1", &[]);
    let registry = reach(&double.host(), known());
    super::pull(&registry.repository("app"), "1").unwrap();
    double.faults().stumbles = vec![support::registry::Stumble {
        body: quoting,
        ..support::registry::Stumble::new("GET", "/manifests/", 403, 9)
    }];
    let error = super::pull(&registry.repository("app"), "1").unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(!error.to_string().contains(PASSWORD) && error.to_string().contains("no … here"), "{error}");
    assert!(!format!("{:?}", known()).contains(PASSWORD));
}

/// A server that notes what it is shown and answers every request alike.
fn thief(response: fn() -> Response) -> (Web, Arc<Mutex<Vec<Request>>>) {
    let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
    let notes = seen.clone();
    let web = Web::start(
        None,
        Arc::new(move |request, body| {
            let mut text = String::new();
            let _ = body.read_to_string(&mut text);
            request.headers.push(("body".into(), text));
            notes.lock().unwrap().push(request.clone());
            Some(response())
        }),
    );
    (web, seen)
}

fn shows_a_secret(seen: &Mutex<Vec<Request>>) -> bool {
    format!("{:?}", seen.lock().unwrap()).to_lowercase().contains("authorization") || {
        let text = format!("{:?}", seen.lock().unwrap());
        text.contains(PASSWORD) || text.contains("token-")
    }
}

#[test]
fn a_token_service_elsewhere_is_asked_without_the_credentials() {
    let (web, seen) = thief(|| Response::json(200, r#"{"token":"worthless"}"#));
    let double = Double::start();
    double.image("app", "1", &[]);
    // Another host name for the same machine: as far from 127.0.0.1 as evil.example is.
    let realm = format!("http://localhost:{}/token", web.address.port());
    bearer(&double, Bearer { realm: Some(realm), user: user(), ..Bearer::default() });
    let heard = Arc::new(Heard::default());
    let registry = Registry::new(&double.host(), known(), heard.clone(), Cancel::default()).unwrap();
    let error = super::pull(&registry.repository("app"), "1").unwrap_err();
    assert_eq!((error.kind(), seen.lock().unwrap().len()), (Kind::Denied, 1));
    assert!(!shows_a_secret(&seen) && heard.all().contains("localhost"), "{}", heard.all());
}

#[test]
fn a_redirect_to_another_port_carries_no_authorization() {
    let (from, storage) = (Double::start(), Double::start());
    let image = from.image("app", "1", &[b"layer"]);
    storage.put_blob("app", b"layer");
    storage.put_blob("app", support::registry::config());
    from.faults().redirect_blobs = Some(storage.base());
    for auth in [
        Auth::Basic { user: "me".into(), password: PASSWORD.into() },
        Auth::Bearer(Bearer { user: user(), ..Bearer::default() }),
    ] {
        from.faults().auth = auth;
        storage.forget_requests();
        assert_eq!(super::pull(&reach(&from.host(), known()).repository("app"), "1").unwrap().digest(), image.digest());
        assert_eq!((storage.requests().len(), authorizations(&storage.requests()).len()), (2, 0));
    }
}

#[test]
fn an_upload_location_on_another_port_gets_no_authorization() {
    let (web, seen) = thief(|| Response::new(201).body(Body::None));
    let (from, to) = (Double::start(), Double::start());
    from.image("app", "1", &[b"layer", &noise(1, 2 << 20)]);
    let mut faults = to.faults();
    faults.auth = Auth::Basic { user: "me".into(), password: PASSWORD.into() };
    faults.locations = Some(format!("http://{}", web.address));
    drop(faults);
    let _ = send(store(&from, "app"), &reach(&to.host(), known()).sink("app"), "1");
    assert!(!seen.lock().unwrap().is_empty() && !shows_a_secret(&seen));
}

#[test]
fn a_storage_host_that_asks_for_credentials_gets_none() {
    let (web, seen) = thief(|| Response::new(401).with("WWW-Authenticate", "Basic realm=x"));
    let double = Double::start();
    double.image("app", "1", &[b"layer"]);
    double.faults().redirect_blobs = Some(format!("http://{}", web.address));
    let error = super::pull(&reach(&double.host(), known()).repository("app"), "1").unwrap_err();
    // The registry is asked for another address three times; what the storage says is not the registry's word.
    assert_eq!((error.kind(), seen.lock().unwrap().len()), (Kind::Network, 4));
    assert!(!shows_a_secret(&seen));
}

#[test]
fn a_token_services_redirect_does_not_take_the_password_along() {
    let (web, seen) = thief(|| Response::json(200, r#"{"token":"worthless"}"#));
    let double = Double::start();
    double.image("app", "1", &[]);
    bearer(&double, Bearer { user: user(), ..Bearer::default() });
    double.faults().redirect_token = Some(format!("http://{}/token", web.address));
    let _ = super::pull(&reach(&double.host(), known()).repository("app"), "1");
    assert!(!seen.lock().unwrap().is_empty() && !shows_a_secret(&seen));
}
