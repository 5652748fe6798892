//! Directories that lie: each ends in a sentence, and nothing outside of them is read.

use super::support::docker_dir::{DockerDir, tar_of};
use super::support::tar_split::{base64, checksum, gzip, split};
use super::{BOTH, app, app_layers, by_name, open, take, try_imgmv};
use imgmv::{Digest, Kind, Store};
use rustix::fs::{CWD, FileType, Mode, makedev, mkfifoat, mknodat};
use serde_json::json;
use std::fs;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The chain ID of the lower layer of `t/app:1`, and that of the upper one.
fn chains() -> [Digest; 2] {
    let [lower, upper] = app_layers().map(|layer| Digest::of(&layer));
    [lower, Digest::of(format!("{lower} {upper}").as_bytes())]
}

/// Copies `t/app:1` after `change`; both ways of opening files refuse it with `told`.
fn refused(told: &str, change: impl Fn(&DockerDir)) {
    for resolution in BOTH {
        let docker = app("overlay2");
        change(&docker);
        let taken = open(docker.dir.path(), resolution).and_then(|store| take(store, &[by_name("t/app:1")]));
        let error = taken.err().unwrap_or_else(|| panic!("{told}: it was accepted"));
        assert_eq!(error.kind(), Kind::Invalid, "{told}: {error}");
        assert!(error.to_string().contains(told), "{told}: {error}");
        assert!(!error.to_string().contains('\n'), "{error:?}");
    }
}

fn record(docker: &DockerDir, name: &str) -> PathBuf {
    docker.record(&chains()[0]).join(name)
}

fn passwd(docker: &DockerDir) -> PathBuf {
    docker.files_of(&chains()[0]).join("etc/passwd")
}

/// Writes the tar-split of the lower layer, whose entry of `etc/passwd` has the name `name` now.
fn rename_entry(docker: &DockerDir, name: &str) {
    let mut parts = split(&app_layers()[0]);
    let line = parts.lines.iter_mut().find(|line| line["name"] == "etc/passwd").unwrap();
    line["name"] = name.into();
    fs::write(record(docker, "tar-split.json.gz"), parts.compressed()).unwrap();
}

fn huge(path: &Path) {
    File::create(path).unwrap().set_len(1 << 30).unwrap();
}

#[test]
fn names_that_leave_the_layer_open_nothing() {
    // The file outside has the right content: only its place is wrong.
    for name in ["../../../../../../../../etc/passwd", "/../etc/../../etc/passwd", "/etc/./passwd"] {
        refused("is damaged: it is missing", |docker| {
            rename_entry(docker, name);
            fs::remove_file(passwd(docker)).unwrap();
        });
    }
    refused("is damaged: it is missing", |docker| rename_entry(docker, "../../../layer-of-another-image/diff/f"));
}

#[test]
fn links_that_leave_the_layer_are_not_followed_outside() {
    let outside = tempfile::tempdir().unwrap();
    fs::copy("/etc/passwd", outside.path().join("passwd")).unwrap();
    let up = format!("{}{}", "../".repeat(20), outside.path().display());
    for target in [outside.path().to_str().unwrap(), &up] {
        refused("is damaged: it is missing", |docker| {
            fs::remove_file(passwd(docker)).unwrap();
            symlink(format!("{target}/passwd"), passwd(docker)).unwrap();
        });
        refused("is damaged: it is missing", |docker| {
            let etc = docker.files_of(&chains()[0]).join("etc");
            fs::remove_dir_all(&etc).unwrap();
            symlink(target, &etc).unwrap();
        });
    }
    // Inside the layer, this is the link itself.
    refused("they form a loop", |docker| {
        fs::remove_file(passwd(docker)).unwrap();
        symlink("/etc/passwd", passwd(docker)).unwrap();
    });
    refused("is damaged: a part of layer", |docker| {
        // The files of the layer are somewhere else, with the right content.
        let files = docker.files_of(&chains()[0]);
        let away = outside.path().join(format!("away{}", files.display().to_string().replace('/', "-")));
        fs::rename(&files, &away).unwrap();
        symlink(&away, &files).unwrap();
    });
}

#[test]
fn files_of_another_kind_are_refused_and_nothing_waits() {
    refused("expected a regular file", |docker| {
        fs::remove_file(passwd(docker)).unwrap();
        mkfifoat(CWD, passwd(docker), Mode::RWXU).unwrap();
    });
    refused("expected a regular file", |docker| {
        fs::remove_file(passwd(docker)).unwrap();
        fs::create_dir(passwd(docker)).unwrap();
    });
    let probe = tempfile::tempdir().unwrap();
    if let Err(error) = mknodat(CWD, probe.path().join("d"), FileType::CharacterDevice, Mode::RWXU, makedev(1, 5)) {
        return println!("skipped: a device: mknod: {error}");
    }
    refused("expected a regular file", |docker| {
        fs::remove_file(passwd(docker)).unwrap();
        mknodat(CWD, passwd(docker), FileType::CharacterDevice, Mode::RWXU, makedev(1, 5)).unwrap();
    });
}

