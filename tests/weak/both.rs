//! From registry to registry: either line may be cut, and neither side is asked for, or sent, much of it twice.

use super::support::fault_proxy::{End, Fault, Ill, Line};
use super::support::program::command;
use super::*;

const MIB: u64 = 1 << 20;
/// Between two marks.
const APART: u64 = 5 * MIB;

/// A registry to push to, with its line, and a cache of its own beside the scene that is pulled from.
struct Both {
    from: Scene,
    to: Double,
    line: Proxy,
}

impl Both {
    fn new(size: usize) -> Both {
        let to = Double::start();
        let line = Proxy::start(&to.host());
        Both { from: Scene::new(size), to, line }
    }

    fn copy(&self, options: &[&str]) -> std::process::Output {
        let (src, dst) = (format!("{}/team/app:1", self.from.line.host()), format!("{}/app:1", self.line.host()));
        let mut program = command(env!("CARGO_BIN_EXE_imgmv"));
        program.env("XDG_CACHE_HOME", self.from.dir.path()).args(["copy", &src, &dst]).args(options).output().unwrap()
    }

    /// Bytes of the layer that came down and went up.
    fn moved(&self) -> (u64, u64) {
        let up = self.line.seen("PUT", "/uploads/").iter().map(|seen| seen.up).sum();
        (self.from.asked().iter().map(|seen| seen.down).sum(), up)
    }

    fn forget(&self) {
        self.from.line.forget();
        self.line.forget();
    }

    fn is_there(&self) {
        assert_eq!(self.to.tag("app", "1"), Some(self.from.image.digest()));
        let layer = self.from.layer();
        assert_eq!(Digest::of(&self.to.blob("app", &layer).unwrap()), layer);
    }
}

fn told(out: &std::process::Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn lines_that_are_cut_on_both_sides_deliver() {
    let both = Both::new(9 << 20);
    both.from.line.is(Line { cut_every: Some((400_000, End::Fin)), ..Line::default() });
    both.line.does(Fault::times(3, "PUT", "/uploads/", Ill::CutUpload { after: 2 * MIB, end: End::Fin }));
    let out = both.copy(&[]);
    assert!(out.status.success(), "{}", told(&out));
    both.is_there();
    let (_, up) = both.moved();
    assert!(up <= 9 * MIB + 1000, "{up}");
}

#[test]
fn the_next_run_reads_and_sends_what_the_registry_does_not_have() {
    let both = Both::new(24 << 20);
    both.line.does(Fault::once("PUT", "/uploads/", Ill::CutUpload { after: 18 * MIB, end: End::Fin }));
    let out = both.copy(&["--retry", "0"]);
    assert_eq!(out.status.code(), Some(6), "{}", told(&out));
    both.forget();
    let out = both.copy(&[]);
    assert!(out.status.success(), "{}", told(&out));
    both.is_there();
    let (down, up) = both.moved();
    assert!(up <= 6 * MIB + 1000 && down <= 6 * MIB + APART, "{down} down, {up} up");
    assert!(told(&out).contains("resumed"), "{}", told(&out));
    assert!(!told(&out).contains("retry"), "{}", told(&out));
}

#[test]
fn a_killed_copy_between_registries_is_gone_on_with() {
    let both = Both::new(16 << 20);
    let (src, dst) = (format!("{}/team/app:1", both.from.line.host()), format!("{}/app:1", both.line.host()));
    super::killed::killed_with(&both.line, 10 * MIB, &["copy", &src, &dst, "-q"], both.from.dir.path());
    both.forget();
    let out = both.copy(&[]);
    assert!(out.status.success(), "{}", told(&out));
    both.is_there();
    let (down, up) = both.moved();
    assert!(down <= 14 * MIB && up <= 14 * MIB, "{down} down, {up} up");
}

#[test]
fn what_a_line_has_altered_is_not_gone_on_with() {
    for times in [1, 2] {
        let both = Both::new(9 << 20);
        both.from.line.does(Fault::times(times, "GET", "", Ill::Flip { at: 5000 }).of(&both.from.layer()));
        let out = both.copy(&[]);
        assert_eq!(out.status.code(), Some(if times == 1 { 0 } else { 5 }), "{}", told(&out));
        let again = both.copy(&[]);
        assert!(again.status.success(), "{}", told(&again));
        assert!(!told(&again).contains("does not match"), "{}", told(&again));
        both.is_there();
    }
}
