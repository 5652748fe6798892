//! The largest documents of each kind. Each is read in a process of its own, whose peak of memory is at most 64 MiB.

use crate::shown::{no_templates, plain};
use imgmv::internals::sets::{MAX_DOCUMENT_BYTES, read};
use std::fs;
use std::process::{Command, Stdio};

const MAX_PEAK_KIB: u64 = 64 << 10;

/// The name of a case, the document, and the number of its entries; none if it must be refused.
type Case = (&'static str, fn() -> Vec<u8>, Option<usize>);

const CASES: &[Case] = &[
    ("comments", || filled("# a line that is only a comment\n", "alpine\n"), Some(1)),
    ("list", || lines(50_000, |nth| format!("registry.example.com/team-{nth}/{}:1\n", "a".repeat(250))), Some(50_000)),
    ("list_of_more", || filled("alpine\n", ""), None),
    ("one_line", || vec![b'a'; MAX_DOCUMENT_BYTES], None),
    (
        "pairs",
        || lines(50_000, |nth| format!("quay.io/{}{nth} lan/{}{nth}\n", "a".repeat(130), "b".repeat(130))),
        Some(50_000),
    ),
    ("regsync", || with("version: 1\nsync:\n", 50_000, regsync), Some(50_000)),
    ("image_syncer_json", || json(50_000), Some(50_000)),
    ("imgmv_filters", || with("images:\n", 50_000, filtered), Some(50_000)),
    (
        "imgmv_patterns",
        || with("images:\n", 400, |nth| format!("- {{from: a, tags: {{regex: '^v{nth}[.].*$'}}}}\n")),
        Some(400),
    ),
    (
        "skopeo",
        || with("quay.io:\n  images:\n", 50_000, |nth| format!("    org/app{nth}: [v1, v2, v3]\n")),
        Some(50_000),
    ),
    ("many_tags", || with("quay.io:\n  images:\n    app:\n", 500_000, |nth| format!("    - v{nth}\n")), None),
    (
        "large_patterns",
        || with("images:\n", 500, |nth| format!("- {{from: a, tags: {{regex: '([acegi]{{900}}){{3}}{nth}'}}}}\n")),
        None,
    ),
    (
        "long_patterns",
        || with("images:\n", 500, |nth| format!("- {{from: a, tags: {{regex: '{}{nth}'}}}}\n", "[acegi]?".repeat(250))),
        None,
    ),
    ("many_values", || filled("1,", "images: ["), None),
    ("many_maps", || filled("{},", "images: ["), None),
    ("many_anchors", || filled("&a 1,", "images: ["), None),
    ("one_text", || [b"images: ['".to_vec(), vec![b'a'; MAX_DOCUMENT_BYTES - 20], b"']\n".to_vec()].concat(), None),
    ("one_folded_text", || filled("a\n  ", "images:\n- "), None),
    ("one_escaped_text", || [filled("\\u0061", "images: [\"")].concat(), None),
    ("aliases_of_a_long_text", || aliases(), None),
    ("open_brackets", || vec![b'['; MAX_DOCUMENT_BYTES], None),
    ("open_braces", || filled("{a: ", ""), None),
    ("keys_without_values", || filled("? ", "---\n"), None),
    ("unknown_keys", || with("images: [a]\n", 250_000, |nth| format!("k{nth}: [x]\n")), Some(1)),
];

fn filled(piece: &str, start: &str) -> Vec<u8> {
    let mut document = start.as_bytes().to_vec();
    while document.len() + piece.len() <= MAX_DOCUMENT_BYTES {
        document.extend_from_slice(piece.as_bytes());
    }
    document
}

fn lines(count: usize, line: impl Fn(usize) -> String) -> Vec<u8> {
    with("", count, line)
}

fn with(start: &str, count: usize, line: impl Fn(usize) -> String) -> Vec<u8> {
    let mut document = Vec::with_capacity(MAX_DOCUMENT_BYTES);
    document.extend_from_slice(start.as_bytes());
    (0..count).for_each(|nth| document.extend_from_slice(line(nth).as_bytes()));
    document
}

fn regsync(nth: usize) -> String {
    let name = "n".repeat(60);
    format!(
        "- source: registry.example.com/{name}/{nth}\n  target: registry.lan/{name}/{nth}\n  type: repository\n  interval: 1h\n"
    )
}

fn filtered(nth: usize) -> String {
    format!(
        "- from: quay.io/org/app{nth}\n  to: registry.lan/app{nth}\n  tags: {{regex: '^v', semver: '>=1', latest: 5}}\n"
    )
}

fn json(count: usize) -> Vec<u8> {
    let name = "n".repeat(80);
    let mut document = with("{", count, |nth| format!("\"quay.io/{name}/{nth}:1\": \"registry.lan/{name}/{nth}\",\n"));
    document.extend_from_slice(b"\"a/b\": \"c/d\"}");
    document.truncate(document.len() - 15);
    document.extend_from_slice(b"}");
    document
}

fn aliases() -> Vec<u8> {
    let text = "a".repeat(4000);
    let mut document = format!("x: &x quay.io/{text}\nimages:\n").into_bytes();
    document.extend_from_slice("- {from: *x, to: *x}\n".repeat(10_000).as_bytes());
    document.resize(MAX_DOCUMENT_BYTES, b'\n');
    document
}

#[test]
fn the_largest_documents_need_64_mib_at_most() {
    let mut wrong = Vec::new();
    let only = std::env::var("SETS_CASE").unwrap_or_default();
    for (name, make, expected) in CASES.iter().filter(|(name, ..)| name.contains(&*only)) {
        // The document is read from a file, so that making it does not count.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("document");
        fs::write(&path, make()).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "--test-threads=1", "large::child"])
            .env("SETS_DOCUMENT", &path)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        let line = said.lines().find(|line| line.contains("entries=")).unwrap_or_else(|| panic!("{name}: {child:?}"));
        println!("{name}: {line}");
        let number = |key: &str| line.split_once(key).unwrap().1.split(' ').next().unwrap().parse::<u64>().unwrap();
        if number("entries=") != expected.unwrap_or_default() as u64 || number("peak=") > MAX_PEAK_KIB {
            wrong.push(format!("{name}: {line}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
#[ignore = "run by the_largest_documents_need_64_mib_at_most"]
fn child() {
    let Ok(path) = std::env::var("SETS_DOCUMENT") else { return };
    let document = fs::read(path).unwrap();
    let began = std::time::Instant::now();
    let set = read(&document, &no_templates());
    let took = began.elapsed().as_millis();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB");
    let entries = set.as_ref().map_or(0, |set| set.entries.len());
    let error = set.as_ref().err().map(ToString::to_string).unwrap_or_default();
    println!("\nentries={entries} peak={peak} ms={took} {error}");
}

#[test]
fn more_keys_than_are_named_are_counted() {
    let document = with("images: [a]\n", 1500, |nth| format!("k{nth}: x\n"));
    let set = plain(std::str::from_utf8(&document).unwrap()).unwrap();
    assert_eq!((set.not_honoured.len(), set.not_honoured[1000].as_str()), (1001, "500 more"));
}
