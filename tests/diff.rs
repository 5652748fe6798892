//! `imgmv diff`: layers, bytes, config, platforms and files of two images in any two places.

#[path = "support/mod.rs"]
mod support;

use flate2::{Compression, write::GzEncoder};
use imgmv::internals::image::media_type;
use imgmv::{Descriptor, Digest};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use support::program::{Output, fixture, imgmv};
use support::registry::Double;
use tempfile::TempDir;

/// One entry of a layer.
#[derive(Clone)]
struct Entry(&'static str, tar::EntryType, &'static [u8], u32);

const FILE: tar::EntryType = tar::EntryType::Regular;
const DIRECTORY: tar::EntryType = tar::EntryType::Directory;
const SYMLINK: tar::EntryType = tar::EntryType::Symlink;
const HARD_LINK: tar::EntryType = tar::EntryType::Link;

fn file(path: &'static str, content: &'static [u8]) -> Entry {
    Entry(path, FILE, content, 0o644)
}

fn tar_of(entries: &[Entry]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for Entry(path, kind, content, mode) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_size(0);
        match *kind {
            SYMLINK | HARD_LINK => {
                tar.append_link(&mut header, path, std::str::from_utf8(content).unwrap()).unwrap();
            }
            _ => {
                header.set_size(content.len() as u64);
                tar.append_data(&mut header, path, *content).unwrap();
            }
        }
    }
    tar.into_inner().unwrap()
}

/// A layout with images, written without imgmv.
struct Layout(TempDir);

