//! Recompression guarantees: the same bytes always, no lost bytes, an error for every failure.

use super::decoder::{LayerReader, SIZE_LIMIT, SizeLimit};
use super::encoder::levels;
use super::*;
use crate::error::{Error, Kind};
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Text and noise in turn, the same every time; not a multiple of anything.
fn layer(size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 64);
    let mut state = 1u64;
    while bytes.len() < size {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        match state >> 62 {
            0 => bytes.extend_from_slice(&state.to_le_bytes()),
            1 => bytes.extend_from_slice(b"usr/share/doc/package/copyright\0"),
            _ => bytes.extend_from_slice(format!("line {} of a file\n", state >> 50).as_bytes()),
        }
    }
    bytes.truncate(size);
    bytes
}

/// Gives at most `most` bytes a read.
struct Sips<'a>(&'a [u8], usize);

impl Read for Sips<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = buffer.len().min(self.1);
        self.0.read(&mut buffer[..size])
    }
}

fn compress_with(raw: &[u8], to: Coding, level: Option<i32>, threads: usize, sip: usize) -> Vec<u8> {
    let mut compressed = Vec::new();
    let recompressed = recompress(&mut Sips(raw, sip), Coding::Raw, to, level, threads, &mut |bytes| {
        compressed.extend_from_slice(bytes);
        Ok(())
    });
    assert_eq!(recompressed.unwrap().uncompressed, (Digest::of(raw), raw.len() as u64));
    compressed
}

fn compressed(raw: &[u8], to: Coding) -> Vec<u8> {
    compress_with(raw, to, None, 2, usize::MAX)
}

fn decompressed(bytes: &[u8], was: Coding) -> Result<Vec<u8>> {
    let mut raw = Vec::new();
    let recompressed = recompress(&mut &*bytes, was, Coding::Raw, None, 1, &mut |bytes| {
        raw.extend_from_slice(bytes);
        Ok(())
    })?;
    assert_eq!(recompressed.uncompressed, (Digest::of(&raw), raw.len() as u64));
    Ok(raw)
}

const CODINGS: [Coding; 2] = [Coding::Gzip, Coding::Zstd];
const BLOCK: usize = 1 << 20;

#[test]
fn the_bytes_do_not_depend_on_threads_or_on_how_the_layer_comes_in() {
    let raw = layer(5 * BLOCK + 12345);
    for to in CODINGS {
        let once = compressed(&raw, to);
        for threads in [1, 2, 3, 8] {
            assert_eq!(Digest::of(&compress_with(&raw, to, None, threads, usize::MAX)), Digest::of(&once), "{threads}");
        }
        for sip in [777, 4096, 65_537, BLOCK] {
            assert_eq!(Digest::of(&compress_with(&raw, to, None, 3, sip)), Digest::of(&once), "{sip} bytes a read");
        }
        let level = default_level(to);
        assert_eq!(compress_with(&raw, to, Some(level), 1, usize::MAX), once);
        assert_ne!(compress_with(&raw, to, Some(level + 5), 1, usize::MAX), once);
    }
}

/// The digests of compressed layers are in manifests: a change here needs a new [`RECIPE_VERSION`].
#[test]
fn the_bytes_are_frozen() {
    let raw = layer(3 * BLOCK + 777);
    let found: Vec<String> = CODINGS.iter().map(|to| Digest::of(&compressed(&raw, *to)).to_string()).collect();
    assert_eq!((RECIPE_VERSION, &found[0][..], &found[1][..]), (1, GZIP, ZSTD));
}

const GZIP: &str = "sha256:11c270b5b713fd3bf7dc0e3bc49336459cc28444403faffa148f803ee5d49630";
const ZSTD: &str = "sha256:064e4b58ed5de2d4637d38b85b3d72241baf2035bea7fb51a5f8ea368e06174b";

#[test]
fn a_layer_of_any_size_comes_back() {
    let raw = layer(2 * BLOCK + 1);
    for size in [0, 1, 511, BLOCK / 2 - 1, BLOCK / 2, BLOCK / 2 + 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, raw.len()]
    {
        for to in [Coding::Raw, Coding::Gzip, Coding::Zstd] {
            let bytes = compressed(&raw[..size], to);
            assert!(size == 0 || Coding::sniff(&bytes) == to || to == Coding::Raw);
            assert!(decompressed(&bytes, to).unwrap() == raw[..size], "{size} bytes by {}", to.name());
        }
    }
}