#[test]
fn sizes_that_lie_are_refused() {
    refused("expected", |docker| fs::write(passwd(docker), "short").unwrap());
    refused("recorded size of 5 bytes", |docker| {
        fs::write(record(docker, "size"), "5").unwrap();
        let line = json!({ "type": 1, "name": "etc/passwd", "size": 1_u64 << 40, "position": 0 });
        fs::write(record(docker, "tar-split.json.gz"), gzip(line.to_string().as_bytes())).unwrap();
    });
    refused("expected a number of bytes", |docker| fs::write(record(docker, "size"), "-1").unwrap());
    refused("does not match", |docker| {
        // Every file is right, but the layer is another one.
        let content = fs::read(passwd(docker)).unwrap();
        let lines = [
            json!({ "type": 2, "payload": base64(&[0; 512]), "position": 0 }),
            json!({ "type": 1, "name": "etc/passwd", "size": content.len(), "position": 1,
                    "payload": base64(&checksum(&content).to_be_bytes()) }),
        ];
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(record(docker, "tar-split.json.gz"), gzip(text.as_bytes())).unwrap();
    });
}

#[test]
fn long_lines_and_bombs_are_refused() {
    refused("a line of more than 262144 bytes that is not a segment", |docker| {
        fs::write(record(docker, "tar-split.json.gz"), gzip(&vec![b'A'; 17 << 20])).unwrap();
    });
    refused("a line of more than 16777216 bytes", |docker| {
        let line = format!("{{\"type\":2,\"payload\":\"{}\",\"position\":0}}", "A".repeat(17 << 20));
        fs::write(record(docker, "size"), (20 << 20).to_string()).unwrap();
        fs::write(record(docker, "tar-split.json.gz"), gzip(line.as_bytes())).unwrap();
    });
    refused("decompression bomb", |docker| {
        let line = |at: usize| format!("{{\"type\":2,\"payload\":\"\",\"position\":{at}}}{}\n", " ".repeat(200 << 10));
        let text: String = (0..600).map(line).collect();
        fs::write(record(docker, "tar-split.json.gz"), gzip(text.as_bytes())).unwrap();
    });
    refused("its tar-split is damaged", |docker| {
        let bytes = fs::read(record(docker, "tar-split.json.gz")).unwrap();
        fs::write(record(docker, "tar-split.json.gz"), &bytes[..bytes.len() / 2]).unwrap();
    });
}

/// As after a crash, and as after an error of the disk.
#[test]
fn a_tar_split_that_is_valid_and_wrong_is_named_with_the_image() {
    let empty = |docker: &DockerDir| fs::write(record(docker, "tar-split.json.gz"), "").unwrap();
    let one_byte = |docker: &DockerDir| {
        let mut parts = split(&app_layers()[0]);
        let payload = parts.lines[0]["payload"].as_str().unwrap().replacen('A', "B", 1);
        parts.lines[0]["payload"] = payload.into();
        fs::write(record(docker, "tar-split.json.gz"), parts.compressed()).unwrap();
    };
    let split_of = |docker: &DockerDir| record(docker, "tar-split.json.gz").display().to_string();
    for (damage, why) in [(&empty as &dyn Fn(&DockerDir), " is empty"), (&one_byte, ", which is damaged itself: blob")]
    {
        refused("image docker.io/t/app:1: layer", damage);
        let docker = app("overlay2");
        damage(&docker);
        for arguments in [["copy", "docker-dir:t/app:1", "-"].as_slice(), &["verify", "docker-dir:t/app:1"]] {
            let done = try_imgmv(docker.dir.path(), arguments);
            let said = format!("{}{}", done.stdout, done.stderr);
            assert_eq!(done.status.code(), Some(5), "{said}");
            assert!(said.contains(&format!("{}{why}", split_of(&docker))), "{why}: {said}");
            assert!(why != " is empty" || !said.contains("it gets a new one"), "{said}");
        }
    }
}

#[test]
fn records_are_checked_before_they_enter_a_path() {
    let long = "a".repeat(64);
    for cache_id in
        ["../../../../etc", "", ".", "..", &long.to_uppercase(), &long[..63], &format!("{}/..", &long[..22])]
    {
        refused("cache-id is damaged: expected 64 hexadecimal", |docker| {
            fs::write(record(docker, "cache-id"), cache_id).unwrap();
        });
    }
    let [lower, upper] = chains();
    for (name, content, told) in [
        ("diff", upper.to_string(), "diff is damaged: expected sha256:"),
        ("diff", "../../x".to_owned(), "diff is damaged"),
        ("parent", lower.to_string(), "parent is damaged: expected none"),
        ("parent", upper.to_string(), "parent is damaged: expected none"),
        ("parent", String::new(), "parent is damaged"),
    ] {
        refused(told, |docker| fs::write(record(docker, name), &content).unwrap());
    }
    // A chain that leads back to itself.
    refused("parent is damaged: expected", |docker| {
        fs::write(docker.record(&upper).join("parent"), upper.to_string()).unwrap();
    });
    refused("parent is damaged: expected", |docker| fs::remove_file(docker.record(&upper).join("parent")).unwrap());
    refused("is damaged: a part of layer", |docker| fs::remove_dir_all(docker.record(&upper)).unwrap());
}

