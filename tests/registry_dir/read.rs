//! Reading a tree.

use super::*;

#[test]
fn an_image_is_found_by_every_name_that_means_it() {
    let (dir, memory) = (Dir::new(), sample());
    dir.put(&memory).unwrap();
    let store = dir.store();
    assert_eq!(names(&store), ["localhost/library/app:2", "localhost/t/multi:1"]);
    let [multi, app] = [0, 1].map(|nth| memory.roots[nth].descriptor.digest);
    for (text, digest) in [
        ("t/multi:1", multi),
        ("localhost/t/multi:1", multi),
        ("quay.io/t/multi:1", multi),
        ("library/app:2", app),
        ("app:2", app),
        ("docker.io/library/app:2", app),
        ("2", app),
        (&format!("library/app@{app}"), app),
        (&format!("library/app:2@{app}"), app),
    ] {
        assert_eq!(selected(&store, text).unwrap(), digest, "{text}");
    }
    for text in ["app", "t/multi:2", "t:1", "t/multi/x:1", &format!("library/app@{multi}")] {
        let error = selected(&store, text).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{text}: {error}");
    }
    assert_eq!(store.roots(&[Selector::Digest(multi)]).unwrap()[0].name, None);
    // `latest` is the tag of a repository without one.
    dir.put(&one(7, 100, "docker.io/library/app:latest")).unwrap();
    assert!(selected(&dir.store(), "library/app").is_ok());
}

#[test]
fn the_root_directory_and_the_tree_itself_are_one_place() {
    let (dir, memory) = (Dir::new(), sample());
    dir.put(&memory).unwrap();
    let store = RegistryDirStore::open(&dir.tree.base()).unwrap();
    assert_eq!(names(&store).len(), 2);
    put(
        Arc::new(one(9, 10, "h.lan/x:1")),
        &RegistryDirSink::open(&dir.tree.base(), BlobCheck::Size, Arc::new(Silent)).unwrap(),
    )
    .unwrap();
    assert_eq!(dir.tree.resolves(), 3);
    assert_eq!(names(&dir.store()).len(), 3);
    // A path without the tree's name at its end.
    for (at, path) in [("", "."), ("blobs", "..")] {
        let mut run = support::program::command(env!("CARGO_BIN_EXE_imgmv"));
        let run = run.args(["list", &format!("registry-dir:{path}")]).current_dir(dir.tree.base().join(at));
        let done = run.output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&done.stdout).lines().count(),
            3,
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
}

/// A registry stores a push by sha512 as sha256 data, with a sha512 link whose content is the sha256 digest.
#[test]
fn a_links_content_counts_and_not_its_path() {
    let (dir, mut memory) = (Dir::new(), Memory::default());
    let sha512 = |bytes: &[u8]| Hasher::new(Algorithm::Sha512).with(bytes).finish();
    let (config, bytes) = (memory.keep(media_type::OCI_CONFIG, b"{\"os\":\"linux\"}".to_vec()), layer(1, 3_000));
    let layer = Descriptor::new(media_type::OCI_LAYER, sha512(&bytes), bytes.len() as u64);
    let manifest = Manifest::synthesise(&config, std::slice::from_ref(&layer));
    dir.tree.put_layer("t/app", &config.digest, &memory.blobs[&config.digest]);
    dir.tree.put_data(&Digest::of(&bytes), &bytes);
    let link = dir.tree.layer_link("t/app", &layer.digest);
    write_file(&link, Digest::of(&bytes).to_string().as_bytes());
    let by_sha512 = sha512(&manifest.bytes);
    dir.tree.put_data(&manifest.digest(), &manifest.bytes);
    write_file(&dir.tree.revision_link("t/app", &by_sha512), manifest.digest().to_string().as_bytes());
    write_file(&dir.tree.tag_link("t/app", "1"), by_sha512.to_string().as_bytes());
    let store = dir.store();
    let root = store.roots(&[by_name("t/app:1")]).unwrap().remove(0);
    assert_eq!((root.descriptor.digest, root.descriptor.size), (by_sha512, manifest.bytes.len() as u64));
    assert_eq!(root.read(&store).unwrap().bytes, manifest.bytes);
    let mut read = Vec::new();
    store.open(&layer, 100).unwrap().read_to_end(&mut read).unwrap();
    assert!(read == bytes[100..]);
    assert_eq!(store.find(&layer.digest).unwrap().unwrap().size, bytes.len() as u64);
}

