use super::*;
use crate::error::Kind;
use rustix::fs::{CWD, FileType, mkfifoat, mknodat};
use std::fs;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

/// A root with links of every kind, inside a directory with a secret. Every file contains its own path.
fn tree() -> (TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("root");
    let put = |name: &[u8]| {
        let path = root.join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    };
    fs::create_dir_all(root.join("a/b")).unwrap();
    for name in [&b"a/b/file"[..], b"top", b"etc/shadow", b"caf\xe9/\xff\xfe"] {
        put(name);
    }
    fs::write(temp.path().join("secret"), "outside").unwrap();
    for (link, target) in [
        ("to-b", "a/b"),
        ("absolute", "/a/b/file"),
        ("absolute-dir", "/a/b"),
        ("a/above", "../../../../../top"),
        ("outside", "../secret"),
        ("real-outside", temp.path().join("secret").to_str().unwrap()),
        ("shadow", "/etc/shadow"),
        ("a/b/back", "../../to-b/../../top"),
        ("chain0", "a/b/file"),
        ("loop", "loop"),
        ("ping", "pong"),
        ("pong", "ping"),
        ("dangling", "a/nothing"),
        ("dot", "."),
        ("slash", "/"),
        ("slashed", "a/b/"),
    ] {
        symlink(target, root.join(link)).unwrap();
    }
    for n in 1..=41 {
        symlink(format!("chain{}", n - 1), root.join(format!("chain{n}"))).unwrap();
    }
    mkfifoat(CWD, root.join("fifo"), Mode::RWXU).unwrap();
    symlink("fifo", root.join("to-fifo")).unwrap();
    (temp, root)
}

/// Runs `check` with the kernel's resolution and with that by hand.
fn both_ways(root: &Path, check: impl Fn(&Rooted)) {
    for resolution in [Resolution::Kernel, Resolution::ByHand] {
        println!("{resolution:?}");
        check(&Rooted::open(root, resolution).unwrap());
    }
}

fn content(rooted: &Rooted, name: &[u8]) -> Option<String> {
    let bytes = rooted.read(name, 100).unwrap_or_else(|error| panic!("{error}"))?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[test]
fn links_are_resolved_inside_the_root() {
    let (_temp, root) = tree();
    both_ways(&root, |rooted| {
        for (name, found) in [
            (&b"a/b/file"[..], "a/b/file"),
            (b"/a//b/./file", "a/b/file"),
            (b"to-b/file", "a/b/file"),
            (b"absolute", "a/b/file"),
            (b"absolute-dir/file", "a/b/file"),
            (b"dot/slash/dot/to-b/file", "a/b/file"),
            (b"slashed/file", "a/b/file"),
            (b"a/above", "top"),
            (b"a/b/back", "top"),
            (b"shadow", "etc/shadow"),
            (b"../../etc/shadow", "etc/shadow"),
            (b"/../../../etc/shadow", "etc/shadow"),
            // `to-b/..` is the root by its text, although the link leads to `a/b`.
            (b"to-b/../top", "top"),
            (b"nothing/../top", "top"),
            (b"chain39", "a/b/file"),
        ] {
            assert_eq!(content(rooted, name).as_deref(), Some(found), "{}", name.escape_ascii());
        }
        let other = rooted.read(b"caf\xe9/\xff\xfe", 100).unwrap().unwrap();
        assert_eq!(other, b"caf\xe9/\xff\xfe");
    });
}

#[test]
fn nothing_outside_the_root_is_opened() {
    let (temp, root) = tree();
    both_ways(&root, |rooted| {
        for name in
            ["outside", "real-outside", "../secret", "a/../../secret", "dangling", "nothing", "top/x", "a/nothing/x"]
        {
            assert_eq!(content(rooted, name.as_bytes()), None, "{name}");
        }
        let outside = format!("/../..{}", temp.path().join("secret").display());
        assert_eq!(content(rooted, outside.as_bytes()), None);
        assert!(rooted.directory("nothing").unwrap().is_none());
    });
}

#[test]
fn other_kinds_of_files_are_refused_by_name() {
    let (_temp, root) = tree();
    let device = mknodat(CWD, root.join("device"), FileType::CharacterDevice, Mode::RWXU, rustix::fs::makedev(1, 5));
    let socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    both_ways(&root, |rooted| {
        let mut names = vec!["fifo", "to-fifo", "socket", "a", "to-b", ".", "", "slash"];
        match device {
            Ok(()) => names.push("device"),
            Err(error) => println!("skipped: device: mknod: {error}"),
        }
        for name in names {
            let error = rooted.file(name).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{name}: {error}");
            assert!(error.to_string().contains("expected a regular file"), "{name}: {error}");
            assert!(error.to_string().contains(root.join(name).to_str().unwrap()), "{name}: {error}");
        }
        for name in ["loop", "ping", "chain41", "loop/x"] {
            let error = rooted.file(name).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{name}: {error}");
            assert!(error.to_string().contains("symbolic links"), "{name}: {error}");
        }
        for name in [&b"a\0b"[..], &[b'x'; 5000], &[b'x'; 300]] {
            let error = rooted.file(name).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{error}");
            assert!(error.to_string().contains("cannot be the path"), "{error}");
        }
        assert_eq!(rooted.directory("top").unwrap_err().kind(), Kind::Invalid);
        assert_eq!(rooted.directory("fifo").unwrap_err().kind(), Kind::Invalid);
    });
    drop(socket);
}

#[test]
fn a_directory_inside_is_a_root_for_itself() {
    let (_temp, root) = tree();
    both_ways(&root, |rooted| {
        let inner = rooted.directory("to-b").unwrap().unwrap();
        assert_eq!(content(&inner, b"../../top"), None);
        assert_eq!(content(&inner, b"/file").as_deref(), Some("a/b/file"));
        assert_eq!(inner.names(10).unwrap(), [&b"back"[..], b"file"]);
        assert!(inner.names(1).unwrap_err().to_string().contains("more than the 1 entries"));
        assert_eq!(inner.display("/x"), root.join("to-b/x").display().to_string());
    });
}

#[test]
fn a_large_file_is_refused_by_its_size() {
    let (_temp, root) = tree();
    let huge = File::create(root.join("huge")).unwrap();
    huge.set_len(1 << 30).unwrap();
    // A file that may not be read is refused by its size all the same.
    both_ways(&root, |rooted| {
        let error = rooted.read("huge", 71).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains("1073741824 bytes; at most 71"), "{error}");
        assert_eq!(rooted.read("top", 3).unwrap().as_deref(), Some(&b"top"[..]));
        assert!(rooted.read("top", 2).is_err());
    });
}
