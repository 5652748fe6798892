//! The command line as a user meets it: answers on standard output, talk on standard error, and the exit status.

#[path = "support/mod.rs"]
mod support;

use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Command, Stdio},
};
use support::program::{Output, command, fixture, imgmv};
use support::some_registry::Registry;
use tempfile::TempDir;

/// `fixtures/layout`'s `hello`, with gzip layers.
const HELLO: &str = "sha256:602b22ac0877e98491067019bf894774c63bd3f2b4be96809c3c1e9a29cca06c";

fn status(out: &Output) -> i32 {
    out.status.code().expect("not ended by a signal")
}

/// A run that goes well.
fn good(args: &[&str]) -> Output {
    let out = imgmv(args, None);
    assert_eq!(status(&out), 0, "{args:?}: {}", out.stderr);
    out
}

fn json(out: &Output) -> Value {
    let document: Value = serde_json::from_str(&out.stdout).expect("one JSON document");
    assert_eq!(document["version"], 2);
    document
}

/// A copy of `fixtures/layout` to spoil.
fn layout(dir: &Path) -> String {
    let to = dir.join("layout");
    let copied = Command::new("cp").arg("-r").arg(fixture("layout")).arg(&to).status().unwrap();
    assert!(copied.success());
    to.display().to_string()
}