#[test]
fn referrers_are_those_of_the_tag_that_clients_keep() {
    let (dir, mut memory) = (Dir::new(), Memory::default());
    let image = memory.image("linux/amd64", &[layer(1, 100)]);
    memory.name("h.lan/t/app:1", &image);
    let signature = memory.image("linux/amd64", &[layer(2, 100)]);
    let index = memory.index(std::slice::from_ref(&signature));
    dir.put(&memory).unwrap();
    dir.tree.put_manifest("t/app", &index.digest, &memory.blobs[&index.digest]);
    dir.tree.put_tag("t/app", &format!("sha256-{}", image.digest.hex()), &index.digest);
    let store = dir.store();
    store.roots(&[by_name("t/app:1")]).unwrap();
    let found: Vec<Digest> = store.referrers(&image.digest).unwrap().entries.iter().map(|one| one.digest).collect();
    assert_eq!(found, [signature.digest]);
    assert_eq!(store.referrers(&signature.digest).unwrap(), ReferrerList::default());
}

#[test]
fn a_directory_that_is_not_a_tree_is_named_with_what_to_write() {
    let dir = Dir::new();
    let told = |path: &Path| {
        let error = RegistryDirStore::open(path).err().expect("it is not a tree");
        (error.kind(), error.to_string())
    };
    let (kind, message) = told(&dir.at("absent"));
    assert!(kind == Kind::NotFound && message.contains("does not exist"), "{message}");
    let (kind, message) = told(dir.dir.path());
    assert!(kind == Kind::Invalid && message.contains("has no docker/registry/v2"), "{message}");
    let (kind, message) = told(Path::new("fixtures/layout"));
    assert!(kind == Kind::Invalid && message.contains("write oci:DIR"), "{message}");
    let (kind, message) = told(Path::new("Cargo.toml"));
    assert!(kind == Kind::Usage && message.contains("is not a directory"), "{message}");
}

/// A registry that is just writing a tag leaves it so for a moment, a damaged tree for ever.
#[test]
fn a_tag_without_its_link_is_named_and_is_not_an_image() {
    let (dir, memory) = (Dir::new(), sample());
    dir.put(&memory).unwrap();
    let root = memory.roots[1].descriptor.digest;
    write_file(&dir.tree.index_link("library/app", "new", &root), root.to_string().as_bytes());
    // A folder in which there is nothing yet, or nothing any more.
    fs::create_dir(dir.tree.repository("library/app").join("_manifests/tags/empty")).unwrap();
    let told = Arc::new(Told::default());
    let store = dir.store().tell(told.clone());
    assert_eq!(names(&store).len(), 2);
    let link = dir.tree.tag_link("library/app", "new").display().to_string();
    let is_named = |text: &str| text.contains(&link) && text.contains(&format!("select library/app@{root}"));
    assert!(told.all().len() == 1 && is_named(&told.all()[0]), "{:?}", told.all());
    let told = Arc::new(Told::default());
    assert_eq!(dir.store().tell(told.clone()).roots(&[]).unwrap().len(), 2);
    assert!(told.all().len() == 1 && is_named(&told.all()[0]), "{:?}", told.all());
    let error = selected(&store, "library/app:new").unwrap_err();
    assert!(error.kind() == Kind::NotFound && is_named(&error.to_string()), "{error}");
    assert_eq!(selected(&store, &format!("library/app@{root}")).unwrap(), root);
    for verb in ["list", "verify"] {
        let done = support::program::imgmv(&[verb, &dir.address("")], None);
        assert!(done.status.success() && done.stderr.contains(&link), "{verb}: {}", done.stderr);
    }
}

