//! Pulling: each row of what goes wrong on a line, and what it costs.

use super::support::fault_proxy::{End, Fault, Ill, Line};
use super::support::registry::{Auth, Bearer, Ranges};
use super::*;
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// What is lost with a connection, in buffers of both sides and the proxy.
const LOST: u64 = 1 << 20;

#[test]
fn a_connection_that_ends_midway_is_taken_up_at_its_byte() {
    for end in [End::Fin, End::Rst] {
        let scene = Scene::new(9 << 20);
        scene.line.does(Fault::once("GET", "/blobs/sha256", Ill::Cut { after: 4 * MIB, end }).of(&scene.layer()));
        let out = good(scene.pull(&[]));
        scene.is_there();
        let asked = scene.asked();
        assert_eq!(asked.len(), 2, "{end:?} {asked:?}");
        // A reset throws away what has arrived and was not read yet: on a busy machine that may be all of it.
        match end {
            End::Fin => assert_eq!(asked[1].from(), 4 * MIB, "{asked:?}"),
            End::Rst => assert_eq!(asked[1].from() + asked[1].down, scene.size, "{asked:?}"),
        }
        assert!(out.stderr.contains("1 retry"), "{}", out.stderr);
    }
}

#[test]
fn a_line_that_is_cut_every_400_kb_delivers_63_mb_by_default_settings() {
    let scene = Scene::new(63 << 20);
    scene.line.is(Line { cut_every: Some((400_000, End::Fin)), ..Line::default() });
    good(scene.pull(&[]));
    scene.is_there();
    let asked = scene.asked();
    assert!(asked.len() >= 160 && asked.len() <= 180, "{}", asked.len());
    assert!(scene.line.traffic().down < scene.size + scene.size / 20, "{:?}", scene.line.traffic());
}

#[test]
fn a_line_that_is_reset_every_400_kb_delivers() {
    let scene = Scene::new(9 << 20);
    // The system throws away what had arrived and was not read yet: how much that is, is a matter of luck.
    scene.line.is(Line { cut_every: Some((400_000, End::Rst)), ..Line::default() });
    good(scene.pull(&[]));
    scene.is_there();
}

#[test]
fn a_line_without_progress_ends_after_the_tries() {
    let scene = Scene::new(2 << 20);
    scene.line.does(Fault::times(1000, "GET", "/blobs/", Ill::Cut { after: 0, end: End::Fin }).of(&scene.layer()));
    let out = scene.pull(&["--retry", "2"]);
    assert_eq!(out.status.code(), Some(6), "{}", out.stderr);
    assert!(out.stderr.contains("tried 3 times"), "{}", out.stderr);
    assert_eq!(scene.asked().len(), 3);
}

#[test]
fn a_stall_is_a_broken_connection() {
    let scene = Scene::new(9 << 20);
    scene.line.does(Fault::once("GET", "/blobs/", Ill::Stall { after: 4 * MIB }).of(&scene.layer()));
    good(scene.pull(&["--timeout", "1"]));
    scene.is_there();
    let asked = scene.asked();
    // The one that stalls may end after the one that goes on.
    let from: Vec<u64> = asked.iter().map(Seen::from).filter(|from| *from > 0).collect();
    assert_eq!((from, asked.len()), (vec![4 * MIB], 2), "{asked:?}");
}

#[test]
fn refusals_that_pass_are_waited_for_and_said() {
    let past = "Sun, 06 Nov 1994 08:49:37 GMT".to_owned();
    for (status, times, retry_after) in [
        (500, 1, None),
        (503, 3, None),
        (429, 3, Some("0".to_owned())),
        (429, 3, Some(past)),
        (408, 1, None),
        (502, 1, Some("1".to_owned())),
    ] {
        let scene = Scene::new(2 << 20);
        scene.line.does(Fault::times(times, "GET", "/blobs/", Ill::Status { status, retry_after }).of(&scene.layer()));
        let out = good(scene.pull(&[]));
        scene.is_there();
        assert_eq!(scene.asked().len(), times + 1, "{status}");
        assert!(out.stderr.contains(&format!("status {status}")), "{}", out.stderr);
    }
}

#[test]
fn a_registry_that_asks_for_a_days_patience_is_not_given_it() {
    let scene = Scene::new(2 << 20);
    let day = Ill::Status { status: 429, retry_after: Some("86400".to_owned()) };
    scene.line.does(Fault::once("GET", "/blobs/", day).of(&scene.layer()));
    let out = scene.pull(&[]);
    assert_eq!(out.status.code(), Some(6), "{}", out.stderr);
    assert!(out.stderr.contains("asks for a wait of 24 hours"), "{}", out.stderr);
    assert_eq!(scene.asked().len(), 1);
}