#[test]
fn each_kind_of_failure_has_its_exit_status_and_leaves_standard_output_empty() {
    let dir = TempDir::new().unwrap();
    let layout = format!("oci:{}", layout(dir.path()));
    let into = |name: &str| format!("{}/{name}", dir.path().display());
    let (archive, nowhere) = (fixture("hello-docker20.tar"), into("not/there/out.tar"));
    let (junk, out) = (into("junk.tar"), into("out.tar"));
    fs::write(&junk, "no archive").unwrap();
    for (expected, args, told) in [
        (2, &["copy", "registry-dir:", &out][..], "names no file"),
        (2, &["copy", "--", "-host:", &out], "names no host"),
        (2, &["copy", &archive, "user@-host:"], "host"),
        (2, &["copy", &archive, &into("out.tar.xz")], "| xz > "),
        (2, &["copy", &archive, dir.path().to_str().unwrap()], "is a directory"),
        (2, &["copy", "docker://h.lan/team/", &out], "names no image"),
        (2, &["copy", "ssh://node1/app", &out, "--ssh", "'"], "quote"),
        (7, &["copy", "ssh://node1/app", &out, "--ssh", "false"], "node1"),
        (2, &["copy", &archive, &out, &format!("oci-archive:{out}:app")], "are one destination"),
        (2, &["copy", &archive, "-", "-"], "named twice"),
        (2, &["copy", &archive, "ssh://node{1..3}", "node2:"], "are one destination"),
        (2, &["copy", &archive, "ssh://node{1..99999}"], "more than 10000"),
        (2, &["copy", "-", "--hosts", "-"], "wanted twice"),
        (3, &["copy", &archive, "--hosts", &into("absent.txt")], "absent.txt"),
        (2, &["copy", &layout, "-", "--json"], "standard output"),
        (2, &["copy", &archive, "containerd:", "--engine", "podman"], "--engine podman"),
        (2, &["save", &layout, &archive, "--as", "app:1", "-o", &out], "--as"),
        (2, &["tag", "ssh://node1/app", "app:2"], "tag works on"),
        (2, &["inspect", &fixture("two-images-docker28.tar"), "--raw"], "imgmv list"),
        (2, &["login", "127.0.0.1:1"], "--username"),
        (2, &["login", "127.0.0.1:1", "-u", "me"], "no password for me"),
        (2, &["copy", "127.0.0.1:1/app", &out, "--src-password-stdin"], "--src-creds"),
        (2, &["copy", "-", "127.0.0.1:1/app", "--dst-creds", "me", "--dst-password-stdin"], "wanted twice"),
        (3, &["copy", &into("absent.tar"), &out], "no such file"),
        (3, &["copy", &format!("{layout}:absent"), &out], "image absent was not found"),
        (3, &["blob", &layout, &format!("sha256:{}", "0".repeat(64))], "imgmv inspect"),
        (3, &["inspect", &fixture("hello-docker20.tar"), "--platform", "linux/s390x"], "linux/amd64"),
        (3, &["logout", "127.0.0.1:1", "--authfile", &into("auth.json")], "no credentials"),
        (5, &["copy", &junk, &out], "not an archive"),
        (6, &["copy", "127.0.0.1:1/app", &out, "--retry", "0"], "127.0.0.1:1"),
        (7, &["copy", &archive, "ssh://node1", "--ssh", "false"], "node1"),
        (8, &["copy", &archive, &nowhere], "cannot write"),
    ] {
        let run = imgmv(args, None);
        assert_eq!(status(&run), expected, "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(told), "{args:?}: {}", run.stderr);
        assert_eq!(run.stdout, "", "{args:?}");
    }
    assert!(!Path::new(&out).exists());
}

#[test]
fn a_failure_is_a_document_too_where_documents_were_asked_for() {
    let out = imgmv(&["list", "/not/there.tar", "--json"], None);
    assert_eq!(status(&out), 3);
    assert_eq!(json(&out)["error"]["kind"], "not_found");
    assert_eq!(json(&out)["error"]["exit_status"], 3);
}

#[test]
fn a_copy_answers_with_names_and_digests_and_the_second_one_moves_nothing() {
    let dir = TempDir::new().unwrap();
    let (from, to) = (fixture("layout"), format!("oci:{}/to:v1", dir.path().display()));
    let (src, digests) = (format!("oci:{from}:@{HELLO}"), dir.path().join("digests"));
    let out = good(&["copy", &src, &to, "--digest-file", digests.to_str().unwrap()]);
    assert_eq!(out.stdout, format!("v1@{HELLO}\n"));
    assert_eq!(fs::read_to_string(digests).unwrap(), format!("{HELLO}\n"));
    let again = json(&good(&["copy", &src, &to, "--json"]));
    assert_eq!((&again["transferred"]["blobs"], &again["errors"]), (&Value::from(0), &Value::Array(vec![])));
    assert_ne!(again["existing"]["bytes"], 0);
    let image = &again["images"][0];
    assert_eq!(
        (&image["names"][0], &image["digest"], &image["destination"]),
        (&"v1".into(), &HELLO.into(), &to.into())
    );
    assert!(again["seconds"].is_f64());
}

#[test]
fn a_dry_run_tells_the_bytes_and_writes_nothing() {
    let dir = TempDir::new().unwrap();
    let archive = fixture("hello-docker20.tar");
    for to in ["oci:TO", "TO.tar", "-"] {
        let to = to.replace("TO", &format!("{}/to", dir.path().display()));
        let plan = json(&good(&["copy", &archive, &to, "--dry-run", "--json"]));
        assert_eq!(plan["dry_run"], true);
        assert_ne!(plan["transferred"]["bytes"], 0);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn of_several_destinations_those_that_failed_are_named_and_the_others_are_done() {
    let dir = TempDir::new().unwrap();
    let to = |name: &str| format!("{}/{name}", dir.path().display());
    let (first, bad, last) = (to("first.tar"), to("not/there.tar"), to("last.tar"));
    let out = imgmv(&["copy", &fixture("hello-docker20.tar"), &first, &bad, &last, "--json"], None);
    assert_eq!(status(&out), 9);
    let line_of = |word: &str| out.stderr.lines().filter(|line| line.trim().starts_with(word)).count();
    assert_eq!([&first, &bad, &last].map(|word| line_of(word)), [1; 3], "{}", out.stderr);
    assert_eq!(json(&out)["errors"][0]["destination"], bad.as_str());
    assert_eq!(json(&out)["images"].as_array().unwrap().len(), 2);
    let told: Vec<_> = json(&out)["destinations"].as_array().unwrap().iter().map(|one| one["status"].clone()).collect();
    assert_eq!(told, ["done", "failed", "done"]);
    assert!(Path::new(&first).exists() && Path::new(&last).exists());
}

#[test]
fn an_archive_on_standard_output_comes_alone() {
    let dir = TempDir::new().unwrap();
    let (source, file) = (format!("oci:{}", fixture("layout")), dir.path().join("file.tar"));
    good(&["copy", &source, file.to_str().unwrap()]);
    let piped = good(&["save", &source]);
    assert!(piped.bytes == fs::read(&file).unwrap(), "the bytes of a pipe are not those of a file");
    assert!(piped.stderr.contains(HELLO));
}

#[test]
fn several_images_are_saved_into_one_archive_with_names_of_their_own() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("bundle.tar").display().to_string();
    let (hello, two) = (fixture("hello-docker28c.tar"), fixture("two-images-docker20.tar"));
    good(&["save", &format!("docker-archive:{two}:bye-imgmv:1"), &hello, "-o", &out]);
    let names = good(&["list", &out]).stdout;
    assert_eq!(names, "docker.io/library/bye-imgmv:1\ndocker.io/library/hello-imgmv:1\n");
    let listed = json(&good(&["list", &out, "--json"]));
    assert_eq!(listed["images"][1]["digest"], HELLO);
}

#[test]
fn inspect_shows_the_whole_chain_and_exact_bytes() {
    let source = format!("oci:{}:@{HELLO}", fixture("layout"));
    let shown = json(&good(&["inspect", &source, "--json"]));
    let manifest = &shown["images"][0]["manifests"][0];
    assert_eq!(manifest["platform"], "linux/amd64");
    let blobs: Vec<&Value> =
        std::iter::once(&manifest["config"]).chain(manifest["layers"].as_array().unwrap()).collect();
    assert_eq!(blobs.len(), 4);
    let text = good(&["inspect", &source]).stdout;
    for blob in &blobs {
        let digest = blob["digest"].as_str().unwrap();
        assert!(text.contains(digest));
        let bytes = good(&["blob", &source, digest]).bytes;
        assert_eq!(bytes.len() as u64, blob["size"].as_u64().unwrap());
        assert_eq!(imgmv::Digest::of(&bytes).to_string(), digest);
    }
    let raw = good(&["inspect", &source, "--raw"]).bytes;
    assert_eq!(imgmv::Digest::of(&raw).to_string(), HELLO);
    let config = good(&["inspect", &source, "--config"]).bytes;
    assert_eq!(imgmv::Digest::of(&config).to_string(), manifest["config"]["digest"].as_str().unwrap());
}

#[test]
fn an_index_is_shown_with_its_platforms_and_one_of_them_is_picked() {
    let source = format!("oci:{}", fixture("multi"));
    let shown = json(&good(&["inspect", &source, "--json"]));
    let image = &shown["images"][0];
    assert_eq!(image["indexes"][0]["digest"], image["digest"]);
    let platforms: Vec<&str> =
        image["manifests"].as_array().unwrap().iter().filter_map(|m| m["platform"].as_str()).collect();
    assert!(platforms.len() > 1 && platforms.contains(&"linux/arm64"), "{platforms:?}");
    let one = json(&good(&["inspect", &source, "--json", "--platform", "linux/arm64"]));
    let manifests = one["images"][0]["manifests"].as_array().unwrap();
    assert_eq!(manifests.len(), 1);
    let digest = good(&["digest", &source, "--platform", "linux/arm64"]).stdout;
    assert_eq!(digest.trim(), manifests[0]["digest"].as_str().unwrap());
    assert_eq!(good(&["digest", &source]).stdout.trim(), image["digest"].as_str().unwrap());
    let config: Value =
        serde_json::from_slice(&good(&["inspect", &source, "--config", "--platform", "arm64"]).bytes).unwrap();
    assert_eq!(config["architecture"], "arm64");
}

#[test]
fn verify_reads_everything_and_names_what_is_broken() {
    let dir = TempDir::new().unwrap();
    let layout = layout(dir.path());
    let source = format!("oci:{layout}");
    let fine = good(&["verify", &source]).stdout;
    assert!(fine.lines().all(|line| line.contains(" ok, ")) && fine.contains(HELLO), "{fine}");
    let shown = json(&good(&["inspect", &format!("{source}:@{HELLO}"), "--json"]));
    let layer = shown["images"][0]["manifests"][0]["layers"][1]["digest"].as_str().unwrap();
    let file = format!("{layout}/blobs/{}", layer.replace(':', "/"));
    let mut bytes = fs::read(&file).unwrap();
    bytes[20] ^= 1;
    fs::remove_file(&file).unwrap();
    fs::write(&file, bytes).unwrap();
    let out = imgmv(&["verify", &source], None);
    assert_eq!(status(&out), 5, "{}", out.stderr);
    assert!(out.stderr.contains(layer) && out.stdout.contains(" broken, "), "{}{}", out.stdout, out.stderr);
    let blob = imgmv(&["blob", &source, layer], None);
    assert_eq!(status(&blob), 5);
    assert!(blob.stderr.contains("discard the output"), "{}", blob.stderr);
    fs::remove_file(&file).unwrap();
    assert_eq!(status(&imgmv(&["verify", &source], None)), 5);
}

#[test]
fn verify_checks_layers_against_the_configs_diff_ids() {
    let dir = TempDir::new().unwrap();
    let blobs = dir.path().join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let keep = |media_type: &str, bytes: &[u8]| {
        let kept = imgmv::Descriptor::of(media_type, bytes);
        fs::write(blobs.join(kept.digest.hex()), bytes).unwrap();
        kept
    };
    let layer = keep("application/vnd.oci.image.layer.v1.tar", b"a layer");
    let listed = imgmv::Digest::of(b"another layer");
    let config =
        format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{listed}"]}}}}"#);
    let config = keep("application/vnd.oci.image.config.v1+json", config.as_bytes());
    let manifest = imgmv::Manifest::synthesise(&config, &[layer]);
    keep(&manifest.descriptor.media_type, &manifest.bytes);
    let mut index = imgmv::internals::image::LayoutIndex::default();
    index.point(None, &manifest.descriptor);
    fs::write(dir.path().join("index.json"), index.bytes()).unwrap();
    fs::write(dir.path().join("oci-layout"), imgmv::internals::image::LayoutIndex::layout_file()).unwrap();
    let out = imgmv(&["verify", &format!("oci:{}", dir.path().display())], None);
    assert_eq!(status(&out), 5);
    assert!(out.stderr.contains(&listed.to_string()), "{}", out.stderr);
}

#[test]
fn an_archive_that_passes_once_answers_like_one_in_a_file() {
    for name in ["hello-docker20.tar", "hello-docker28c.tar", "two-images-podman.tar"] {
        let file = fixture(name);
        for verb in ["list", "digest", "verify"] {
            let piped = imgmv(&[verb, "-"], Some(Path::new(&file)));
            assert_eq!(status(&piped), 0, "{verb} {name}: {}", piped.stderr);
            assert_eq!(piped.stdout, good(&[verb, &file]).stdout, "{verb} {name}");
        }
    }
}

#[test]
fn a_tag_is_one_more_name_for_the_same_image() {
    let dir = TempDir::new().unwrap();
    let layout = format!("oci:{}", layout(dir.path()));
    let archive = dir.path().join("app.tar");
    fs::copy(fixture("hello-docker28c.tar"), &archive).unwrap();
    let registry = Registry::start(dir.path());
    let there = format!("docker://{}/tagged/app", registry.address);
    good(&["copy", archive.to_str().unwrap(), &format!("{there}:1")]);
    for (place, selector, name, listed) in [
        (layout, format!(":@{HELLO}"), "stable", "stable".to_owned()),
        (archive.display().to_string(), String::new(), "app:stable", "docker.io/library/app:stable".to_owned()),
        (there, ":1".to_owned(), "stable", format!("{}/tagged/app:stable", registry.address)),
    ] {
        let out = good(&["tag", &format!("{place}{selector}"), name]);
        assert_eq!(out.stdout, format!("{listed}@{HELLO}\n"), "{place}");
        let names = good(&["list", &place]).stdout;
        assert!(names.lines().count() > 1 && names.lines().any(|name| name == listed), "{place}: {names}");
    }
}

#[test]
fn every_image_of_an_archive_goes_below_a_prefix_under_its_own_path() {
    let dir = TempDir::new().unwrap();
    let registry = Registry::start(dir.path());
    let prefix = format!("docker://{}/mirror/", registry.address);
    let out = good(&["copy", &fixture("two-images-docker28.tar"), &prefix]);
    assert_eq!(out.stdout.lines().count(), 3, "{}", out.stdout);
    let listed = good(&["list", &format!("{prefix}library/hello-imgmv")]).stdout;
    let mut tags: Vec<&str> = listed.lines().collect();
    tags.sort();
    let name = |tag: &str| format!("{}/mirror/library/hello-imgmv:{tag}", registry.address);
    assert_eq!(tags, [name("1"), name("latest")]);
    let piped = imgmv(&["copy", "-", &prefix], Some(Path::new(&fixture("two-images-docker28.tar"))));
    assert_eq!(status(&piped), 2, "{}", piped.stderr);
}

#[test]
fn names_come_from_as_where_the_destination_gives_none() {
    let dir = TempDir::new().unwrap();
    let registry = Registry::start(dir.path());
    let archive = fixture("hello-docker28c.tar");
    let repository = format!("{}/named/app", registry.address);
    let out = good(&["copy", &archive, &repository, "--as", "2", "--as", "stable"]);
    assert_eq!(out.stdout, format!("{repository}:2@{HELLO}\n{repository}:stable@{HELLO}\n"));
    let out = good(&["copy", &archive, &format!("{repository}:3"), "--as", "4"]);
    assert_eq!(out.stdout, format!("{repository}:3@{HELLO}\n"));
    assert!(out.stderr.contains("--as is ignored"), "{}", out.stderr);
    let pinned = format!("{repository}:3@{HELLO}");
    let to = dir.path().join("pinned.tar");
    assert_eq!(good(&["save", &pinned, "-o", to.to_str().unwrap()]).stdout, format!("{pinned}\n"));
}

#[test]
fn options_come_from_the_environment_too_and_secrets_are_not_shown() {
    let dir = TempDir::new().unwrap();
    let run = |args: &[&str]| {
        let mut command = command(env!("CARGO_BIN_EXE_imgmv"));
        command.args(args).env("IMGMV_JSON", "1").env("IMGMV_SRC_CREDS", "me:secret").env("IMGMV_DRY_RUN", "false");
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert!(!run(&["copy", "--help"]).contains("secret"));
    let to = format!("oci:{}/to", dir.path().display());
    let document: Value = serde_json::from_str(&run(&["copy", &fixture("hello-docker20.tar"), &to])).unwrap();
    assert_eq!(document["dry_run"], false);
}

#[test]
fn a_login_is_tried_and_kept() {
    let dir = TempDir::new().unwrap();
    let registry = Registry::start(dir.path());
    let (password, kept) = (dir.path().join("password"), dir.path().join("auth.json"));
    fs::write(&password, "open sesame\n").unwrap();
    let kept = kept.to_str().unwrap();
    let out = imgmv(&["login", &registry.address, "-u", "me", "--password-stdin", "--authfile", kept], Some(&password));
    assert_eq!(status(&out), 0, "{}", out.stderr);
    assert!(fs::read_to_string(kept).unwrap().contains(&registry.address));
    assert!(!out.stdout.contains("sesame") && !out.stderr.contains("sesame"));
    good(&["logout", &registry.address, "--authfile", kept]);
    assert!(!fs::read_to_string(kept).unwrap().contains(&registry.address));
}

#[test]
fn a_reader_who_leaves_early_is_not_scolded() {
    let mut child = command(env!("CARGO_BIN_EXE_imgmv"))
        .args(["list", &fixture("two-images-docker28.tar"), "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(8), ""));
}

#[test]
fn a_signal_ends_a_copy_and_is_told_by_the_exit_status() {
    for (signal, expected) in [("INT", 130), ("TERM", 143)] {
        let dir = TempDir::new().unwrap();
        let mut child = command(env!("CARGO_BIN_EXE_imgmv"))
            .args(["copy", "-", &format!("oci:{}/to:v1", dir.path().display()), "--progress", "json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let archive = fs::read(fixture("hello-docker20.tar")).unwrap();
        // The end never comes; the copy is under way once a blob has begun.
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&archive[..archive.len() / 2]).unwrap();
        let mut talk = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        assert!(talk.any(|line| line.contains(r#""event":"blob_start""#)));
        let killed = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        assert_eq!(child.wait().unwrap().code(), Some(expected), "{signal}");
        assert!(talk.any(|line| line.contains("interrupted")));
        assert!(!dir.path().join("to/index.json").exists());
        drop(stdin);
    }
}

#[test]
fn progress_for_machines_is_json_and_quiet_is_silent() {
    let dir = TempDir::new().unwrap();
    let to = |name: &str| format!("oci:{}/{name}", dir.path().display());
    let archive = fixture("hello-docker20.tar");
    let told = good(&["copy", &archive, &to("a"), "--progress", "json"]).stderr;
    let events: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    for name in ["plan", "blob_start", "blob_end", "info"] {
        assert!(events.iter().any(|event| event["event"] == name), "{name}: {told}");
    }
    assert_eq!(good(&["copy", &archive, &to("b"), "-q"]).stderr, "");
}

#[test]
fn man_pages_are_made_from_the_command_lines_own_definition() {
    let dir = TempDir::new().unwrap();
    good(&["man", dir.path().to_str().unwrap()]);
    let names = |dir: &Path| {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|page| page.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
    assert_eq!(names(dir.path()), names(&kept));
    for name in names(&kept) {
        let (made, kept) = (fs::read_to_string(dir.path().join(&name)), fs::read_to_string(kept.join(&name)));
        assert!(made.unwrap() == kept.unwrap(), "man/{} is old; run: imgmv man man", name.display());
    }
}

#[test]
fn completions_are_scripts_that_their_shells_read() {
    for (shell, program, args) in
        [("bash", "bash", &["-n"][..]), ("zsh", "zsh", &["-n"]), ("fish", "fish", &["--no-execute"])]
    {
        let script = good(&["completions", shell]).stdout;
        assert!(script.contains("inspect"), "{shell}");
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("script");
        fs::write(&file, script).unwrap();
        match Command::new(program).args(args).arg(&file).status() {
            Ok(read) => assert!(read.success(), "{shell}"),
            Err(_) => println!("skipped: no {shell} on PATH"),
        }
    }
}
