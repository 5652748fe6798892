//! Tags as they arrive: a long list in little memory, and a list that fails is never a short one.

use super::support::web::{Body, Request, Response, Web};
use super::*;
use imgmv::internals::tag_filter::{TagFilter, TagPattern};
use imgmv::{Kind, TagListing};
use std::collections::HashSet;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

const TAGS_PER_PAGE: usize = 500;
const TAGS: usize = 1_000_000;
/// In KiB.
const MAX_MEMORY: u64 = 64 << 10;

fn page(tags: std::ops::Range<usize>) -> String {
    let tags: Vec<String> = tags.map(|at| format!("\"1.{at}-of-a-nightly-build-with-a-long-name\"")).collect();
    format!(r#"{{"name":"app","tags":[{}]}}"#, tags.join(","))
}

/// A repository whose page `nth` is `answer(nth)`, with the link to the next one for the pages before `pages`.
fn paged(pages: usize, answer: impl Fn(usize) -> Response + Send + Sync + 'static) -> Web {
    let answer = move |request: &mut Request, _: &mut dyn Read| {
        let nth = request.parameter("page").and_then(|page| page.parse().ok()).unwrap_or(0);
        let next = format!("<{}?page={}>; rel=\"next\"", request.path, nth + 1);
        let response = answer(nth);
        let has_link = response.headers.iter().any(|(name, _)| name == "Link");
        Some(if nth + 1 < pages && !has_link { response.with("Link", next) } else { response })
    };
    Web::start(None, Arc::new(answer))
}

fn visit(host: &str) -> imgmv::Result<(Vec<String>, TagListing)> {
    let mut tags = Vec::new();
    let listing = reach(host, access()).repository("app").visit_tags(&mut |tag| {
        tags.push(tag.to_owned());
        Ok(())
    })?;
    Ok((tags, listing))
}

#[test]
fn a_million_tags_pass_a_filter_in_64_mib() {
    filter_in_a_child(TAGS_PER_PAGE);
}

/// docker-registry 2.8 ignores the number of tags that a client requests for a page.
#[test]
fn a_million_tags_in_one_page_pass_a_filter_in_64_mib() {
    filter_in_a_child(TAGS);
}

/// Filters a million tags. The memory is that of a process, which the double must not share.
fn filter_in_a_child(per_page: usize) {
    let web = paged(TAGS / per_page, move |nth| Response::json(200, &page(nth * per_page..(nth + 1) * per_page)));
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "tags::child"])
        .env("TAGS_HOST", web.address.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && said.contains("visited 1000000, kept 100000"), "{said}");
    println!("{said}");
}

#[test]
#[ignore = "run by filter_in_a_child"]
fn child() {
    let Ok(host) = std::env::var("TAGS_HOST") else { return };
    let include = vec![TagPattern::regex(r"^1\.\d*7-").unwrap()];
    let filter = TagFilter { include, ..TagFilter::default() };
    let mut selection = filter.start();
    let listing = reach(&host, access()).repository("app").visit_tags(&mut |tag| selection.add(tag)).unwrap();
    assert!(listing.is_complete());
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim();
    println!("visited {}, kept {}, peak {peak}", selection.added(), selection.matched());
    let peak: u64 = peak.trim_end_matches(" kB").parse().unwrap();
    assert!(peak < MAX_MEMORY, "{peak} KiB");
}