#[test]
fn a_compressed_layer_is_recompressed_while_streamed() {
    let raw = layer(3 * BLOCK + 5);
    let zstd = compressed(&raw, Coding::Zstd);
    let mut gzip = Vec::new();
    let recompressed = recompress(&mut Sips(&zstd, 1000), Coding::Zstd, Coding::Gzip, None, 2, &mut |bytes| {
        gzip.extend_from_slice(bytes);
        Ok(())
    });
    assert_eq!(recompressed.unwrap().uncompressed, (Digest::of(&raw), raw.len() as u64));
    assert!(gzip == compressed(&raw, Coding::Gzip), "the same as from the raw layer");
}

#[test]
fn nothing_of_this_machine_or_hour_is_in_a_gzip_header() {
    // RFC 1952, 2.3: no flags, no time, operating system unknown. The eighth byte is set for the fastest levels.
    let bytes = compressed(b"x", Coding::Gzip);
    assert_eq!(bytes[..8], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[9], 255);
}

#[test]
fn a_level_that_there_is_not_is_a_usage_error() {
    for (to, level) in [(Coding::Gzip, 0), (Coding::Gzip, 13), (Coding::Zstd, -1), (Coding::Zstd, 20)] {
        let mut never = |_: &[u8]| -> Result<()> { panic!("wrote something") };
        let error = recompress(&mut &b"x"[..], Coding::Raw, to, Some(level), 1, &mut never).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{error}");
    }
    for to in CODINGS {
        levels(to).for_each(|level| drop(Compressor::new(to, Some(level)).unwrap()));
    }
}

/// Runs `work` on another thread and panics if it does not end in time: a test that hangs fails, so that it does not hang the tests.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    ended.recv_timeout(Duration::from_secs(60)).expect("recompress did not end")
}

/// Gives `good` bytes, then an error.
struct FailingReader<'a>(&'a [u8]);

impl Read for FailingReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(Error::network("the registry went away").into()),
            n => Ok(n),
        }
    }
}

#[test]
fn a_source_that_fails_ends_it_with_its_own_error() {
    in_time(|| {
        let raw = layer(6 * BLOCK);
        for to in [Coding::Raw, Coding::Gzip, Coding::Zstd] {
            for good in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 6 * BLOCK] {
                for threads in [1, 3] {
                    let mut from = FailingReader(&raw[..good]);
                    let error = recompress(&mut from, Coding::Raw, to, None, threads, &mut |_| Ok(())).unwrap_err();
                    assert_eq!((error.kind(), &*error.to_string()), (Kind::Network, "the registry went away"));
                }
            }
        }
        for was in CODINGS {
            let bytes = compressed(&raw, was);
            for good in [0, 5, bytes.len() / 2, bytes.len()] {
                let mut from = FailingReader(&bytes[..good]);
                let error = recompress(&mut from, was, Coding::Zstd, None, 2, &mut |_| Ok(())).unwrap_err();
                assert_eq!(error.kind(), Kind::Network, "{error}");
            }
        }
    });
}

/// Never ends, and counts the reads.
struct Endless(u64);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0 += 1;
        let size = buffer.len().min(10_000);
        buffer[..size].fill(self.0 as u8);
        Ok(size)
    }
}

#[test]
fn a_output_that_fails_ends_it_with_its_own_error() {
    in_time(|| {
        for to in [Coding::Raw, Coding::Gzip, Coding::Zstd] {
            for accepted in [0, 1, 2, 5, 20] {
                for threads in [1, 3] {
                    let (mut from, mut left) = (Endless(0), accepted);
                    let error = recompress(&mut from, Coding::Raw, to, None, threads, &mut |_| {
                        left -= 1;
                        if left < 0 { Err(Error::unwritable("the disk is full")) } else { Ok(()) }
                    });
                    assert_eq!(error.unwrap_err().to_string(), "the disk is full");
                    // The reader is ahead by the existing blocks at most.
                    assert!(from.0 * 10_000 < (accepted as u64 + 8) * BLOCK as u64, "{} reads", from.0);
                }
            }
        }
    });
}

#[test]
fn a_panic_on_either_side_ends_every_thread() {
    in_time(|| {
        struct Panicking(u32);
        impl Read for Panicking {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 += 1;
                assert!(self.0 < 8, "the reader's own panic");
                buffer.fill(7);
                Ok(buffer.len())
            }
        }
        let run = |from: &mut (dyn Read + Send), out: &mut dyn FnMut(&[u8]) -> Result<()>| {
            let run = || recompress(from, Coding::Raw, Coding::Zstd, None, 2, out);
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err()
        };
        assert!(run(&mut Panicking(0), &mut |_| Ok(())));
        let mut calls = 0;
        assert!(run(&mut Endless(0), &mut |_| {
            calls += 1;
            assert!(calls < 3, "the panic of the output");
            Ok(())
        }));
    });
}

