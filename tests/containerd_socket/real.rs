//! Real daemons: what ctr wrote is read, what imgmv wrote is what ctr expects.

use crate::daemon::{Containerd, NAMESPACE};
use crate::line::Line;
use crate::support::program::{Output, command, fixture, imgmv};
use std::path::Path;
use tempfile::TempDir;

const NAME: &str = "docker.io/t/hello:1";
/// The manifest of `1` in `fixtures/layout`.
const HELLO: &str = "sha256:602b22ac0877e98491067019bf894774c63bd3f2b4be96809c3c1e9a29cca06c";

fn done(arguments: &[&str]) -> Output {
    let output = imgmv(arguments, None);
    assert!(output.status.success(), "{arguments:?}: {}", output.stderr);
    output
}

/// An archive of the image.
fn archive(dir: &Path) -> String {
    let file = dir.join("hello.tar").display().to_string();
    done(&["copy", &format!("oci:{}:1", fixture("layout")), &file, "--as", NAME]);
    file
}

#[test]
fn what_ctr_imported_is_listed_and_copied() {
    for containerd in Containerd::each() {
        let dir = TempDir::new().unwrap();
        containerd.ctr(&["images", "import", &archive(dir.path())]);
        let address = ["--src-address", &containerd.socket()];
        let listed = done(&[&["list", "containerd:"], &address[..]].concat());
        assert!(listed.stdout.contains(NAME), "{:?}: {}", containerd.release, listed.stdout);
        let copied = dir.path().join("copied.tar").display().to_string();
        done(&[&["copy", &format!("containerd:{NAME}"), &copied], &address[..]].concat());
        let digest = done(&["digest", &copied]).stdout;
        assert!(digest.contains(HELLO), "{:?}: {digest}", containerd.release);
        let missing = imgmv(&[&["copy", "containerd:no/such:1", "-"], &address[..]].concat(), None);
        assert_eq!(missing.status.code(), Some(3), "{}", missing.stderr);
        assert!(missing.stderr.contains(NAME), "{}", missing.stderr);
    }
}

#[test]
fn a_name_is_looked_for_in_every_namespace_unless_one_is_given() {
    for containerd in Containerd::each() {
        let dir = TempDir::new().unwrap();
        containerd.ctr(&["images", "import", &archive(dir.path())]);
        let other = ["--dst-address", &containerd.socket(), "--namespace", "other"];
        let bye = format!("oci:{}:bye", fixture("layout"));
        done(&[&["copy", &bye, "containerd:", "--as", "docker.io/t/bye:1"], &other[..]].concat());
        let address = ["--src-address", &containerd.socket()];
        let all = done(&[&["list", "containerd:"], &address[..]].concat()).stdout;
        assert!(all.contains(NAME) && all.contains("docker.io/t/bye:1"), "{all}");
        let one = done(&[&["list", "containerd:", "--src-namespace", "other"], &address[..]].concat()).stdout;
        assert!(!one.contains(NAME) && one.contains("docker.io/t/bye:1"), "{one}");
        let copied = dir.path().join("bye.tar").display().to_string();
        done(&[&["copy", "containerd:docker.io/t/bye:1", &copied], &address[..]].concat());
        let nowhere = imgmv(&[&["list", "containerd:", "--src-namespace", "nowhere"], &address[..]].concat(), None);
        assert_eq!(nowhere.status.code(), Some(3), "{}", nowhere.stderr);
        assert!(nowhere.stderr.contains(NAMESPACE), "{}", nowhere.stderr);
        // The same name with another image in another namespace.
        done(&[&["copy", &bye, "containerd:", "--as", NAME], &other[..]].concat());
        let two = imgmv(&[&["copy", &format!("containerd:{NAME}"), "-"], &address[..]].concat(), None);
        assert_eq!(two.status.code(), Some(2), "{}", two.stderr);
        assert!(two.stderr.contains("--src-namespace"), "{}", two.stderr);
    }
}

#[test]
fn what_is_written_is_complete_unpacked_and_survives_a_collection() {
    for containerd in Containerd::each() {
        let dir = TempDir::new().unwrap();
        let file = archive(dir.path());
        let socket = dir.path().join("line");
        let line = Line::new(&socket, containerd.socket().as_ref(), u64::MAX, || {});
        let to = ["--dst-address", socket.to_str().unwrap(), "--namespace", NAMESPACE];
        done(&[&["copy", &file, &format!("containerd:{NAME}")], &to[..]].concat());
        let first = line.up();
        let check = || {
            let table = containerd.ctr(&["images", "check", &format!("name=={NAME}")]);
            let row = table.lines().nth(1).unwrap_or_default().to_owned();
            assert!(row.contains(HELLO) && row.contains(" complete (") && row.contains("true"), "{table}");
        };
        check();
        assert_eq!(containerd.ctr(&["leases", "ls", "-q"]), "", "{:?}", containerd.release);
        assert_eq!(containerd.ctr(&["content", "active"]).lines().count(), 1);
        let before = (containerd.ctr(&["content", "ls", "-q"]), containerd.ctr(&["snapshots", "ls"]));
        containerd.collect_garbage();
        check();
        assert_eq!((containerd.ctr(&["content", "ls", "-q"]), containerd.ctr(&["snapshots", "ls"])), before);
        // The second run sends no blob.
        done(&[&["copy", &file, &format!("containerd:{NAME}")], &to[..]].concat());
        assert!(line.up() - first < first, "{} after {first}", line.up());
        check();
        // Without its name, everything is collected.
        containerd.ctr(&["images", "rm", "--sync", NAME]);
        assert_eq!(containerd.ctr(&["content", "ls", "-q"]), "", "{:?}", containerd.release);
        assert_eq!(containerd.ctr(&["snapshots", "ls"]).lines().count(), 1);
    }
}

