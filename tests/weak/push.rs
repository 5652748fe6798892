//! Pushing over a bad line.

use super::support::fault_proxy::{End, Fault, Ill, Line};
use super::support::registry::{Auth, Bearer};
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
    assert!(out.stderr.contains("resuming the upload at"), "{}", out.stderr);
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

#[test]
fn a_registry_that_forgets_what_is_cut_gets_chunks_that_the_line_lets_through() {
    let push = Push::new(4 << 20);
    push.to.faults().forget_uploads = true;
    push.line.is(Line { cut_every: Some((400_000, End::Fin)), ..Line::default() });
    good(push.push(&["--retry", "9"]));
    push.is_there();
    let patches = push.line.seen("PATCH", "/uploads/");
    let (kept, lost) = patches.iter().partition::<Vec<_>, _>(|seen| seen.status == 202);
    assert_eq!(kept.iter().map(|seen| seen.up).sum::<u64>(), push.source.size, "{patches:?}");
    assert!(lost.len() <= 3, "{patches:?}");
}

#[test]
fn a_blob_that_is_finished_and_those_after_a_forgotten_one_are_sent_once() {
    let (from, dir) = (Double::start(), TempDir::new().unwrap());
    let layers: Vec<Vec<u8>> = [4 << 20, 3 << 20, 2 << 20].iter().map(|size| noise(*size, *size as usize)).collect();
    let image = from.image("app", "1", &layers.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let src = format!("oci:{}", dir.path().join("layout").display());
    good(imgmv(&["copy", &format!("{}/app:1", from.host()), &src, "-q"], None));
    let to = Double::start();
    to.faults().forget_uploads = true;
    let line = Proxy::start(&to.host());
    // The second of three is cut.
    line.does(Fault::once("PUT", "/uploads/upload-2", Ill::CutUpload { after: 2 * MIB, end: End::Fin }));
    let dst = format!("{}/app:1", line.host());
    good(imgmv(&["copy", &src, &dst, "-q", "--jobs", "1", "--compress", "keep"], None));
    assert_eq!(to.tag("app", "1"), Some(image.digest()));
    let first = line.seen("", "/uploads/upload-1");
    // The smallest goes first.
    assert_eq!(first.iter().map(|seen| seen.up).sum::<u64>(), 2 * MIB, "{first:?}");
    // The third goes in chunks from the beginning.
    assert!(line.seen("PATCH", "/uploads/upload-4").len() > 1);
    assert!(line.seen("", "/uploads/upload-4").iter().all(|seen| matches!(seen.status, 201 | 202)));
}

#[test]
fn chunks_are_as_long_as_the_registry_wants_them() {
    let push = Push::new(9 << 20);
    let mut faults = push.to.faults();
    (faults.forget_uploads, faults.chunk_min) = (true, Some(2 * MIB));
    drop(faults);
    push.line.does(Fault::once("PUT", "/uploads/", Ill::CutUpload { after: MIB, end: End::Fin }));
    good(push.push(&[]));
    push.is_there();
    let mut sizes: Vec<u64> = push.line.seen("PATCH", "/uploads/").iter().map(|seen| seen.up).collect();
    let last = sizes.pop().unwrap();
    assert!(sizes.iter().all(|size| *size >= 2 * MIB) && last == MIB, "{sizes:?} {last}");
}

#[test]
fn finished_chunks_are_kept_for_the_next_run() {
    for locations in [None, Some(String::new())] {
        let push = Push::new(9 << 20);
        let mut faults = push.to.faults();
        // Absolute ones lead past the line.
        faults.locations = locations.clone().map(|_| push.line.base());
        faults.forget_uploads = true;
        drop(faults);
        push.line.does(Fault::once("PUT", "/uploads/", Ill::CutUpload { after: 4 * MIB, end: End::Fin }));
        push.line.does(Fault::times(4, "PATCH", "/uploads/", Ill::Pass));
        push.line.does(Fault::times(99, "PATCH", "/uploads/", Ill::Status { status: 503, retry_after: None }));
        let out = push.push(&["--retry", "1"]);
        assert_eq!(out.status.code(), Some(6), "{}", out.stderr);
        let kept: u64 = push.line.seen("PATCH", "").iter().map(|seen| seen.up).sum();
        push.line.forget();
        let out = good(push.push(&[]));
        push.is_there();
        assert!(out.stderr.contains("resuming the upload at"), "{}", out.stderr);
        assert_eq!(push.line.seen("PATCH", "").iter().map(|seen| seen.up).sum::<u64>(), push.source.size - kept);
    }
}

#[test]
fn a_blob_whose_answer_was_lost_is_not_sent_again() {
    let push = Push::new(3 << 20);
    push.to.faults().lose_answers = 2;
    // Asked at once, the registry does not know it yet.
    push.line.does(Fault::once("HEAD", "", Ill::Pass).of(&push.source.layer()));
    let unknown = Ill::Status { status: 404, retry_after: None };
    push.line.does(Fault::once("HEAD", "", unknown).of(&push.source.layer()));
    good(push.push(&[]));
    push.is_there();
    assert!(push.sent() <= push.source.size + 10_000, "{}", push.sent());
}

#[test]
fn a_chunk_that_the_registry_wants_elsewhere_is_sent_there() {
    let push = Push::new(9 << 20);
    push.to.faults().forget_uploads = true;
    push.line.does(Fault::once("PUT", "/uploads/", Ill::CutUpload { after: 4 * MIB, end: End::Fin }));
    push.line.does(Fault::times(2, "PATCH", "/uploads/", Ill::Pass));
    push.line.does(Fault::once("PATCH", "/uploads/", Ill::Status { status: 416, retry_after: None }));
    good(push.push(&[]));
    push.is_there();
    let kept = push.line.seen("PATCH", "").iter().filter(|seen| seen.status == 202).map(|seen| seen.up).sum::<u64>();
    assert_eq!(kept, push.source.size);
}

#[test]
fn a_token_that_expires_between_chunks_is_renewed() {
    let push = Push::new(9 << 20);
    push.to.faults().forget_uploads = true;
    push.to.faults().auth = Auth::Bearer(Bearer::default());
    push.line.does(Fault::once("PUT", "/uploads/", Ill::CutUpload { after: 4 * MIB, end: End::Fin }));
    push.line.does(Fault::once("PATCH", "/uploads/", Ill::Pass));
    push.line.does(Fault::once("PATCH", "/uploads/", Ill::Expired));
    push.line.does(Fault::times(3, "PATCH", "/uploads/", Ill::Pass));
    push.line.does(Fault::once("PATCH", "/uploads/", Ill::Expired));
    good(push.push(&[]));
    push.is_there();
    let refused = push.line.seen("PATCH", "").iter().filter(|seen| seen.status == 401).count();
    assert_eq!(refused, 2);
}

/// docker-save's old form: one raw layer, the manifest last.
fn saved(layer: &[u8]) -> Vec<u8> {
    let hex = |bytes: &[u8]| Digest::of(bytes).hex();
    let add = |tar: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    let mut inner = tar::Builder::new(Vec::new());
    add(&mut inner, "noise", layer);
    let layer = inner.into_inner().unwrap();
    let rootfs = format!(r#"{{"type":"layers","diff_ids":["sha256:{}"]}}"#, hex(&layer));
    let config = format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{rootfs}}}"#);
    let name = format!("{}.json", hex(config.as_bytes()));
    let manifest = format!(r#"[{{"Config":"{name}","RepoTags":["app:1"],"Layers":["one/layer.tar"]}}]"#);
    let mut outer = tar::Builder::new(Vec::new());
    add(&mut outer, "one/layer.tar", &layer);
    add(&mut outer, &name, config.as_bytes());
    add(&mut outer, "manifest.json", manifest.as_bytes());
    outer.into_inner().unwrap()
}

#[test]
fn what_comes_through_a_pipe_is_gone_on_with_where_the_registry_stands() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("saved.tar");
    std::fs::write(&file, saved(&noise(5, 20 << 20))).unwrap();
    for options in [&["--compress", "keep"][..], &[]] {
        let to = Double::start();
        let line = Proxy::start(&to.host());
        line.does(Fault::once("PATCH", "/uploads/", Ill::CutUpload { after: 12 * MIB, end: End::Fin }));
        line.does(Fault::once("PATCH", "/uploads/", Ill::CutUpload { after: 2 * MIB, end: End::Fin }));
        let dst = format!("{}/app:1", line.host());
        good(imgmv(&[&["copy", "-", &dst], options].concat(), Some(&file)));
        assert!(to.tag("app", "1").is_some());
        assert_eq!(line.seen("PATCH", "/uploads/").len(), 3, "{options:?}");
    }
    // What a registry forgets is more than can be sent again.
    let to = Double::start();
    to.faults().forget_uploads = true;
    let line = Proxy::start(&to.host());
    line.does(Fault::once("PATCH", "/uploads/", Ill::CutUpload { after: 16 * MIB, end: End::Fin }));
    let out = imgmv(&["copy", "-", &format!("{}/app:1", line.host()), "--compress", "keep"], Some(&file));
    assert_eq!(out.status.code(), Some(6), "{}", out.stderr);
    assert!(out.stderr.contains("save it to a file first"), "{}", out.stderr);
    // From a file it can be packed again.
    line.does(Fault::once("PATCH", "/uploads/", Ill::CutUpload { after: 16 * MIB, end: End::Fin }));
    good(imgmv(&["copy", file.to_str().unwrap(), &format!("{}/app:1", line.host())], None));
    assert!(to.tag("app", "1").is_some());
}

#[test]
fn a_token_that_has_expired_when_a_blob_is_sent_is_renewed() {
    let push = Push::new(9 << 20);
    push.to.faults().auth = Auth::Bearer(Bearer::default());
    for blob in push.source.image.blobs() {
        push.line.does(Fault::once("PUT", "", Ill::Expired).of(&blob.digest.hex()));
    }
    good(push.push(&[]));
    push.is_there();
}