#[test]
fn a_file_of_a_gibibyte_is_refused_by_its_size() {
    for name in ["cache-id", "diff", "parent", "size"] {
        refused("it has 1073741824 bytes; at most 200", |docker| huge(&record(docker, name)));
    }
    refused("it has 1073741824 bytes", |docker| huge(&docker.image().join("repositories.json")));
    refused("it has 1073741824 bytes", |docker| huge(&config(docker)));
}

fn config(docker: &DockerDir) -> PathBuf {
    let content = fs::read_dir(docker.image().join("imagedb/content/sha256")).unwrap();
    content.map(|entry| entry.unwrap().path()).next().unwrap()
}

#[test]
fn damaged_documents_are_named() {
    let repositories = |text: &'static str| {
        move |docker: &DockerDir| fs::write(docker.image().join("repositories.json"), text).unwrap()
    };
    refused("repositories.json: it is not JSON", repositories("{"));
    refused("repositories.json: its field Repositories", repositories(r#"{"Repositories":[]}"#));
    refused("the image ID of t/app:1 is not a digest", repositories(r#"{"Repositories":{"t":{"t/app:1":"../../x"}}}"#));
    refused("is damaged: its digest is sha256:", |docker| fs::write(config(docker), "{}").unwrap());
    refused("expected a regular file", |docker| {
        let config = config(docker);
        fs::remove_file(&config).unwrap();
        mkfifoat(CWD, config, Mode::RWXU).unwrap();
    });
}

#[test]
fn an_image_of_too_many_layers_is_refused() {
    let mut docker = DockerDir::new("overlay2");
    let layers = vec![tar_of(&[("f", b"f")]); 257];
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config =
        json!({ "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    docker.add_config(&["t/tall:1"], config.to_string().as_bytes(), &[]);
    let error = take(open(docker.dir.path(), BOTH[0]).unwrap(), &[]).err().unwrap();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().contains("257 layers; at most 256"), "{error}");
}

/// The stores of two graph drivers have the same layers.
#[test]
fn a_layer_that_one_driver_has_damaged_is_read_from_the_other() {
    type Damage = fn(&DockerDir);
    let damages: [Damage; 2] = [
        |docker| fs::remove_dir_all(docker.files_of(&chains()[0])).unwrap(),
        |docker| {
            let mut parts = split(&app_layers()[0]);
            parts.lines.truncate(1);
            fs::write(record(docker, "tar-split.json.gz"), parts.compressed()).unwrap();
        },
    ];
    for (nth, damage) in damages.into_iter().enumerate() {
        let (docker, mut other) = (app("overlay2"), DockerDir::new("vfs"));
        other.add(&["t/other:1"], &app_layers());
        for directory in ["image/vfs", "vfs"] {
            fs::rename(other.dir.path().join(directory), docker.dir.path().join(directory)).unwrap();
        }
        if nth == 1 {
            damage(&docker);
        }
        let store = open(docker.dir.path(), BOTH[0]).unwrap();
        store.roots(&[by_name("t/app:1")]).unwrap();
        let manifest = store.roots(&[by_name("t/other:1")]).unwrap().remove(0).read(&store).unwrap();
        if nth == 0 {
            damage(&docker);
        }
        for (layer, expected) in manifest.layers().iter().zip(app_layers()) {
            let mut bytes = Vec::new();
            store.open(layer, 0).unwrap().read_to_end(&mut bytes).unwrap();
            assert!(bytes == expected, "{nth}");
        }
    }
}

#[test]
fn a_message_does_not_quote_a_text_of_megabytes() {
    for name in ["x".repeat(3 << 20), format!("t/app:{}", "\u{1b}[31m".repeat(100_000))] {
        let docker = app("overlay2");
        let text = json!({ "Repositories": { "t": { name: "../../x" } } }).to_string();
        fs::write(docker.image().join("repositories.json"), text).unwrap();
        let found = open(docker.dir.path(), BOTH[0]).and_then(|store| take(store, &[by_name("t/none:1")]));
        let error = found.err().unwrap().to_string();
        assert!(error.len() < 1500 && error.contains("is not a digest") && !error.contains('\u{1b}'), "{error}");
    }
    let docker = app("overlay2");
    let line = json!({ "type": "x".repeat(100_000), "position": 0 }).to_string();
    fs::write(record(&docker, "tar-split.json.gz"), gzip(line.as_bytes())).unwrap();
    let error = open(docker.dir.path(), BOTH[0]).and_then(|store| take(store, &[])).err().unwrap().to_string();
    assert!(error.len() < 1500 && error.contains("invalid line 0"), "{error}");
}