#[test]
fn a_list_that_fails_in_the_middle_is_an_error_and_never_a_short_list() {
    type Page = fn() -> Response;
    let cases: &[(&str, Page, Kind, &str)] = &[
        ("a failure", || Response::new(500), Kind::Network, "500"),
        ("not found", || Response::json(404, r#"{"errors":[]}"#), Kind::NotFound, "app"),
        ("denied", || Response::new(403), Kind::Denied, "app"),
        (
            "a web page",
            || Response::new(200).with("Content-Type", "text/html").body(Body::Bytes(b"<html>".into())),
            Kind::Network,
            "web page",
        ),
        ("an error document", || Response::json(200, r#"{"errors":[]}"#), Kind::Invalid, "not a tag list"),
        ("half a document", || Response::json(200, &page(10..20)[..60]), Kind::Invalid, "not a tag list"),
        ("no document", || Response::json(200, ""), Kind::Invalid, "not a tag list"),
        (
            "a broken connection",
            || {
                let bytes = Arc::new(page(10..20).into_bytes());
                Response::new(200).body(Body::Part { to: bytes.len(), bytes, from: 0, cut: Some(60) })
            },
            Kind::Network,
            "the list of tags of app",
        ),
        (
            "a broken connection in a long page",
            || {
                let bytes = Arc::new(page(10..200_000).into_bytes());
                Response::new(200).body(Body::Part { to: bytes.len(), from: 0, cut: Some(bytes.len() - 9), bytes })
            },
            Kind::Network,
            "the list of tags of app",
        ),
        (
            "half of a long document",
            || Response::json(200, page(10..200_000).trim_end_matches("]}")),
            Kind::Invalid,
            "not a tag list",
        ),
        (
            "a web page after a list",
            || Response::json(200, &(page(10..20) + "<html>")),
            Kind::Invalid,
            "not a tag list",
        ),
        (
            "a page above 256 MiB",
            || Response::json(200, &page(10..20)).with("Content-Length", "268435457"),
            Kind::Invalid,
            "the list of tags of app from 127.0.0.1 is larger than 268435456 bytes",
        ),
        ("a page twice", || Response::json(200, &page(0..10)), Kind::Invalid, "form a loop"),
        (
            "another host",
            || Response::json(200, &page(10..20)).with("Link", "<http://127.0.0.2:1/v2/app/tags/list>; rel=\"next\""),
            Kind::Invalid,
            "another host",
        ),
    ];
    for (what, answer, kind, words) in cases {
        for bad in [1, 2] {
            let answer = *answer;
            // The page that fails is the last one, or one in the middle.
            let web = paged(3, move |nth| match nth {
                0 => Response::json(200, &page(0..10)),
                nth if nth == bad => answer(),
                _ => Response::json(200, &page(20..30)),
            });
            let error = visit(&web.address.to_string()).expect_err(what);
            assert_eq!(error.kind(), *kind, "{what}: {error}");
            assert!(error.to_string().contains(words), "{what}: {error}");
        }
    }
}

#[test]
fn a_page_that_breaks_is_requested_again_and_not_counted_twice() {
    let requests = AtomicUsize::new(0);
    let web = paged(1, move |_| {
        let bytes = Arc::new(page(0..999).replacen('[', r#"["a/b","#, 1).into_bytes());
        let cut = (requests.fetch_add(1, Ordering::SeqCst) == 0).then_some(bytes.len() - 9);
        Response::new(200).body(Body::Part { to: bytes.len(), bytes, from: 0, cut })
    });
    let (tags, listing) = visit(&web.address.to_string()).unwrap();
    assert!(tags.len() > 999, "the first answer was not visited");
    assert_eq!(tags.iter().collect::<HashSet<_>>().len(), 999);
    assert_eq!(listing, TagListing { skipped: 1, may_be_cut: true });
}

#[test]
fn pages_that_lead_back_end_without_a_list() {
    // The third page is the first one again, and so forth.
    let web = paged(usize::MAX, |nth| Response::json(200, &page(nth % 2 * 10..(nth % 2 + 1) * 10)));
    let error = visit(&web.address.to_string()).unwrap_err();
    assert!(error.to_string().contains("form a loop"), "{error}");
    let empty = paged(usize::MAX, |nth| Response::json(200, &page(0..usize::from(nth == 0))));
    let (tags, listing) = visit(&empty.address.to_string()).unwrap();
    assert_eq!((tags.len(), listing), (1, TagListing { skipped: 0, may_be_cut: true }));
}

#[test]
fn entries_that_are_not_tags_make_a_list_incomplete() {
    let web = paged(1, |_| Response::json(200, r#"{"tags":["1",2,"a/b","3"]}"#));
    let (tags, listing) = visit(&web.address.to_string()).unwrap();
    assert_eq!((tags, listing), (vec!["1".into(), "3".into()], TagListing { skipped: 2, may_be_cut: false }));
    assert!(!listing.is_complete());
}

#[test]
fn a_full_last_page_may_be_cut() {
    for (tags, may_be_cut) in [(999, false), (1000, true), (1001, false)] {
        let web = paged(1, move |_| Response::json(200, &page(0..tags)));
        let (found, listing) = visit(&web.address.to_string()).unwrap();
        assert_eq!((found.len(), listing.may_be_cut), (tags, may_be_cut));
    }
}

#[test]
fn an_error_of_the_visitor_ends_the_list() {
    let web = paged(3, |nth| Response::json(200, &page(nth * 10..(nth + 1) * 10)));
    let mut visited = 0;
    let error = reach(&web.address.to_string(), access()).repository("app").visit_tags(&mut |_| {
        visited += 1;
        if visited == 15 { Err(imgmv::Error::usage("enough")) } else { Ok(()) }
    });
    assert_eq!((error.unwrap_err().to_string(), visited), ("enough".to_owned(), 15));
}