/// As for a repository of a registry.
#[test]
fn the_tags_of_a_repository_are_listed() {
    let (dir, mut memory) = (Dir::new(), sample());
    let app = memory.roots[1].descriptor.clone();
    memory.name("docker.io/library/app:latest", &app);
    memory.name("docker.io/library/app/deep:1", &app);
    dir.put(&memory).unwrap();
    let listed = |reference: &str| support::program::imgmv(&["list", &dir.address(reference)], None);
    // `library/app` is there under its path, and `app` means it.
    for reference in ["library/app", "app", "localhost/library/app"] {
        let done = listed(reference);
        let mut lines: Vec<&str> = done.stdout.lines().collect();
        lines.sort();
        assert_eq!(lines, ["localhost/library/app:2", "localhost/library/app:latest"], "{reference}: {}", done.stderr);
    }
    assert_eq!(listed("library/app:2").stdout, "localhost/library/app:2\n");
    // A tag alone, and a digest.
    assert_eq!(listed("2").stdout, "localhost/library/app:2\n");
    assert!(listed(&format!("library/app@{}", app.digest)).stdout.contains("localhost/library/app"));
    // A folder above repositories, and a repository without a tag.
    assert_eq!(listed("library").status.code(), Some(3));
    fs::remove_dir_all(dir.tree.repository("library/app/deep").join("_manifests/tags")).unwrap();
    let done = listed("library/app/deep");
    assert!(done.status.success() && done.stdout.is_empty(), "{}{}", done.stdout, done.stderr);
    assert!(done.stderr.contains("library/app/deep has no tag"), "{}", done.stderr);
    // What cannot be read is named.
    fs::remove_file(dir.tree.tag_link("library/app", "2")).unwrap();
    let done = listed("library/app");
    assert_eq!(done.stdout, "localhost/library/app:latest\n");
    assert!(done.stderr.contains(&dir.tree.tag_link("library/app", "2").display().to_string()), "{}", done.stderr);
}

/// An old image whose tag moved is there, and its digest reads it.
#[test]
fn a_copy_of_all_tags_tells_what_has_no_tag() {
    let (dir, memory) = (Dir::new(), sample());
    dir.put(&memory).unwrap();
    let told = || {
        let told = Arc::new(Told::default());
        dir.store().tell(told.clone()).roots(&[]).unwrap();
        told.all()
    };
    // The index of the children has a tag.
    assert!(told().is_empty(), "{:?}", told());
    let old: Vec<Digest> = (1..=5)
        .map(|seed| {
            let old = one(seed, 1_000, "h.lan/t/app:1");
            dir.put(&old).unwrap();
            old.roots[0].descriptor.digest
        })
        .collect();
    let [message] = &told()[..] else { panic!("{:?}", told()) };
    assert!(message.starts_with("4 manifests are without a tag") && message.contains(" and 1 more"), "{message}");
    assert!(old[..4].iter().any(|digest| message.contains(&format!("t/app@{digest}"))), "{message}");
    assert!(!message.contains(&old[4].to_string()), "{message}");
    // A registry that deletes a manifest leaves the folder of its link.
    old[..3].iter().for_each(|digest| fs::remove_file(dir.tree.revision_link("t/app", digest)).unwrap());
    assert!(told()[0].starts_with("1 manifest is without a tag"), "{:?}", told());
    let archive = dir.at("all.tar").display().to_string();
    let done = support::program::imgmv(&["copy", &dir.address(""), &archive], None);
    assert!(done.status.success() && done.stderr.contains(&format!("t/app@{}", old[3])), "{}", done.stderr);
}