#[test]
fn a_blob_of_another_namespace_is_adopted_and_a_lost_one_is_sent_again() {
    for containerd in Containerd::each() {
        let dir = TempDir::new().unwrap();
        let file = archive(dir.path());
        let socket = dir.path().join("line");
        let line = Line::new(&socket, containerd.socket().as_ref(), u64::MAX, || {});
        let copy = |namespace: &str| {
            let name = format!("containerd:{NAME}");
            let before = line.up();
            let to = ["--dst-address", socket.to_str().unwrap(), "--namespace", namespace];
            let output = done(&[&["copy", &file, &name], &to[..]].concat());
            (line.up() - before, output.stderr)
        };
        let ((first, _), (second, text)) = (copy("first"), copy(NAMESPACE));
        assert!(second + 15_000 < first, "{second} after {first}");
        assert!(text.contains("0 blobs transferred") && !text.contains("resuming"), "{text}");
        assert!(containerd.ctr(&["images", "check"]).contains(" complete ("));
        // A layer whose file is gone, though containerd lists it.
        let layers = containerd.ctr(&["content", "ls", "-q"]);
        let blobs = Path::new(&containerd.at("data")).join("io.containerd.content.v1.content/blobs/sha256");
        let layer = layers.lines().find(|digest| !digest.contains(HELLO)).unwrap().trim_start_matches("sha256:");
        std::fs::remove_file(blobs.join(layer)).unwrap();
        copy(NAMESPACE);
        assert!(blobs.join(layer).exists(), "{:?}", containerd.release);
    }
}

#[test]
fn the_environment_names_the_socket_unless_a_directory_is_named() {
    for containerd in Containerd::each() {
        let dir = TempDir::new().unwrap();
        let file = archive(dir.path());
        let run = |arguments: &[&str]| {
            let mut imgmv = command(env!("CARGO_BIN_EXE_imgmv"));
            imgmv.args(arguments).env("CONTAINERD_ADDRESS", containerd.socket()).env("CONTAINERD_NAMESPACE", NAMESPACE);
            let output = imgmv.output().unwrap();
            let (stdout, stderr) = (output.stdout, output.stderr);
            let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
            (output.status.code(), text)
        };
        let (status, text) = run(&["copy", &file, &format!("containerd:{NAME}")]);
        assert_eq!(status, Some(0), "{text}");
        assert!(containerd.ctr(&["images", "ls", "-q"]).contains(NAME));
        let (status, text) = run(&["list", "containerd:"]);
        assert!(status == Some(0) && text.contains(NAME), "{text}");
        let (status, text) = run(&["list", "containerd:", "--src-root", "/nowhere"]);
        assert!(status == Some(3) && text.contains("no containerd directory at /nowhere"), "{text}");
        let both = ["list", "containerd:", "--src-root", "/nowhere", "--src-address", "/none"];
        assert_eq!(run(&both).0, Some(2));
    }
}

#[test]
fn an_index_keeps_its_bytes_and_gets_the_image_of_the_host() {
    for containerd in Containerd::each() {
        let source = format!("oci:{}", fixture("multi"));
        let listed = done(&["list", &source]).stdout;
        let name = listed.split_whitespace().next().unwrap().to_owned();
        let to = ["--dst-address", &containerd.socket(), "--namespace", NAMESPACE];
        done(&[&["copy", &format!("{source}:{name}"), &format!("containerd:{NAME}")], &to[..]].concat());
        let digest = done(&["digest", &format!("{source}:{name}")]).stdout;
        let table = containerd.ctr(&["images", "check", &format!("name=={NAME}")]);
        assert!(table.contains(digest.trim()) && table.contains(" complete ("), "{table}");
        containerd.collect_garbage();
        assert_eq!(containerd.ctr(&["images", "check", &format!("name=={NAME}")]), table);
    }
}

#[test]
fn the_ends_of_a_socket_are_told_apart() {
    let dir = TempDir::new().unwrap();
    let told = |address: &Path, status: i32, words: &[&str]| {
        let address = address.display().to_string();
        for arguments in [
            vec!["list", "containerd:", "--src-address", &address, "--timeout", "2"],
            vec!["copy", "fixtures/hello-crane.tar", "containerd:a:1", "--dst-address", &address, "--timeout", "2"],
        ] {
            let output = imgmv(&arguments, None);
            assert_eq!(output.status.code(), Some(status), "{arguments:?}: {}", output.stderr);
            for word in words {
                assert!(output.stderr.contains(word), "{arguments:?}: {}", output.stderr);
            }
        }
    };
    told(&dir.path().join("none"), 3, &["does not exist", "-address"]);
    let gone = dir.path().join("gone");
    drop(std::os::unix::net::UnixListener::bind(&gone).unwrap());
    told(&gone, 7, &["nothing listens"]);
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    told(&file, 2, &["no socket"]);
}
