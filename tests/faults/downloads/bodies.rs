//! Blobs that come from expired addresses, too short or too long.

use super::support::program::imgmv;
use super::support::web::Body;
use super::*;
use imgmv::Kind;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a storage host does with one request.
#[derive(Debug, Clone, Copy)]
enum Turn {
    Refuses(u16),
    /// Sends so many bytes, and breaks off.
    Cuts(usize),
    Gives,
}

use Turn::{Cuts, Gives, Refuses};

/// The bytes that a request wants, by its `Range`.
fn part(request: &Request, bytes: &Arc<Vec<u8>>, cut: Option<usize>) -> Response {
    let range = request.header("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let from = range.and_then(|(from, _)| from.parse().ok()).unwrap_or(0);
    let last = range.and_then(|(_, last)| last.parse().ok()).unwrap_or(bytes.len() - 1);
    let body = Body::Part { bytes: bytes.clone(), from, to: last + 1, cut };
    match range {
        Some(_) => {
            let said = format!("bytes {from}-{last}/{}", bytes.len());
            Response::new(206).with("Content-Range", said).body(body)
        }
        None => Response::new(200).body(body),
    }
}

/// A registry whose blobs are at `storage`, called by another name; each redirect has another address.
fn redirecting(storage: &Web) -> (Web, Arc<Mutex<Vec<Request>>>) {
    let port = storage.address.port();
    noting(move |request, nth| {
        let to = format!("http://localhost:{port}{}?address={nth}", request.path);
        Response::new(307).with("Location", to)
    })
}

#[test]
fn an_address_that_has_expired_is_asked_for_again() {
    let bytes = Arc::new(noise(1, 300_000));
    let blob = Descriptor::of(media_type::OCI_LAYER, &bytes);
    let refused = "localhost, to which";
    type Case<'a> = (&'a [Turn], Option<(Kind, &'a str)>);
    let cases: &[Case] = &[
        (&[Refuses(403), Gives], None),
        (&[Refuses(400), Refuses(401), Refuses(410), Gives], None),
        (&[Refuses(404), Gives], None),
        // In the middle of the blob: on at the byte, as often as bytes come between.
        (&[Cuts(100_000), Refuses(403), Refuses(403), Refuses(403), Gives], None),
        (&[Cuts(50_000), Refuses(403), Refuses(403), Cuts(50_000), Refuses(403), Refuses(403), Gives], None),
        (&[Refuses(403); 5], Some((Kind::Network, refused))),
        (&[Refuses(401); 5], Some((Kind::Network, refused))),
        (&[Refuses(404); 5], Some((Kind::NotFound, refused))),
        (
            &[Cuts(50_000), Refuses(403), Refuses(403), Refuses(403), Refuses(403), Gives],
            Some((Kind::Network, refused)),
        ),
    ];
    for (turns, expected) in cases {
        let (stored, turns) = (bytes.clone(), turns.to_vec());
        let (plan, sent) = (turns.clone(), Arc::new(AtomicUsize::new(0)));
        let count = sent.clone();
        let (storage, asked) = noting(move |request, nth| match plan[nth - 1] {
            Refuses(status) => Response::json(status, "{}").with("WWW-Authenticate", "Basic realm=\"storage\""),
            Cuts(after) => {
                count.fetch_add(after, Ordering::SeqCst);
                part(request, &stored, Some(after))
            }
            Gives => {
                let response = part(request, &stored, None);
                if let Body::Part { from, to, .. } = response.body {
                    count.fetch_add(to - from, Ordering::SeqCst);
                }
                response
            }
        });
        let (web, redirects) = redirecting(&storage);
        let got = read(&registry(&web.address.to_string()).repository("app"), &blob, 0);
        let asked = asked.lock().unwrap();
        // Each try has an address of its own from the registry.
        assert_eq!(redirects.lock().unwrap().len(), asked.len(), "{turns:?}");
        match expected {
            None => {
                assert!(got.unwrap_or_else(|error| panic!("{turns:?}: {error}")) == *bytes, "{turns:?}");
                assert_eq!((asked.len(), sent.load(Ordering::SeqCst)), (turns.len(), bytes.len()), "{turns:?}");
            }
            Some((kind, words)) => {
                let error = got.unwrap_err();
                assert_eq!(error.kind(), *kind, "{turns:?}: {error}");
                let text = error.to_string();
                assert!(text.contains(words) && !text.contains("log in") && !text.contains("login"), "{text}");
                assert_eq!(asked.len(), turns.len() - 1, "{turns:?}");
            }
        }
        assert!(asked.iter().all(|request| request.header("authorization").is_none()));
    }
}

#[test]
fn a_manifest_behind_an_expired_address_is_asked_for_again_and_one_that_is_missing_is_not() {
    let image = support::registry::image(&[b"layer"]);
    for (status, good, most) in [(403, true, 2), (401, true, 2), (404, false, 1)] {
        let served = image.clone();
        let (storage, asked) = noting(move |_, nth| match nth {
            1 => Response::new(status),
            _ => Response::new(200)
                .with("Content-Type", &served.descriptor.media_type)
                .body(Body::Bytes(served.bytes.clone())),
        });
        let (web, _) = redirecting(&storage);
        let roots = registry(&web.address.to_string()).repository("app").roots(&[Selector::Name("1".into())]);
        assert_eq!((roots.is_ok(), asked.lock().unwrap().len()), (good, most), "{status}");
        assert!(good || roots.unwrap_err().kind() == Kind::NotFound);
    }
}

#[test]
fn the_ranges_of_a_large_blob_outlive_their_urls_too() {
    // Far away, so that the blob comes in ranges; a URL is given out three times and is good for two requests.
    let far = || std::thread::sleep(Duration::from_millis(40));
    let bytes = Arc::new(noise(2, 20 << 20));
    let blob = Descriptor::of(media_type::OCI_LAYER, &bytes);
    let stored = bytes.clone();
    let uses: Mutex<std::collections::HashMap<String, usize>> = Mutex::default();
    let (storage, asked) = noting(move |request, _| {
        far();
        let mut uses = uses.lock().unwrap();
        let used = uses.entry(request.query.clone()).or_default();
        *used += 1;
        match *used {
            0..=2 => part(request, &stored, None),
            _ => Response::new(403),
        }
    });
    let port = storage.address.port();
    let (web, _) = noting(move |request, nth| {
        far();
        Response::new(307).with("Location", format!("http://localhost:{port}{}?address={}", request.path, nth / 3))
    });
    let store = registry(&web.address.to_string()).repository("app");
    // How far away it is shows in its first answer.
    let _ = store.names();
    assert!(read(&store, &blob, 0).unwrap() == *bytes);
    let asked = asked.lock().unwrap();
    assert!(asked.iter().filter(|request| request.header("range").is_some()).count() >= 10, "not in ranges");
}

#[test]
fn a_blob_that_was_cut_is_completed_once_and_then_refused() {
    let bytes = Arc::new(noise(3, 200_000));
    let blob = Descriptor::of(media_type::OCI_LAYER, &bytes);
    let short = |length: usize| Response::new(200).body(Body::Bytes(noise(3, 200_000)[..length].to_vec()));
    for length in [0, 1, 100_000, 199_999] {
        let stored = bytes.clone();
        let (web, asked) =
            noting(move |request, nth| if nth == 1 { short(length) } else { part(request, &stored, None) });
        let got = read(&registry(&web.address.to_string()).repository("app"), &blob, 0);
        assert!(got.unwrap_or_else(|error| panic!("{length}: {error}")) == *bytes, "{length}");
        let asked = asked.lock().unwrap();
        assert_eq!(asked.len(), 2, "{length}");
        let from = (length > 0).then(|| format!("bytes={length}-"));
        assert_eq!(asked[1].header("range"), from.as_deref(), "{length}");
        // The registry has no more.
        let (web, asked) = noting(move |request, _| match request.header("range") {
            Some(_) => Response::new(416),
            None => short(length),
        });
        let error = read(&registry(&web.address.to_string()).repository("app"), &blob, 0).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{length}: {error}");
        assert!(error.to_string().contains("200000 bytes announced"), "{error}");
        assert!(asked.lock().unwrap().len() <= 3, "{length}");
    }
}

#[test]
fn what_comes_instead_of_a_blob_is_asked_for_once_more() {
    let words = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"too many"}]}"#;
    for (times, good) in [(1, true), (9, false)] {
        for longer in [false, true] {
            let layer = if longer { noise(4, 50) } else { noise(4, 5000) };
            let image = support::registry::image(&[&layer]);
            let (served, digest) = (image.clone(), image.layers()[0].digest.to_string());
            let left = AtomicUsize::new(times);
            let (web, _) = noting(move |request, _| match &request.path {
                path if path.contains(&digest) => {
                    let wrong = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
                    match wrong {
                        Ok(_) => Response::json(200, words),
                        Err(_) => part(request, &Arc::new(layer.clone()), None),
                    }
                }
                path if path.contains("/blobs/") => {
                    Response::new(200).body(Body::Bytes(support::registry::config().to_vec()))
                }
                _ => Response::new(200)
                    .with("Content-Type", &served.descriptor.media_type)
                    .body(Body::Bytes(served.bytes.clone())),
            });
            let dir = tempfile::tempdir().unwrap();
            let layout = format!("oci:{}", dir.path().join("l").display());
            let out = imgmv(&["copy", &format!("{}/app:1", web.address), &layout], None);
            assert_eq!(out.status.code(), Some(if good { 0 } else { 5 }), "{times} {longer}: {}", out.stderr);
        }
    }
}
