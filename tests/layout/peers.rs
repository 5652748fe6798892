//! Layouts of other tools, and ours in their hands.

use super::*;

/// Whether the peer is here; a run that must have it fails without.
fn peer(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let here = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    if !here {
        assert_ne!(std::env::var("IMGMV_REQUIRE_PEERS").as_deref(), Ok("1"), "no {program} on PATH");
        println!("skipped: no {program} on PATH");
    }
    here
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// The fixture's first image under the tag `v1`, as written here.
fn fixture(dir: &Dir) -> Digest {
    let store = LayoutStore::open(Path::new("fixtures/layout")).unwrap();
    let root = store.roots(&[Selector::Name("1".into())]).unwrap().remove(0).descriptor.digest;
    let naming = imgmv::Naming::Names(vec![Name::new("v1").unwrap()]);
    let options = Options { selectors: vec![Selector::Digest(root)], naming, ..Options::default() };
    let (source, sink) = (Source::Store(Arc::new(store)), dir.sink(BlobCheck::Size));
    copy(source, &sink, &options, None, &Silent, &Cancel::default()).unwrap();
    root
}

#[test]
fn what_skopeo_writes_is_read_and_the_other_way_round() {
    for skopeo in ["skopeo", "skopeo-new"] {
        if !peer(skopeo) {
            continue;
        }
        let dir = Dir::new();
        let digest = fixture(&dir);
        let ours = format!("oci:{}:v1", dir.layout().display());
        let raw = run(skopeo, &["inspect", "--raw", &ours]);
        assert_eq!(Digest::of(raw.as_bytes()), digest);
        let theirs = format!("oci:{}:theirs", dir.at("theirs").display());
        run(skopeo, &["--insecure-policy", "copy", &ours, &theirs]);
        let back = Kept::new(takes());
        put(Arc::new(LayoutStore::open(&dir.at("theirs")).unwrap()), &back).unwrap();
        assert_eq!(back.state().names["theirs"], digest);
        // Both in one directory: each keeps what the other wrote.
        run(skopeo, &["--insecure-policy", "copy", &ours, &format!("oci:{}:more", dir.layout().display())]);
        dir.take(&one(3, "ours")).unwrap();
        let mut names: Vec<String> = dir.store().names().unwrap().iter().map(Name::to_string).collect();
        names.sort();
        assert_eq!(names, ["more", "ours", "v1"]);
    }
}

#[test]
fn what_umoci_writes_is_read_and_the_other_way_round() {
    if !peer("umoci") {
        return;
    }
    let dir = Dir::new();
    let digest = fixture(&dir);
    assert_eq!(run("umoci", &["ls", "--layout", dir.layout().to_str().unwrap()]).trim(), "v1");
    run("umoci", &["tag", "--image", &format!("{}:v1", dir.layout().display()), "v2"]);
    run("umoci", &["gc", "--layout", dir.layout().to_str().unwrap()]);
    let back = Kept::new(takes());
    put(Arc::new(dir.store()), &back).unwrap();
    let names = &back.state().names;
    assert_eq!((names["v1"], names["v2"]), (digest, digest));
}

#[test]
fn layouts_of_other_tools_are_read() {
    for (layout, images) in [("fixtures/layout", 2), ("fixtures/layout-umoci", 1), ("fixtures/multi", 1)] {
        let store = LayoutStore::open(Path::new(layout)).unwrap();
        assert_eq!(store.names().unwrap().len(), images, "{layout}");
        let sink = Kept::new(takes());
        put(Arc::new(store), &sink).unwrap();
        for (digest, bytes) in &sink.state().blobs {
            assert_eq!(Digest::of(bytes), *digest);
        }
    }
}
