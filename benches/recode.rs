//! Speed and size of compressed and decompressed layers: `cargo bench --bench recode -- LAYER.tar`.
//! Every row is a run of its own process, so that memory is that row's (where a packed layer
//! is read, with that layer in it); without a file, a mixture is made up.

use imgmv::compress::recompress;
use imgmv::image::Coding;
use std::io::{Cursor, Read};
use std::process::Command;
use std::time::Instant;

/// Coding it has, coding it gets, level, threads.
const ROWS: [(&str, &str, &str, &str); 12] = [
    ("none", "gzip", "1", "1"),
    ("none", "gzip", "1", "2"),
    ("none", "gzip", "1", "8"),
    ("none", "gzip", "2", "2"),
    ("none", "gzip", "6", "2"),
    ("none", "zstd", "1", "2"),
    ("none", "zstd", "2", "2"),
    ("none", "zstd", "3", "1"),
    ("none", "zstd", "3", "2"),
    ("gzip", "none", "0", "1"),
    ("zstd", "none", "0", "1"),
    ("gzip", "zstd", "3", "2"),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match &arguments[..] {
        [file, was, to, level, threads] => row(file, was, to, level, threads),
        [] => table(""),
        [file] => table(file),
        _ => eprintln!("recode [LAYER.tar]"),
    }
}

fn table(file: &str) {
    println!("from  to    level threads    wall s   cpu s    MB/s        bytes  peak MiB");
    for (was, to, level, threads) in ROWS {
        let me = std::env::current_exe().expect("a running program has a path");
        let status = Command::new(me).args([file, was, to, level, threads]).status();
        assert!(status.expect("this program can be run again").success());
    }
}

fn row(file: &str, was: &str, to: &str, level: &str, threads: &str) {
    let (from, into) = (coding(was), coding(to));
    // A packed layer is made beforehand, into memory; a raw one is read from its file, as a copy does.
    let packed = (from != Coding::Raw).then(|| {
        let mut packed = Vec::new();
        recompress(&mut layer(file), Coding::Raw, from, None, 2, &mut |bytes| {
            packed.extend_from_slice(bytes);
            Ok(())
        })
        .expect("a layer can be packed");
        packed
    });
    let mut source: Box<dyn Read + Send> = match packed {
        Some(packed) => Box::new(Cursor::new(packed)),
        None => layer(file),
    };
    let (mut size, begun, cpu) = (0, Instant::now(), cpu_seconds());
    let recompressed =
        recompress(&mut source, from, into, level.parse().ok(), threads.parse().unwrap_or(1), &mut |bytes| {
            size += bytes.len();
            Ok(())
        })
        .expect("a valid layer");
    let (wall, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let rate = recompressed.uncompressed.1 as f64 / 1e6 / wall;
    let peak = proc("status", "VmHWM:").unwrap_or(0.0) / 1024.0;
    println!("{was:5} {to:5} {level:>5} {threads:>7} {wall:9.2} {cpu:7.2} {rate:7.0} {size:12} {peak:9.1}");
}

fn coding(name: &str) -> Coding {
    [Coding::Raw, Coding::Gzip, Coding::Zstd].into_iter().find(|coding| coding.name() == name).expect("a coding's name")
}

fn layer(file: &str) -> Box<dyn Read + Send> {
    match file {
        "" => Box::new(Mixture { state: 1, left: 256 << 20 }),
        path => Box::new(std::fs::File::open(path).expect("the layer can be read")),
    }
}

/// Words and noise, half and half by chance: the same bytes every time.
struct Mixture {
    state: u64,
    left: usize,
}

impl Read for Mixture {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        const WORDS: [&[u8; 8]; 4] = [b"library ", b"include ", b"version ", b"\0\0\0\0\0\0\0\0"];
        let size = buffer.len().min(self.left);
        for piece in buffer[..size].chunks_mut(8) {
            self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let noise = (self.state >> 8).to_le_bytes();
            let word = if self.state >> 63 == 0 { WORDS[(self.state >> 61) as usize & 3] } else { &noise };
            piece.copy_from_slice(&word[..piece.len()]);
        }
        self.left -= size;
        Ok(size)
    }
}

/// User and system time of this process, in seconds.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // proc(5): utime and stime are the 12th and 13th fields behind the command's name, in hundredths.
    let fields: Vec<f64> = text.rsplit(')').next().unwrap_or("").split(' ').filter_map(|f| f.parse().ok()).collect();
    fields.get(10..12).map_or(0.0, |times| times.iter().sum::<f64>() / 100.0)
}

fn proc(file: &str, field: &str) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().next()?.parse().ok()
}
