//! docker's own registry behind a bad line, and this project's: what they resume, and what not.

use super::support::fault_proxy::{End, Fault, Ill, Line};
use super::support::program::{Daemon, command, free_port, listens, peer};
use super::support::some_registry::Registry;
use super::*;
use std::process::Stdio;

const MIB: u64 = 1 << 20;

/// docker-registry, a line to it, and an image of two layers in a layout.
struct Real {
    _registry: Registry,
    line: Proxy,
    dir: TempDir,
    image: Manifest,
}

impl Real {
    /// `None` where it is not installed.
    fn start(sizes: [usize; 2]) -> Option<Real> {
        peer("docker-registry")?;
        let dir = TempDir::new().unwrap();
        let from = Double::start();
        let layers = sizes.map(|size| noise(size as u64, size));
        let image = from.image("app", "1", &[&layers[0], &layers[1]]);
        let layout = format!("oci:{}", dir.path().join("layout").display());
        good(imgmv(&["copy", &format!("{}/app:1", from.host()), &layout, "-q"], None));
        let registry = Registry::start(dir.path());
        let line = Proxy::start(&registry.address);
        Some(Real { _registry: registry, line, dir, image })
    }

    fn push(&self, options: &[&str]) -> Output {
        let src = format!("oci:{}", self.dir.path().join("layout").display());
        let dst = format!("{}/app:1", self.line.host());
        imgmv(&[&["copy", &src, &dst, "--compress", "keep", "--jobs", "1"], options].concat(), None)
    }

    fn pull(&self) -> Output {
        let out = self.dir.path().join("out");
        let pulled = imgmv(&["copy", &format!("{}/app:1", self.line.host()), &format!("oci:{}", out.display())], None);
        if pulled.status.success() {
            whole(&out, &self.image);
        }
        pulled
    }

    /// Bytes of `PATCH`es that were taken.
    fn kept(&self) -> u64 {
        self.line.seen("PATCH", "").iter().filter(|seen| seen.status == 202).map(|seen| seen.up).sum()
    }
}

#[test]
fn docker_registry_gets_and_gives_an_image_over_a_line_that_is_cut_every_400_kb() {
    let Some(real) = Real::start([3 << 20, 1_500_000]) else { return };
    real.line.is(Line { cut_every: Some((400_000, End::Fin)), ..Line::default() });
    good(real.push(&["--retry", "9"]));
    assert_eq!(real.kept(), real.image.layers().iter().map(|layer| layer.size).sum::<u64>());
    real.line.forget();
    real.line.is(Line { cut_every: Some((400_000, End::Fin)), ..Line::default() });
    good(real.pull());
    let down = real.line.traffic().down;
    assert!(down < 3 * MIB + 1_500_000 + 100_000, "{down}");
}

#[test]
fn docker_registry_keeps_finished_chunks_for_the_next_run_and_finished_blobs_for_good() {
    let Some(real) = Real::start([4 << 20, 9 << 20]) else { return };
    // The larger one goes first, and is cut inside its request: docker-registry forgets it.
    real.line.does(Fault::once("PUT", "/uploads/", Ill::CutUpload { after: 4 * MIB, end: End::Fin }));
    real.line.does(Fault::times(3, "PATCH", "/uploads/", Ill::Pass));
    real.line.does(Fault::times(99, "PATCH", "/uploads/", Ill::Status { status: 503, retry_after: None }));
    let out = real.push(&["--retry", "1"]);
    assert_eq!(out.status.code(), Some(6), "{}", out.stderr);
    let kept = real.kept();
    assert!(kept > 0);
    // Now the second blob fails, after the first one has gone on where it was.
    real.line.forget();
    real.line.does(Fault::times(99, "PUT", "/manifests/", Ill::Status { status: 503, retry_after: None }));
    let out = real.push(&["--retry", "1"]);
    assert_eq!(out.status.code(), Some(6), "{}", out.stderr);
    assert!(out.stderr.contains("resuming the upload at"), "{}", out.stderr);
    assert_eq!(real.kept(), 9 * MIB - kept);
    real.line.forget();
    good(real.push(&[]));
    assert!(real.line.seen("", "/uploads/").is_empty(), "{:?}", real.line.seen("", "/uploads/"));
    good(real.pull());
}

/// `imgmv serve --writable`, of this project, and where it listens.
fn serve(dir: &Path) -> (Daemon, String) {
    for _ in 0..5 {
        let (port, store) = (free_port(), format!("oci:{}", dir.join("store").display()));
        let mut program = command(env!("CARGO_BIN_EXE_imgmv"));
        program.args(["serve", &store, "--writable", "--listen", &format!("127.0.0.1:{port}"), "-q"]);
        let mut daemon = Daemon(program.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        if listens(port) && matches!(daemon.0.try_wait(), Ok(None)) {
            return (daemon, format!("127.0.0.1:{port}"));
        }
    }
    panic!("imgmv serve does not start");
}

#[test]
fn imgmvs_own_registry_goes_on_with_an_upload_by_the_byte() {
    let scene = Scene::new(9 << 20);
    good(scene.pull(&[]));
    let (_daemon, host) = serve(scene.dir.path());
    let line = Proxy::start(&host);
    let (src, dst) = (format!("oci:{}", scene.layout().display()), format!("{}/app:1", line.host()));
    let push = |options: &[&str]| imgmv(&[&["copy", &src, &dst, "--compress", "keep"], options].concat(), None);
    let sent = || line.seen("", "/uploads/").iter().map(|seen| seen.up).sum::<u64>();
    // Within a run …
    line.does(Fault::times(2, "PUT", "/uploads/", Ill::CutUpload { after: 2 * MIB, end: End::Fin }));
    line.does(Fault::once("PUT", "/uploads/", Ill::CutUpload { after: MIB, end: End::Fin }));
    // … which gives up at the fourth cut, and in the next one.
    line.does(Fault::times(9, "PUT", "/uploads/", Ill::Status { status: 503, retry_after: None }));
    let out = push(&["--retry", "2"]);
    assert_eq!(out.status.code(), Some(6), "{}", out.stderr);
    let first = sent();
    assert!(first >= 5 * MIB, "{first}");
    line.forget();
    let out = good(push(&[]));
    assert!(out.stderr.contains("resuming the upload at"), "{}", out.stderr);
    // What lay in a socket when a line was cut may have been lost.
    assert!(first + sent() <= scene.size + MIB, "{first} and {}", sent());
    let back = scene.dir.path().join("back");
    good(imgmv(&["copy", &format!("{host}/app:1"), &format!("oci:{}", back.display())], None));
    whole(&back, &scene.image);
}
