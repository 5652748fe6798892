//! Registries and proxies that refuse, limit or forget uploads.

use super::support::fault_proxy::{Fault, Ill, Line, Proxy, Seen, TooLarge};
use super::support::noise::noise;
use super::support::program::{Output, command};
use super::support::registry::Double;
use imgmv::cancel::Cancel;
use imgmv::copy::Source;
use imgmv::copy::{Compress, Options, copy};
use imgmv::image::{Digest, Manifest};
use imgmv::progress::Silent;
use imgmv::transport::layout::LayoutStore;
use imgmv::transport::registry::{Access, Registry};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// A registry to push to, a line to it, an image in a layout, and a cache of this test's own.
struct Push {
    to: Double,
    line: Proxy,
    dir: TempDir,
    image: Manifest,
    /// In bytes, of all blobs.
    size: u64,
}

impl Push {
    fn new(layers: &[usize]) -> Push {
        let (from, dir) = (Double::start(), TempDir::new().unwrap());
        let layers: Vec<Vec<u8>> = layers.iter().enumerate().map(|(nth, size)| noise(nth as u64, *size)).collect();
        let image = from.image("app", "1", &layers.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let to = Double::start();
        let line = Proxy::start(&to.host());
        let size = image.blobs().iter().map(|blob| blob.size).sum();
        let push = Push { to, line, dir, image, size };
        good(push.run(&["copy", &format!("{}/app:1", from.host()), &push.layout(), "-q"]));
        push
    }

    fn layout(&self) -> String {
        format!("oci:{}", self.dir.path().join("layout").display())
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn run(&self, args: &[&str]) -> Output {
        let out = command(env!("CARGO_BIN_EXE_imgmv")).args(args).env("XDG_CACHE_HOME", self.cache()).output().unwrap();
        Output {
            status: out.status,
            stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
            bytes: out.stdout,
            stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
        }
    }

    fn push(&self, options: &[&str]) -> Output {
        let dst = format!("{}/app:1", self.line.host());
        self.run(&[&["copy", &self.layout(), &dst, "--compress", "keep"], options].concat())
    }

    /// The same image to a repository that has nothing of it, in another process.
    fn push_again(&self) -> Output {
        self.run(&["copy", &self.layout(), &format!("{}/again:1", self.line.host()), "--compress", "keep"])
    }

    /// A push that is killed when so many bytes have passed the line.
    fn killed(&self, after: u64, options: &[&str]) {
        let (send, receive) = channel::<Child>();
        self.line.after(after, move || {
            let mut child = receive.recv().unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
        });
        let dst = format!("{}/app:1", self.line.host());
        let mut program = command(env!("CARGO_BIN_EXE_imgmv"));
        let program = program.args([&["copy", &self.layout(), &dst, "--compress", "keep", "-q"], options].concat());
        let program = program.env("XDG_CACHE_HOME", self.cache()).stdout(Stdio::null()).stderr(Stdio::null());
        send.send(program.spawn().unwrap()).unwrap();
        self.line.hooked();
        self.line.left_alone();
    }

    fn is_there(&self, case: &str) {
        assert_eq!(self.to.tag("app", "1"), Some(self.image.digest()), "{case}");
        for blob in self.image.blobs() {
            assert_eq!(Digest::of(&self.to.blob("app", &blob.digest).unwrap()), blob.digest, "{case}");
        }
    }

    /// Body bytes of uploads that reached the registry.
    fn sent(&self) -> u64 {
        self.line.seen("", "/uploads/").iter().map(|seen| seen.up).sum()
    }

    /// The largest body that reached it.
    fn largest(&self) -> u64 {
        self.line.seen("", "/uploads/").iter().map(|seen| seen.up).max().unwrap_or(0)
    }

    fn refused(&self, status: u16) -> usize {
        self.line.seen("", "/uploads/").iter().filter(|seen| seen.status == status).count()
    }
}

fn good(out: Output) -> Output {
    assert_eq!(out.status.code(), Some(0), "{}", out.stderr);
    out
}

/// Old: 34 MB were sent in 132 requests, and the push failed.
#[test]
fn an_upload_is_repeated_on_its_session_after_a_refusal() {
    let cases = [(429, Some("1")), (429, None), (503, None), (502, Some("0")), (500, None), (408, None), (425, None)];
    // Each waits more than it works.
    thread::scope(|scope| {
        for (status, wish) in cases {
            scope.spawn(move || {
                let case = format!("{status} {wish:?}");
                let push = Push::new(&[5 << 20, 3 << 20, 700_000]);
                push.line.is(Line { refuses_first: Some((2, status, wish)), ..Line::default() });
                good(push.push(&[]));
                push.is_there(&case);
                assert_eq!(push.sent(), push.size, "{case}");
                // A session for each blob, and not one more.
                let sessions = push.line.seen("POST", "/uploads/").iter().filter(|seen| seen.status == 202).count();
                assert_eq!((sessions, push.to.open_uploads()), (push.image.blobs().len(), 0), "{case}");
            });
        }
    });
}

/// Old: "the connection was reset" after 37 requests.
#[test]
fn a_limit_of_bodies_is_found_and_the_next_push_begins_with_it() {
    for (limit, how) in [
        (1_000_000, TooLarge::Status),
        (1_000_000, TooLarge::Reset),
        (4 * MIB, TooLarge::Status),
        (4 * MIB, TooLarge::Reset),
    ] {
        let case = format!("{limit} {how:?}");
        let push = Push::new(&[9 << 20, 1 << 20, 500_000]);
        push.line.is(Line { body_limit: Some((limit, how)), ..Line::default() });
        good(push.push(&[]));
        push.is_there(&case);
        assert!(push.largest() <= limit && push.largest() > limit / 2, "{case}: {}", push.largest());
        assert_eq!(push.sent(), push.size, "{case}");
        let learned = good(push.run(&["cache"])).stdout;
        assert!(learned.contains("limit ") && learned.contains(&push.line.host()), "{case}: {learned}");
        // Nothing is refused a second time.
        push.line.forget();
        push.line.is(Line { body_limit: Some((limit, TooLarge::Status)), ..Line::default() });
        good(push.push_again());
        assert_eq!((push.refused(413), push.sent()), (0, push.size), "{case}");
        assert!(push.largest() <= limit, "{case}");
    }
}

#[test]
fn a_larger_chunk_is_tried_after_a_day_and_the_limit_forgotten_after_a_week() {
    let push = Push::new(&[9 << 20]);
    let limited = Line { body_limit: Some((MIB, TooLarge::Status)), ..Line::default() };
    push.line.is(limited);
    good(push.push(&[]));
    for (days, refused) in [(0, 0), (2, 1), (8, 4)] {
        for file in std::fs::read_dir(push.cache().join("imgmv/limits")).unwrap() {
            let then = SystemTime::now() - Duration::from_secs(days * 24 * 60 * 60);
            let file = std::fs::File::options().write(true).open(file.unwrap().path()).unwrap();
            file.set_modified(then).unwrap();
        }
        push.line.forget();
        push.line.is(limited);
        let dst = format!("{}/days-{days}:1", push.line.host());
        good(push.run(&["copy", &push.layout(), &dst, "--compress", "keep"]));
        // Of a whole blob it may show as a broken line only: the refusals that were read are a bound.
        assert!(
            push.refused(413) <= refused && (push.refused(413) > 0) == (refused > 0),
            "{days}: {}",
            push.refused(413)
        );
        assert_eq!(push.sent(), push.size, "{days}");
    }
}

#[test]
fn a_limit_that_leaves_no_chunk_is_named() {
    // Shorter than any chunk that is sent; a layer that is smaller; chunks that the registry wants longer.
    for (layer, limit, least, words) in [
        (3 << 20, 100_000, None, &["262144 bytes", "raise the limit"][..]),
        (3 << 20, MIB, Some(2 * MIB), &["2097152 bytes", "OCI-Chunk-Min-Length", "raise the limit"]),
    ] {
        let push = Push::new(&[layer]);
        push.to.faults().chunk_min = least;
        push.line.is(Line { body_limit: Some((limit, TooLarge::Status)), ..Line::default() });
        let out = push.push(&[]);
        assert_eq!(out.status.code(), Some(1), "{}", out.stderr);
        for word in words.iter().chain([&*push.line.host()].iter()) {
            assert!(out.stderr.contains(word), "{word}: {}", out.stderr);
        }
        assert_eq!(push.to.tag("app", "1"), None);
    }
}

#[test]
fn a_chunk_size_is_kept_to() {
    let push = Push::new(&[5 << 20, 2 << 20, 300_000]);
    good(push.push(&["--chunk-size", "2M"]));
    push.is_there("2M");
    let mut bodies: Vec<u64> =
        push.line.seen("", "/uploads/").iter().map(|seen| seen.up).filter(|up| *up > 1000).collect();
    bodies.sort_unstable();
    assert_eq!(bodies, [300_000, MIB, 2 * MIB, 2 * MIB, 2 * MIB]);
    for wrong in ["0", "2X", ""] {
        assert_eq!(push.push(&["--chunk-size", wrong]).status.code(), Some(2), "{wrong}");
    }
}

/// Old: the push failed.
#[test]
fn a_head_that_is_refused_is_asked_by_get() {
    for status in [400, 403, 405, 501] {
        let push = Push::new(&[3 << 20, 500_000]);
        let refuse = || push.line.does(Fault::times(99, "HEAD", "", Ill::Status { status, retry_after: None }));
        refuse();
        good(push.push(&[]));
        push.is_there(&format!("{status}"));
        // The tag is found by GET: nothing is sent a second time.
        push.line.forget();
        refuse();
        good(push.push(&[]));
        assert_eq!(push.sent(), 0, "{status}");
        let image = format!("{}/app:1", push.line.host());
        let digest = good(push.run(&["digest", &image])).stdout;
        assert!(digest.contains(&push.image.digest().to_string()), "{status}: {digest}");
        good(push.run(&["tag", &image, "2"]));
        assert_eq!(push.to.tag("app", "2"), Some(push.image.digest()), "{status}");
    }
}

/// Old: five waits of 120 seconds.
#[test]
fn a_wait_that_is_too_long_ends_the_run_and_is_named() {
    for (method, part) in [("HEAD", "/manifests/"), ("POST", "/uploads/"), ("PUT", "/uploads/"), ("PUT", "/manifests/")]
    {
        let push = Push::new(&[500_000]);
        let long = Ill::Status { status: 429, retry_after: Some("99999999".to_owned()) };
        push.line.does(Fault::times(99, method, part, long));
        let out = push.push(&[]);
        assert_eq!(out.status.code(), Some(6), "{method} {part}: {}", out.stderr);
        assert!(out.stderr.contains("1158 days"), "{method} {part}: {}", out.stderr);
        let asked = push.line.seen(method, part).iter().filter(|seen| seen.status == 429).count();
        // One for each of two blobs that are sent at once.
        assert!((1..=2).contains(&asked), "{method} {part}: {asked}");
    }
}

/// Old: the rerun sent the whole layer.
#[test]
fn a_killed_push_sends_again_a_chunk_and_no_more() {
    let push = Push::new(&[16 << 20]);
    let buffers = Line { buffers: true, ..Line::default() };
    push.line.is(buffers);
    push.killed(8 * MIB, &["--chunk-size", "1M"]);
    push.line.forget();
    push.line.is(buffers);
    good(push.push(&["--chunk-size", "1M"]));
    push.is_there("killed");
    assert!(push.sent() <= push.size - 7 * MIB, "{} of {}", push.sent(), push.size);
}

/// Old: the six largest were under way, and the rerun sent more than nine tenths.
#[test]
fn a_killed_push_to_a_registry_that_forgets_uploads_has_finished_smaller_layers() {
    // In tenths of a MiB.
    let sizes = [75, 60, 50, 40, 30, 24, 20, 16, 14, 12, 11];
    let push = Push::new(&sizes.map(|size| (size << 20) / 10));
    push.to.faults().forget_uploads = true;
    push.killed(push.size / 2, &[]);
    push.line.forget();
    good(push.push(&[]));
    push.is_there("killed");
    // Two may have been under way: the two largest that fit into half of the bytes.
    assert!(push.sent() <= push.size * 3 / 4, "{} of {}", push.sent(), push.size);
}

#[test]
fn a_large_layer_goes_in_chunks_where_the_registry_takes_them() {
    // The first bodies that are taken; chunks become longer where answers are slow.
    for (patches, bodies) in [(None, &[2 * MIB][..]), (Some(1), &[2 * MIB, 5 * MIB]), (Some(0), &[5 * MIB])] {
        let push = Push::new(&[5 << 20]);
        push.to.faults().patches = patches;
        let send = |repository: &str| {
            let access = Access { chunk_above_bytes: 4 * MIB, cache_dir: Some(push.cache()), ..Access::default() };
            let registry = Registry::new(&push.line.host(), access, Arc::new(Silent), Cancel::default()).unwrap();
            let store = LayoutStore::open(&push.dir.path().join("layout")).unwrap();
            let options = Options { compress: Compress::Keep, ..Options::default() };
            let (sink, cancel) = (registry.sink(repository), Cancel::default());
            copy(Source::Store(Arc::new(store)), &sink, &options, None, &Silent, &cancel).unwrap();
        };
        send("app");
        push.is_there(&format!("{patches:?}"));
        let taken = |seen: &&Seen| matches!(seen.status, 201 | 202) && seen.up >= MIB;
        let sizes: Vec<u64> = push.line.seen("", "/uploads/").iter().filter(taken).map(|seen| seen.up).collect();
        assert!(sizes.starts_with(bodies) && sizes.iter().sum::<u64>() >= 5 * MIB, "{patches:?}: {sizes:?}");
        // The next run knows which it is.
        push.line.forget();
        send("again");
        assert_eq!((push.refused(416), push.sent()), (0, push.size), "{patches:?}");
    }
}