#[test]
fn a_damaged_or_cut_layer_is_invalid_at_every_place() {
    let raw = layer(BLOCK + 5);
    for was in CODINGS {
        let whole = compressed(&raw, was);
        for at in [1, 3, 9, 30, whole.len() / 3, whole.len() - 9, whole.len() - 1] {
            let error = decompressed(&whole[..at], was).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "cut at {at}: {error}");
            assert!(error.to_string().contains(was.name()), "{error}");
        }
        for at in [0, 2, 40, whole.len() / 2, whole.len() - 6] {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            let error = decompressed(&damaged, was).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "damaged at {at}: {error}");
        }
        let trailing = [&whole[..], b"something else"].concat();
        assert_eq!(decompressed(&trailing, was).unwrap_err().kind(), Kind::Invalid);
    }
    assert_eq!(decompressed(b"", Coding::Gzip).unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn a_bomb_is_refused_before_it_expands() {
    let zeros = vec![0; 64 << 20];
    for was in CODINGS {
        let bomb = compressed(&zeros, was);
        let stop = AtomicBool::new(false);
        let mut from = &bomb[..];
        let mut layer = LayerReader::open(&mut from, was, SizeLimit { base: 4 << 20, ratio: 8 }, &stop).unwrap();
        let mut block = Block::default();
        let error = loop {
            match layer.fill(&mut block, BLOCK) {
                Ok(ended) => assert!(!ended, "decompressed to its end"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
        assert!(layer.finish().1 < 8 << 20);
        assert!(decompressed(&bomb, was).unwrap() == zeros, "within the bound that counts it is a layer as any other");
    }
    const { assert!(SIZE_LIMIT.base > 16 << 30, "sparse files of more than 8 GiB are honest") };
}

#[test]
fn a_frame_that_wants_half_a_gigabyte_of_memory_is_refused() {
    // RFC 8878, 3.1.1: no single segment, no checksum; window descriptor 19 << 3 is 2^29 bytes; one empty last block.
    let error = decompressed(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 19 << 3, 1, 0, 0], Coding::Zstd).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{error}");
}

#[test]
fn many_threads_keep_to_a_layers_share_of_memory() {
    for to in CODINGS {
        for level in levels(to) {
            let compressor = Compressor::new(to, Some(level)).unwrap();
            assert_eq!(compressor.threads(0), 1);
            assert!((compressor.threads(1000) + 2) * 2 * compressor.block_size() <= 16 << 20);
        }
    }
    assert!(Compressor::new(Coding::Gzip, None).unwrap().threads(1000) >= 6);
}

/// Runs `program` with `bytes` as its input; `None` if it is not installed.
fn through(program: &str, arguments: &[&str], bytes: Vec<u8>) -> Option<Vec<u8>> {
    let child = Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        assert!(std::env::var("IMGMV_REQUIRE_PEERS").as_deref() != Ok("1"), "no {program} on PATH");
        println!("skipped: no {program} on PATH");
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    let feed = std::thread::spawn(move || stdin.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} refused it");
    feed.join().unwrap().unwrap();
    Some(output.stdout)
}

#[test]
fn other_programs_read_what_was_compressed_and_the_other_way_round() {
    let raw = layer(2 * BLOCK + 99);
    const PYTHON: &str = "import gzip,sys; sys.stdout.buffer.write(gzip.decompress(sys.stdin.buffer.read()))";
    for (program, arguments, was) in [
        ("gzip", &["-dc"][..], Coding::Gzip),
        ("pigz", &["-dc"], Coding::Gzip),
        ("python3", &["-c", PYTHON], Coding::Gzip),
        ("zstd", &["-dc"], Coding::Zstd),
    ] {
        if let Some(back) = through(program, arguments, compressed(&raw, was)) {
            assert!(back == raw, "{program}");
        }
    }
    for (program, arguments, was) in [
        ("gzip", &["-9c"][..], Coding::Gzip),
        ("pigz", &["-c"], Coding::Gzip),
        ("zstd", &["-19", "-c"], Coding::Zstd),
        ("zstd", &["--long=27", "-c"], Coding::Zstd),
    ] {
        if let Some(bytes) = through(program, arguments, raw.clone()) {
            assert!(decompressed(&bytes, was).unwrap() == raw, "{program}");
        }
    }
}
