//! Pushing over a bad line.

use super::support::fault_proxy::{End, Fault, Ill};
use super::*;

const MIB: u64 = 1 << 20;
const LOST: u64 = 2 << 20;

/// A registry to push to, a line to it, and an image in a layout.
struct Push {
    to: Double,
    line: Proxy,
    source: Scene,
}

impl Push {
    fn new(size: usize) -> Push {
        let source = Scene::new(size);
        good(source.pull(&[]));
        let to = Double::start();
        let line = Proxy::start(&to.host());
        Push { to, line, source }
    }

    fn push(&self, options: &[&str]) -> Output {
        let src = format!("oci:{}", self.source.layout().display());
        let dst = format!("{}/team/app:1", self.line.host());
        imgmv(&[&["copy", &src, &dst, "--compress", "keep"], options].concat(), None)
    }

    fn is_there(&self) {
        assert_eq!(self.to.tag("team/app", "1"), Some(self.source.image.digest()));
        let layer = self.to.blob("team/app", &self.source.layer()).unwrap();
        assert_eq!(Digest::of(&layer), self.source.layer());
    }

    fn sent(&self) -> u64 {
        self.line.seen("", "/uploads/").iter().map(|seen| seen.up).sum()
    }
}

#[test]
fn an_upload_that_is_cut_goes_on_at_its_byte() {
    for end in [End::Fin, End::Rst] {
        let push = Push::new(9 << 20);
        push.line.does(Fault::once("PUT", "/uploads/", Ill::CutUpload { after: 4 * MIB, end }));
        good(push.push(&[]));
        push.is_there();
        assert!(push.sent() <= push.source.size + LOST, "{end:?}: {} bytes", push.sent());
    }
}

#[test]
#[ignore = "not steady yet on a loaded machine; weak lines are still being worked on"]
fn a_line_that_is_cut_every_mib_delivers_an_upload_once_over() {
    let push = Push::new(9 << 20);
    push.line.does(Fault::times(1000, "PUT", "/uploads/", Ill::CutUpload { after: MIB, end: End::Fin }));
    good(push.push(&[]));
    push.is_there();
    assert!(push.sent() <= push.source.size + LOST, "{}", push.sent());
}

#[test]
fn an_upload_that_gave_up_is_gone_on_with_by_the_next_run() {
    let push = Push::new(9 << 20);
    push.line.does(Fault::once("PUT", "/uploads/", Ill::CutUpload { after: 5 * MIB, end: End::Fin }));
    let out = push.push(&["--retry", "0"]);
    assert_eq!(out.status.code(), Some(6), "{}", out.stderr);
    push.line.forget();
    let out = good(push.push(&["--retry", "0"]));
    push.is_there();
    assert!(out.stderr.contains("going on there"), "{}", out.stderr);
    assert!(push.sent() <= push.source.size - 5 * MIB + 1000, "{}", push.sent());
    // What is remembered ends with the upload.
    let out = good(imgmv(&["cache"], None));
    assert!(!out.stdout.contains(&push.line.host()), "{}", out.stdout);
}

#[test]
fn an_upload_that_the_registry_forgets_each_time_ends() {
    let push = Push::new(9 << 20);
    let mut faults = push.to.faults();
    (faults.cut_upload, faults.forget_uploads) = (Some((1 << 20, 1000)), true);
    drop(faults);
    let out = push.push(&["--retry", "3"]);
    assert_eq!(out.status.code(), Some(6), "{}", out.stderr);
    assert!(push.sent() <= 12 * MIB, "{}", push.sent());
}

#[test]
fn refusals_that_pass_do_not_end_a_push() {
    for status in [500, 503, 429] {
        let push = Push::new(3 << 20);
        for (method, part) in [("HEAD", "/blobs/"), ("POST", "/uploads/"), ("PUT", "/uploads/"), ("PUT", "/manifests/")]
        {
            push.line.does(Fault::once(method, part, Ill::Status { status, retry_after: Some("0".to_owned()) }));
        }
        good(push.push(&[]));
        push.is_there();
    }
}

#[test]
fn a_cold_push_takes_three_requests_a_layer() {
    let push = Push::new(3 << 20);
    good(push.push(&[]));
    push.is_there();
    assert_eq!(push.to.open_uploads(), 0);
    // One question for the tag, three for the layer and the config each, and the manifest.
    assert_eq!(push.line.seen("", "").len(), 8, "{:#?}", push.line.seen("", ""));
}
