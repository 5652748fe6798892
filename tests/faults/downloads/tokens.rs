//! Tokens that end early, and challenges that cannot be read.

use super::support::registry::{Auth, Bearer};
use super::*;
use imgmv::{Kind, Name, Naming, Options, Source, copy};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Copies `app:1` between two registries, several blobs at once.
fn send(from: &Double, to: &Double, lanes: usize) -> imgmv::Result<()> {
    let reach = |host: &str| {
        Registry::new(host, Access { parallel_blobs: lanes, ..access() }, Arc::new(Silent), Cancel::default()).unwrap()
    };
    let store = reach(&from.host()).repository("app");
    let sink = reach(&to.host()).sink("app");
    let options = Options {
        selectors: vec![Selector::Name("1".into())],
        naming: Naming::Names(vec![Name::new("1")?]),
        ..Options::default()
    };
    copy(Source::Store(Arc::new(store)), &sink, &options, None, &Silent, &Cancel::default()).map(drop)
}

#[test]
fn tokens_that_are_revoked_after_a_few_uses_are_renewed_in_every_lane() {
    let layers: Vec<Vec<u8>> = (0..24).map(|nth| noise(nth, 4000)).chain([noise(99, 3 << 20)]).collect();
    for uses in [1, 2, 3] {
        let (from, to) = (Double::start(), Double::start());
        let image = from.image("app", "1", &layers.iter().map(Vec::as_slice).collect::<Vec<_>>());
        for double in [&from, &to] {
            double.faults().auth = Auth::Bearer(Bearer { uses, ..Bearer::default() });
        }
        send(&from, &to, 12).unwrap_or_else(|error| panic!("{uses} uses: {error}"));
        assert_eq!(to.tag("app", "1"), Some(image.digest()), "{uses} uses");
    }
}

#[test]
fn a_token_that_is_never_any_good_is_not_renewed_for_ever() {
    // The token service gives tokens that are good for nothing.
    for lanes in [1, 8] {
        let double = Double::start();
        let layers: Vec<Vec<u8>> = (0..8).map(|nth| noise(nth, 100)).collect();
        let image = double.image("app", "1", &layers.iter().map(Vec::as_slice).collect::<Vec<_>>());
        double.faults().auth = Auth::Bearer(Bearer { uses: 0, ..Bearer::default() });
        let store = registry(&double.host()).repository("app");
        std::thread::scope(|scope| {
            for lane in 0..lanes {
                let (store, blob) = (&store, &image.layers()[lane]);
                scope.spawn(move || assert_eq!(read(store, blob, 0).unwrap_err().kind(), Kind::Denied));
            }
        });
        let most = if lanes == 1 { 1 } else { 4 * lanes };
        assert!(double.count("GET", "/token") <= most, "{lanes}: {}", double.count("GET", "/token"));
    }
}

#[test]
fn a_challenge_that_cannot_be_read_is_said_as_such_at_once() {
    let unreadable = "WWW-Authenticate of the 401 response is invalid";
    let long = "x".repeat(60_000);
    for (challenge, words) in [
        (format!("Bearer realm=\"http://127.0.0.1:9/{long}"), unreadable),
        (format!("Bearer realm=\"http://127.0.0.1:9/{long}\",service=\"s\""), unreadable),
        (format!("Bearer realm=\"http://127.0.0.1:9/{}\"", &long[..5000]), unreadable),
        ("Bearer realm=\"http://127.0.0.1:9/token".to_owned(), unreadable),
        ("Bearer service=\"s\"".to_owned(), unreadable),
        ("Bearer".to_owned(), unreadable),
        ("=,=".to_owned(), unreadable),
        ("Bearer realm=\"\u{e9}\"".to_owned(), unreadable),
        ("Negotiate, NTLM".to_owned(), "requires negotiate, ntlm; imgmv supports Basic and Bearer"),
    ] {
        let begin: String = challenge.chars().take(60).collect();
        let count = Arc::new(AtomicUsize::new(0));
        let (own, sent) = (count.clone(), challenge);
        let (web, _) = noting(move |_, _| {
            own.fetch_add(1, Ordering::SeqCst);
            Response::new(401).with("WWW-Authenticate", &sent)
        });
        let host = web.address.to_string();
        let error = registry(&host).repository("app").roots(&[Selector::Name("1".into())]).unwrap_err();
        let text = error.to_string();
        assert_eq!((error.kind(), count.load(Ordering::SeqCst)), (Kind::Denied, 1), "{begin}: {text}");
        assert!(text.contains(words) && text.contains(&host) && text.len() < 400, "{begin}: {text}");
    }
}