#[test]
fn what_retrying_cannot_mend_stops_at_once() {
    for (status, exit) in [(401, 4), (403, 4), (404, 3)] {
        let scene = Scene::new(2 << 20);
        let refused = Ill::Status { status, retry_after: None };
        scene.line.does(Fault::times(1000, "GET", "/blobs/", refused).of(&scene.layer()));
        let out = scene.pull(&[]);
        assert_eq!(out.status.code(), Some(exit), "{status}: {}", out.stderr);
        assert_eq!(scene.asked().len(), 1, "{status}");
    }
}

#[test]
fn a_token_that_expires_midway_is_renewed() {
    let scene = Scene::new(9 << 20);
    scene.double.faults().auth = Auth::Bearer(Bearer::default());
    scene.line.does(Fault::once("GET", "/blobs/", Ill::Cut { after: 4 * MIB, end: End::Fin }).of(&scene.layer()));
    scene.line.does(Fault::once("GET", "/blobs/", Ill::Expired).of(&scene.layer()));
    good(scene.pull(&[]));
    scene.is_there();
    let asked = scene.asked();
    assert_eq!(asked.iter().map(|seen| seen.status).collect::<Vec<_>>(), [200, 401, 206]);
    assert!(asked[2].from() + LOST >= 4 * MIB, "{asked:?}");
}

#[test]
fn a_flipped_bit_is_found_asked_for_once_more_and_then_told() {
    for (part, times, exit) in [("/manifests/", 1, 0), ("/manifests/", 9, 5), ("layer", 1, 0), ("layer", 9, 5)] {
        let scene = Scene::new(2 << 20);
        let fault = Fault::times(times, "GET", part, Ill::Flip { at: 40 });
        scene.line.does(if part == "layer" { fault.of(&scene.layer()) } else { fault });
        let out = scene.pull(&[]);
        assert_eq!(out.status.code(), Some(exit), "{part} {times}: {}", out.stderr);
        match exit {
            0 => scene.is_there(),
            _ => assert!(out.stderr.contains("does not match"), "{}", out.stderr),
        }
        let asked = if part == "layer" { scene.asked() } else { scene.line.seen("GET", part) };
        assert_eq!(asked.len(), 2, "{part} {times}");
        // What was wrong stays nowhere: the next run is right.
        good(scene.line.forget_and(|| scene.pull(&[])));
        scene.is_there();
    }
}

#[test]
fn ranges_that_are_ignored_refused_or_wrong_do_no_harm() {
    for ill in [Ill::RangeIgnored, Ill::RangeRefused, Ill::RangeWrong] {
        let scene = Scene::new(3 << 20);
        let cut = |after| Fault::once("GET", "/blobs/", Ill::Cut { after, end: End::Fin }).of(&scene.layer());
        scene.line.does(cut(MIB));
        scene.line.does(Fault::times(2, "GET", "/blobs/", ill.clone()));
        let out = good(scene.pull(&[]));
        scene.is_there();
        assert!(out.stderr.contains("from its start"), "{}", out.stderr);
        // What was there is read once more, and no third time.
        let down: u64 = scene.asked().iter().map(|seen| seen.down).sum();
        assert!(down <= MIB + scene.size + LOST, "{ill:?} {down}");
    }
}

#[test]
fn a_server_without_ranges_may_break_off_while_it_is_read_again() {
    let scene = Scene::new(3 << 20);
    for after in [2 * MIB, MIB] {
        scene.line.does(Fault::once("GET", "/blobs/", Ill::Cut { after, end: End::Fin }).of(&scene.layer()));
    }
    scene.double.faults().ranges = Ranges::Ignored;
    good(scene.pull(&[]));
    scene.is_there();
}

#[test]
fn a_body_that_is_too_short_is_told_as_such() {
    let scene = Scene::new(3 << 20);
    scene.line.does(Fault::times(9, "GET", "/blobs/", Ill::Short { by: 1000 }).of(&scene.layer()));
    let out = scene.pull(&[]);
    assert_eq!(out.status.code(), Some(5), "{}", out.stderr);
    assert!(out.stderr.contains(&(scene.size - 1000).to_string()), "{}", out.stderr);
}

#[test]
fn a_run_that_gave_up_is_gone_on_with_by_the_next() {
    let scene = Scene::new(9 << 20);
    scene.line.does(Fault::once("GET", "/blobs/", Ill::Cut { after: 5 * MIB, end: End::Fin }).of(&scene.layer()));
    let out = scene.pull(&["--retry", "0"]);
    assert_eq!(out.status.code(), Some(6), "{}", out.stderr);
    let out = good(scene.pull(&["--retry", "0"]));
    scene.is_there();
    assert_eq!(scene.asked()[1].from(), 5 * MIB);
    assert!(out.stderr.contains("5.00 MiB resumed"), "{}", out.stderr);
}

#[test]
fn an_image_over_latency_takes_one_request_a_blob() {
    let scene = Scene::new(3 << 20);
    scene.line.is(Line { latency: Duration::from_millis(30), ..Line::default() });
    good(scene.pull(&["--no-referrers"]));
    scene.is_there();
    assert_eq!(scene.line.seen("", "").len(), 3, "{:?}", scene.line.seen("", ""));
}