impl Layout {
    fn new() -> Layout {
        let layout = Layout(TempDir::new().unwrap());
        std::fs::create_dir_all(layout.0.path().join("blobs/sha256")).unwrap();
        std::fs::write(layout.0.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        layout
    }

    fn blob(&self, media_type: &str, bytes: &[u8]) -> Descriptor {
        let blob = Descriptor::of(media_type, bytes);
        std::fs::write(self.0.path().join(blob.digest.blob_path()), bytes).unwrap();
        blob
    }

    fn gzip(&self, tar: &[u8]) -> Descriptor {
        let mut out = GzEncoder::new(Vec::new(), Compression::fast());
        out.write_all(tar).unwrap();
        self.blob(media_type::OCI_LAYER_GZIP, &out.finish().unwrap())
    }

    /// The manifest of an image with these tars as gzip layers.
    fn manifest(&self, tars: &[Vec<u8>], config: Value) -> Descriptor {
        let layers: Vec<Descriptor> = tars.iter().map(|tar| self.gzip(tar)).collect();
        let diff_ids: Vec<Digest> = tars.iter().map(|tar| Digest::of(tar)).collect();
        let mut document = json!({ "architecture": "amd64", "os": "linux",
                                   "rootfs": { "type": "layers", "diff_ids": diff_ids } });
        for (key, value) in config.as_object().unwrap() {
            document[key] = value.clone();
        }
        let config = self.blob(media_type::OCI_CONFIG, document.to_string().as_bytes());
        let manifest = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config,
                               "layers": layers });
        self.blob(media_type::OCI_MANIFEST, manifest.to_string().as_bytes())
    }

    /// The index with `named`, and the addresses of these images.
    fn name<const N: usize>(&self, named: [(&str, Descriptor); N]) -> [String; N] {
        let entry = |(name, root): &(&str, Descriptor)| {
            let mut entry = json!(root);
            entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
            entry
        };
        let index = json!({ "schemaVersion": 2, "manifests": named.iter().map(entry).collect::<Vec<_>>() });
        std::fs::write(self.0.path().join("index.json"), index.to_string()).unwrap();
        named.map(|(name, _)| format!("oci:{}:{name}", self.0.path().display()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

fn good(args: &[&str]) -> Output {
    let out = imgmv(args, None);
    assert_eq!(out.status.code(), Some(0), "{args:?}: {}", out.stderr);
    out
}

fn fails(args: &[&str], expected: i32, told: &str) {
    let out = imgmv(args, None);
    assert_eq!(out.status.code(), Some(expected), "{args:?}: {}", out.stderr);
    assert!(out.stderr.contains(told), "{args:?}: {}", out.stderr);
}

fn diff(a: &str, b: &str, more: &[&str]) -> Value {
    let document: Value = serde_json::from_str(&good(&[&["diff", a, b, "--json"], more].concat()).stdout).unwrap();
    assert_eq!(document["version"], 2);
    document
}

/// `SIGN PATH (PROPERTIES)` of each file.
fn files(document: &Value) -> Vec<String> {
    let list = document["images"][0]["files"].as_array().unwrap();
    let line = |file: &Value| {
        let properties: Vec<&str> =
            file["properties"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let more = if properties.is_empty() { String::new() } else { format!(" {}", properties.join(",")) };
        format!("{} {}{more}", file["change"].as_str().unwrap(), file["path"].as_str().unwrap())
    };
    list.iter().map(line).collect()
}

#[test]
fn layers_bytes_and_config_are_compared() {
    let layout = Layout::new();
    let [base, one, two] = ["base", "one", "two"].map(|name| tar_of(&[file(name, b"x")]));
    let a = layout.manifest(&[base.clone(), one], json!({ "config": { "Env": ["A=1"], "Labels": { "l": "1" } } }));
    let b =
        layout.manifest(&[base, two.clone()], json!({ "config": { "Env": ["A=2"], "Cmd": ["x"] }, "created": "now" }));
    let [a, b] = layout.name([("a", a), ("b", b)]);
    let document = diff(&a, &b, &[]);
    assert_eq!(document["differs"], true);
    let layers = &document["images"][0]["layers"];
    let digests = |list: &Value| list.as_array().unwrap().len();
    assert_eq!((digests(&layers["shared"]), digests(&layers["new"]), digests(&layers["gone"])), (1, 1, 1));
    let new = layout.gzip(&two);
    assert_eq!(layers["new"][0]["digest"], new.digest.to_string());
    let config: Value = serde_json::from_str(&good(&["inspect", &b, "--config"]).stdout).unwrap();
    assert_eq!(document["bytes_to_move"], new.size + config.to_string().len() as u64);
    assert_eq!(document["blobs_to_move"], 2);
    let text = good(&["diff", &a, &b]).stdout;
    for line in
        ["+ created: \"now\"", "+ cmd: \"[\\\"x\\\"]\"", "~ env A: \"1\" -> \"2\"", "- label l: \"1\"", "1 shared"]
    {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert_eq!(document["images"][0]["files"], Value::Null);
}

#[test]
fn configs_are_compared_by_field_and_key() {
    let layout = Layout::new();
    let layer = [tar_of(&[file("x", b"x")])];
    let of_a = json!({ "author": "one", "config": {
        "User": "root", "Env": ["A=1", "B=2"], "Labels": { "same": "s", "old": "1", "gone": "g" },
        "ExposedPorts": { "80/tcp": {} }, "Entrypoint": ["/a"] } });
    let of_b = json!({ "author": "one", "config": {
        "User": "app", "Env": ["B=2", "A=1"], "Labels": { "same": "s", "old": "2", "new": "n\u{1b}[2J" },
        "ExposedPorts": { "80/tcp": {} }, "StopSignal": "SIGINT" } });
    let (a, b) = (layout.manifest(&layer, of_a), layout.manifest(&layer, of_b));
    let [a, b] = layout.name([("a", a), ("b", b)]);
    let document = diff(&a, &b, &[]);
    let entry = |field: &str, key: Option<&str>, a: Option<&str>, b: Option<&str>| json!({ "field": field, "key": key, "a": a, "b": b });
    assert_eq!(
        document["images"][0]["config"],
        json!([
            entry("user", None, Some("root"), Some("app")),
            entry("entrypoint", None, Some("[\"/a\"]"), None),
            entry("stopsignal", None, None, Some("SIGINT")),
            entry("label", Some("gone"), Some("g"), None),
            entry("label", Some("old"), Some("1"), Some("2")),
            entry("label", Some("new"), None, Some("n\u{1b}[2J")),
        ])
    );
    assert_eq!((&document["differs"], &document["blobs_to_move"]), (&json!(true), &json!(1)));
    let text = good(&["diff", &a, &b]).stdout;
    let (_, config) = text.split_once("  config:\n").unwrap();
    let lines: Vec<&str> = config.lines().map(str::trim).take(6).collect();
    assert_eq!(
        lines,
        [
            "~ user: \"root\" -> \"app\"",
            "- entrypoint: \"[\\\"/a\\\"]\"",
            "+ stopsignal: \"SIGINT\"",
            "- label gone: \"g\"",
            "~ label old: \"1\" -> \"2\"",
            "+ label new: \"n\\u{1b}[2J\"",
        ],
        "{text}"
    );
}

/// Artifacts have no platform, and no config of an image.
#[test]
fn artifacts_are_compared_by_their_blobs() {
    let layout = Layout::new();
    let empty = layout.blob("application/vnd.oci.empty.v1+json", b"{}");
    let artifact = |contents: &[&[u8]]| {
        let blobs: Vec<Descriptor> =
            contents.iter().map(|content| layout.blob("application/vnd.test.model", content)).collect();
        let manifest = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": empty,
                               "artifactType": "application/vnd.test", "layers": blobs });
        layout.blob(media_type::OCI_MANIFEST, manifest.to_string().as_bytes())
    };
    let [a, b, same] =
        [artifact(&[b"shared", b"old"]), artifact(&[b"shared", b"newer"]), artifact(&[b"shared", b"old"])];
    let [a, b, same] = layout.name([("a", a), ("b", b), ("same", same)]);
    let document = diff(&a, &b, &[]);
    let image = &document["images"][0];
    let sizes = |kind: &str| -> Vec<u64> {
        image["layers"][kind].as_array().unwrap().iter().map(|layer| layer["size"].as_u64().unwrap()).collect()
    };
    assert_eq!((sizes("shared"), sizes("gone"), sizes("new")), (vec![6], vec![3], vec![5]), "{document}");
    assert_eq!((&image["platform"], &image["config"]), (&Value::Null, &json!([])), "{document}");
    assert_eq!((&document["differs"], &document["bytes_to_move"]), (&json!(true), &json!(5)));
    let text = good(&["diff", &a, &b]).stdout;
    assert!(text.contains("layers: 1 shared (6 B), 1 new (5 B), 1 gone (3 B)"), "{text}");
    assert!(text.contains("\nimage: sha256:") && !text.contains("config:"), "{text}");
    assert_eq!(diff(&a, &same, &[])["differs"], false);
    fails(&["diff", &a, &b, "--exit-code"], 1, "differ");
}

/// The same layers in another order give other files; what is listed has the order of the images.
#[test]
fn layers_in_another_order_differ() {
    let layout = Layout::new();
    let tars = ["base", "one", "two", "three"].map(|name| tar_of(&[file("x", name.as_bytes())]));
    let pick = |order: &[usize]| order.iter().map(|at| tars[*at].clone()).collect::<Vec<_>>();
    let images = [&[0, 1, 2][..], &[0, 2, 1], &[0, 1, 2, 2], &[3, 0]];
    let images = images.map(|order| layout.manifest(&pick(order), json!({})));
    let digests = tars.each_ref().map(|tar| layout.gzip(tar).digest.to_string());
    let [a, b, c, d] = images;
    let [a, b, c, d] = layout.name([("a", a), ("b", b), ("c", c), ("d", d)]);
    for (other, is_reordered) in [(&a, false), (&b, true), (&c, true), (&d, false)] {
        let document = diff(&a, other, &[]);
        assert_eq!(document["images"][0]["layers"]["reordered"], is_reordered, "{other}: {document}");
        assert_eq!(document["differs"], *other != a, "{other}");
    }
    let text = good(&["diff", &a, &b]).stdout;
    assert!(text.contains("the shared layers have another order"), "{text}");
    let layers = |a: &str, b: &str, kind: &str| -> Vec<String> {
        let document = diff(a, b, &[]);
        let list = document["images"][0]["layers"][kind].as_array().unwrap().clone();
        list.iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(layers(&b, &d, "gone"), [digests[2].clone(), digests[1].clone()]);
    assert_eq!(layers(&d, &b, "new"), [digests[2].clone(), digests[1].clone()]);
}

#[test]
fn the_exit_status_tells_of_differences_only_if_it_is_asked_to() {
    let layout = Layout::new();
    let [one, two] = ["one", "two"].map(|name| layout.manifest(&[tar_of(&[file(name, b"x")])], json!({})));
    let [a, b, same] = layout.name([("a", one.clone()), ("b", two), ("same", one)]);
    good(&["diff", &a, &b]);
    fails(&["diff", &a, &b, "--exit-code"], 1, "differ");
    good(&["diff", &a, &same, "--exit-code"]);
    fails(&["diff", &a, "oci:/nowhere:1"], 3, "no OCI layout");
}

#[test]
fn one_image_in_two_places_is_the_same_in_any_compression() {
    let (layout, registry) = (Layout::new(), Double::start());
    let tars = [tar_of(&[file("a", b"x")]), tar_of(&[file("b", b"y")])];
    let [image] = layout.name([("a", layout.manifest(&tars, json!({})))]);
    let remote = format!("{}/app:1", registry.host());
    let archive = layout.path("app.tar").display().to_string();
    let zstd = layout.path("zstd.tar").display().to_string();
    good(&["copy", &image, &remote]);
    good(&["copy", &image, &archive]);
    good(&["copy", &image, &zstd, "--compress", "zstd"]);
    for other in [&remote, &archive] {
        let document = diff(&image, other, &["--files"]);
        assert_eq!((&document["differs"], &document["bytes_to_move"]), (&json!(false), &json!(0)), "{other}");
    }
    registry.forget_requests();
    let document = diff(&remote, &zstd, &["--files"]);
    let layers = &document["images"][0]["layers"];
    assert_eq!((layers["recompressed"].as_array().unwrap().len(), layers["new"].as_array().unwrap().len()), (2, 0));
    assert!(document["bytes_to_move"].as_u64().unwrap() > 0 && files(&document).is_empty(), "{document}");
    // Layers that both have are read at the nearer place: only the config comes from the registry.
    assert_eq!(registry.count("GET", "/blobs/"), 1);
}

#[test]
fn platforms_of_indexes_are_paired() {
    let layout = Layout::new();
    let child = |name: &'static str, architecture: &str| {
        let mut child = layout.manifest(&[tar_of(&[file(name, b"x")])], json!({ "architecture": architecture }));
        child.platform = Some(format!("linux/{architecture}").parse().unwrap());
        child
    };
    let index = |children: &[Descriptor]| {
        let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": children });
        layout.blob(media_type::OCI_INDEX, index.to_string().as_bytes())
    };
    let (amd64, arm64) = (child("a", "amd64"), child("a", "arm64"));
    let a = index(&[amd64.clone(), child("s", "s390x"), arm64]);
    let b = index(&[child("a", "riscv64"), child("b", "arm64"), amd64]);
    let [a, b] = layout.name([("a", a), ("b", b)]);
    let document = diff(&a, &b, &[]);
    assert_eq!(document["new_platforms"], json!(["linux/riscv64"]));
    assert_eq!(document["gone_platforms"], json!(["linux/s390x"]));
    let both: Vec<(&str, bool)> = document["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| (image["platform"].as_str().unwrap(), image["a"] == image["b"]))
        .collect();
    assert_eq!(both, [("linux/amd64", true), ("linux/arm64", false)]);
    let one = diff(&a, &b, &["--platform", "linux/amd64"]);
    assert_eq!((&one["differs"], &one["bytes_to_move"]), (&json!(false), &json!(0)), "{one}");
    fails(&["diff", &a, &b, "--platform", "linux/s390x"], 3, "linux/s390x");
}

#[test]
fn files_are_compared_as_the_layers_show_them() {
    let layout = Layout::new();
    let base = tar_of(&[
        Entry("etc", DIRECTORY, b"", 0o755),
        file("etc/same", b"same"),
        file("etc/content", b"old!"),
        file("etc/mode", b"x"),
        file("etc/removed", b"gone"),
        file("opt/app/one", b"1"),
        file("opt/app/two", b"2"),
        file("lib", b"a file"),
        Entry("link", SYMLINK, b"etc/same", 0o777),
        file("etc/touched", b"x"),
    ]);
    let upper = tar_of(&[
        file("etc/content", b"new!"),
        Entry("etc/mode", FILE, b"x", 0o4755),
        file("etc/.wh.removed", b""),
        file("opt/app/.wh..wh..opq", b""),
        file("opt/app/two", b"2"),
        file("opt/app/three", b"3"),
        Entry("lib", DIRECTORY, b"", 0o755),
        file("lib/inside", b"deep"),
        Entry("link", SYMLINK, b"etc/mode", 0o777),
        file("etc/touched", b"x"),
        Entry("hard", HARD_LINK, b"lib/inside", 0o644),
    ]);
    let a = layout.manifest(std::slice::from_ref(&base), json!({}));
    let b = layout.manifest(&[base, upper], json!({}));
    let [a, b] = layout.name([("a", a), ("b", b)]);
    let expected = [
        "changed /etc/content content",
        "changed /etc/mode mode",
        "removed /etc/removed",
        "added /hard",
        "changed /lib type,size,mode",
        "added /lib/inside",
        "changed /link target",
        "removed /opt/app/one",
        "added /opt/app/three",
    ];
    assert_eq!(files(&diff(&a, &b, &["--files"])), expected);
    let back = files(&diff(&b, &a, &["--files"]));
    assert_eq!(back.len(), expected.len());
    let text = good(&["diff", &a, &b, "--files"]).stdout;
    assert!(text.contains("files: 3 added, 2 removed, 4 changed"), "{text}");
    assert!(text.contains("    ~ /etc/content  4 B  (content)\n") && text.contains("    + /hard  4 B\n"), "{text}");
}

/// The files of layers applied one after the other, lowest first.
fn applied(layers: &[Vec<Entry>]) -> BTreeMap<String, (u8, Vec<u8>, u32)> {
    let mut files: BTreeMap<String, (u8, Vec<u8>, u32)> = BTreeMap::new();
    let below = |path: &str, above: &str| path.starts_with(&format!("{above}/"));
    for layer in layers {
        for Entry(path, ..) in layer {
            let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
            if name == ".wh..wh..opq" {
                files.retain(|path, _| !below(path, directory));
            } else if let Some(removed) = name.strip_prefix(".wh.") {
                let removed = if directory.is_empty() { removed.to_owned() } else { format!("{directory}/{removed}") };
                files.retain(|path, _| *path != removed && !below(path, &removed));
            }
        }
        for Entry(path, kind, content, mode) in layer.iter().filter(|entry| !entry.0.contains(".wh.")) {
            if *kind == FILE {
                files.retain(|other, _| !below(other, path));
            }
            files.insert((*path).to_owned(), (kind.as_byte(), content.to_vec(), *mode));
        }
    }
    files
}

#[test]
fn random_layers_give_the_differences_of_the_applied_layers() {
    const PATHS: [&str; 10] = ["a", "a/b", "a/b/c", "a/d", "e", "e/f", "e/f/g", "h", "a/b/i", "e/j"];
    const WHITEOUTS: [&str; 8] =
        [".wh.a", "a/.wh.b", "a/.wh..wh..opq", "e/.wh..wh..opq", "e/.wh.f", ".wh.h", "a/b/.wh.c", ".wh.e"];
    const CONTENTS: [&[u8]; 3] = [b"1", b"2", b"33"];
    let mut state = 7u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    let mut layer = || -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        for _ in 0..2 + random(5) {
            let path = PATHS[random(PATHS.len())];
            let has_below = PATHS.iter().any(|other| other.starts_with(&format!("{path}/")));
            let kind = if has_below && random(2) == 0 { DIRECTORY } else { FILE };
            // A layer has nothing below a file.
            let clashes = |other: &Entry| {
                other.0 == path
                    || kind == FILE && other.0.starts_with(&format!("{path}/"))
                    || other.1 == FILE && path.starts_with(&format!("{}/", other.0))
            };
            if entries.iter().any(clashes) {
                continue;
            }
            let content = if kind == FILE { CONTENTS[random(3)] } else { b"" };
            entries.push(Entry(path, kind, content, 0o600 + random(2) as u32));
        }
        for _ in 0..random(3) {
            entries.insert(random(entries.len() + 1), file(WHITEOUTS[random(WHITEOUTS.len())], b""));
        }
        entries
    };
    for round in 0..100 {
        let layout = Layout::new();
        let shared: Vec<Vec<Entry>> = (0..round % 3).map(|_| layer()).collect();
        let [a, b] = [0, 1].map(|_| [shared.clone(), (0..1 + round % 2).map(|_| layer()).collect()].concat());
        let manifest = |layers: &[Vec<Entry>]| {
            layout.manifest(&layers.iter().map(|layer| tar_of(layer)).collect::<Vec<_>>(), json!({}))
        };
        let [of_a, of_b] = layout.name([("a", manifest(&a)), ("b", manifest(&b))]);
        let (files_a, files_b) = (applied(&a), applied(&b));
        let mut expected: Vec<String> = Vec::new();
        for path in files_a.keys().chain(files_b.keys().filter(|path| !files_a.contains_key(*path))) {
            match (files_a.get(path), files_b.get(path)) {
                (Some(_), None) => expected.push(format!("removed /{path}")),
                (None, Some(_)) => expected.push(format!("added /{path}")),
                (one, two) if one != two => expected.push(format!("changed /{path}")),
                _ => {}
            }
        }
        let found = files(&diff(&of_a, &of_b, &["--files"]));
        let mut found: Vec<String> =
            found.iter().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
        expected.sort();
        found.sort();
        let names = |layers: &[Vec<Entry>]| -> Vec<Vec<&str>> {
            layers.iter().map(|layer| layer.iter().map(|entry| entry.0).collect()).collect()
        };
        assert_eq!(found, expected, "{round}: {:?}\n{:?}", names(&a), names(&b));
    }
}

#[test]
fn hostile_layers_are_refused_and_names_cannot_move_the_cursor() {
    let layout = Layout::new();
    let strange = tar_of(&[file("\u{1b}[2Jname\u{202e}", b"x")]);
    let (one, two) = (layout.manifest(&[strange], json!({})), layout.manifest(&[tar_of(&[])], json!({})));
    let damaged = layout.manifest(&[tar_of(&[file("d", b"x")])], json!({}));
    let garbage = layout.manifest(&[vec![b'x'; 2000]], json!({}));
    let [a, b, damaged_image, garbage] = layout.name([("a", one), ("b", two), ("d", damaged), ("g", garbage)]);
    let text = good(&["diff", &b, &a, "--files"]).stdout;
    assert!(text.contains("+ /?[2Jname?") && !text.contains('\u{1b}'), "{text}");
    fails(&["diff", &a, &garbage, "--files"], 5, "wrong checksum");
    spoil(&layout.path(&layout.gzip(&tar_of(&[file("d", b"x")])).digest.blob_path()));
    good(&["diff", &a, &damaged_image]);
    fails(&["diff", &a, &damaged_image, "--files"], 5, "does not match");
    let archive = Path::new(&fixture("hello-docker28.tar")).to_owned();
    let out = imgmv(&["diff", "-", &a, "--files"], Some(&archive));
    assert_eq!(out.status.code(), Some(2), "{}", out.stderr);
    fails(&["diff", &fixture("two-images-docker28.tar"), &a], 2, "2 images");
}

/// Changes the time in the header of the gzip `file`, which its checksum does not cover.
fn spoil(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[4] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

/// A compressed archive is read from its start for each layer, if it is a file.
#[test]
fn files_in_compressed_archives_are_compared() {
    let layout = Layout::new();
    let (lower, upper) = (tar_of(&[file("one", b"1"), file("two", b"2")]), tar_of(&[file("two", b"22")]));
    let a = layout.manifest(std::slice::from_ref(&lower), json!({}));
    let b = layout.manifest(&[lower, upper], json!({}));
    let [a, b] = layout.name([("a", a), ("b", b)]);
    let [archive_a, archive_b] = ["a.tar.gz", "b.tar.zst"].map(|name| layout.path(name).display().to_string());
    good(&["copy", &a, &archive_a]);
    good(&["copy", &b, &archive_b]);
    for (a, b) in [(&archive_a, &b), (&a, &archive_b), (&archive_a, &archive_b)] {
        assert_eq!(files(&diff(a, b, &["--files"])), ["changed /two size"], "{a} {b}");
    }
    // In docker-save's older form the layers have no digests.
    let old = layout.path("old.tar.gz").display().to_string();
    let mut gzip = GzEncoder::new(std::fs::File::create(&old).unwrap(), Compression::fast());
    gzip.write_all(&std::fs::read(fixture("hello-docker20.tar")).unwrap()).unwrap();
    gzip.finish().unwrap();
    assert_eq!(files(&diff(&old, &fixture("hello-docker28.tar"), &["--files"])), [""; 0]);
    assert!(!files(&diff(&old, &a, &["--files"])).is_empty());
    let piped = imgmv(&["diff", "-", &b, "--files"], Some(Path::new(&archive_a)));
    assert_eq!(piped.status.code(), Some(2), "{}", piped.stderr);
    assert!(piped.stderr.contains("save the archive to a file first"), "{}", piped.stderr);
}
