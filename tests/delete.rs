//! `imgmv delete`: a tag is deleted and nothing else, unless the user asks for more.

#[path = "support/mod.rs"]
mod support;

use imgmv::internals::image::media_type;
use imgmv::{Descriptor, Manifest};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use support::program::{Daemon, Output, command, fixture, imgmv};
use support::registry::{Double, Stumble, config, image};
use support::some_registry::Registry;
use tempfile::TempDir;

/// `imgmv serve --writable`.
struct Server {
    host: String,
    _runs: Daemon,
    _dir: TempDir,
}

impl Server {
    fn writable() -> Server {
        let dir = TempDir::new().unwrap();
        let mut serve = command(env!("CARGO_BIN_EXE_imgmv"));
        serve.arg("serve").arg(format!("oci:{}", dir.path().display())).args(["--writable", "--listen", "127.0.0.1:0"]);
        let mut child = serve.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let host = lines.find_map(|line| {
            line.unwrap().strip_prefix("listening on ").map(|url| url.rsplit('/').next().unwrap().to_owned())
        });
        std::thread::spawn(move || lines.for_each(drop));
        Server { host: host.expect("it listens"), _runs: Daemon(child), _dir: dir }
    }
}

fn run(args: &[&str]) -> (i32, Output) {
    let out = imgmv(args, None);
    (out.status.code().expect("not ended by a signal"), out)
}

fn good(args: &[&str]) -> Output {
    let (status, out) = run(args);
    assert_eq!(status, 0, "{args:?}: {}", out.stderr);
    out
}

fn fails(args: &[&str], expected: i32, told: &str) {
    let (status, out) = run(args);
    assert_eq!(status, expected, "{args:?}: {}", out.stderr);
    assert!(out.stderr.contains(told), "{args:?}: {}", out.stderr);
}

/// The names in a repository or layout.
fn names(place: &str) -> Vec<String> {
    let text = good(&["list", place]).stdout;
    // A layout also lists the referrers, which have no name.
    let named = text.lines().filter(|line| !line.starts_with('@'));
    named.map(|name| name.rsplit(':').next().unwrap().to_owned()).collect()
}

fn types(source: &str) -> Vec<String> {
    let document: Value = serde_json::from_str(&good(&["list", "--referrers", source, "--json"]).stdout).unwrap();
    let nodes = document["images"][0]["referrers"].as_array().unwrap().clone();
    nodes.iter().map(|node| node["type"].as_str().unwrap().to_owned()).collect()
}

/// An image `app:1` with a referrer and a tag of cosign, and the same image as `app:2`.
fn signed() -> (Double, Manifest) {
    let registry = Double::start();
    let app = registry.image("app", "1", &[b"layer"]);
    registry.tag_as("app", "2", app.digest());
    sign(&registry, &app);
    let old = image(&[b"an SBOM"]);
    registry.put_blob("app", b"an SBOM");
    registry.put_blob("app", config());
    registry.put_manifest("app", Some(&cosign_tag(&app)), &old);
    (registry, app)
}

fn cosign_tag(app: &Manifest) -> String {
    format!("{}.sbom", app.digest().to_string().replacen(':', "-", 1))
}

/// The signed image at `place`, with both tags.
fn copy_signed(to: &str, place: impl Fn(&str) -> String) -> Manifest {
    let (registry, app) = signed();
    for tag in ["1", "2"] {
        good(&["copy", &format!("{}/app:{tag}", registry.host()), &place(tag)]);
    }
    assert_eq!(names(to).len(), 3, "{to}");
    app
}

#[test]
fn only_the_tag_is_deleted() {
    let (server, dir) = (Server::writable(), TempDir::new().unwrap());
    let layout = format!("oci:{}", dir.path().join("layout").display());
    let repository = format!("{}/app", server.host);
    for whole in [repository, layout] {
        let app = copy_signed(&whole, |tag| format!("{whole}:{tag}"));
        let out = good(&["delete", &format!("{whole}:1"), "--yes"]);
        assert!(out.stdout.contains("deleted") && out.stdout.contains(&app.digest().to_string()), "{}", out.stdout);
        assert!(out.stderr.contains("2 signatures or other referrers stay"), "{}", out.stderr);
        assert_eq!(names(&whole).len(), 2, "{whole}");
        good(&["inspect", &format!("{whole}:2")]);
        good(&["delete", &format!("{whole}:2"), "--yes", "-q"]);
        let at = if whole.starts_with("oci:") { ":@" } else { "@" };
        let by_digest = format!("{whole}{at}{}", app.digest());
        good(&["inspect", &by_digest, "--raw"]);
        assert_eq!(
            types(&by_digest),
            ["application/vnd.cncf.notary.signature", "sbom"].map(|one| match one {
                "sbom" => "sbom".to_owned(),
                _ => "signature".to_owned(),
            })
        );
        fails(&["delete", &format!("{whole}:1"), "--yes"], 3, "1");
    }
}

#[test]
fn with_its_manifest_every_tag_goes_and_with_its_referrers_they_go_too() {
    let (server, dir) = (Server::writable(), TempDir::new().unwrap());
    let layout = format!("oci:{}", dir.path().join("layout").display());
    let repository = format!("{}/app", server.host);
    for whole in [repository, layout] {
        let app = copy_signed(&whole, |tag| format!("{whole}:{tag}"));
        let args = ["delete", &format!("{whole}:1"), "--yes", "--manifest", "--with-referrers", "--json"];
        let plan: Value = serde_json::from_str(&good(&[&args[..], &["--dry-run"]].concat()).stdout).unwrap();
        assert_eq!(names(&whole).len(), 3, "{whole}");
        let done: Value = serde_json::from_str(&good(&args).stdout).unwrap();
        assert_eq!((&plan["dry_run"], &done["dry_run"]), (&json!(true), &json!(false)));
        let all = |document: &Value| {
            let mut all: Vec<String> = document["deleted"].as_array().unwrap().iter().map(Value::to_string).collect();
            all.sort();
            all
        };
        assert_eq!(all(&plan), all(&done));
        assert_eq!(all(&done).len(), 5, "{done}");
        assert!(names(&whole).is_empty(), "{whole}");
        let at = if whole.starts_with("oci:") { ":@" } else { "@" };
        fails(&["inspect", &format!("{whole}{at}{}", app.digest()), "--raw"], 3, "");
    }
}

/// Stores a referrer of `subject` at the registry.
fn sign(registry: &Double, subject: &Manifest) {
    sign_as(registry, subject, "");
}

fn sign_as(registry: &Double, subject: &Manifest, text: &str) -> Manifest {
    let signature = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "artifactType": "application/vnd.cncf.notary.signature",
        "config": Descriptor::of("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [],
        "subject": subject.descriptor,
        "annotations": { "text": text },
    });
    let signature = Manifest::from_bytes(signature.to_string().into_bytes(), media_type::OCI_MANIFEST).unwrap();
    registry.put_blob("app", b"{}");
    registry.put_manifest("app", None, &signature);
    signature
}

/// An index of `children`, under `tag`.
fn index(registry: &Double, tag: Option<&str>, children: &[&Manifest]) -> Manifest {
    let children: Vec<&Descriptor> = children.iter().map(|child| &child.descriptor).collect();
    let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": children });
    let index = Manifest::from_bytes(index.to_string().into_bytes(), media_type::OCI_INDEX).unwrap();
    registry.put_manifest("app", tag, &index);
    index
}

/// `amd` is signed and a child of the indexes `1` and `2`; the index `outer` lists the index `2`; `arm` is a child of
/// `1` only, signed too, without a tag.
fn shared() -> (Double, [Manifest; 4]) {
    let registry = Double::start();
    let (amd, arm) = (registry.image("app", "amd", &[b"amd"]), image(&[b"arm"]));
    registry.put_blob("app", b"arm");
    registry.put_manifest("app", None, &arm);
    let one = index(&registry, Some("1"), &[&amd, &arm]);
    let two = index(&registry, Some("2"), &[&amd]);
    index(&registry, Some("outer"), &[&two]);
    for subject in [&amd, &arm] {
        sign(&registry, subject);
    }
    (registry, [amd, arm, one, two])
}

/// Deleting what is `at` in `whole` is refused, with the names of the `others`.
fn refused(whole: &str, at: &str, options: &[&str], others: &[&str]) {
    let (status, out) = run(&[&["delete", "--yes", &format!("{whole}{at}")], options].concat());
    assert_eq!(status, 2, "{whole}{at} {options:?}: {}", out.stderr);
    // The names in a layout are only tags.
    let name = |tag: &&str| if whole.starts_with("oci:") { (*tag).to_owned() } else { format!("{whole}:{tag}") };
    let named = others.iter().map(name).collect::<Vec<_>>().join(", ");
    let told = format!("so nothing is deleted; delete {named} first");
    assert!(out.stderr.contains(&told), "{at} {options:?}: {told}: {}", out.stderr);
}

#[test]
fn what_other_tags_need_is_not_deleted() {
    let (server, dir) = (Server::writable(), TempDir::new().unwrap());
    let layout = format!("oci:{}", dir.path().join("layout").display());
    let repository = format!("{}/app", server.host);
    let (registry, [amd, arm, ..]) = shared();
    for whole in [repository, layout] {
        for tag in ["1", "2", "amd", "outer"] {
            good(&["copy", &format!("{}/app:{tag}", registry.host()), &format!("{whole}:{tag}")]);
        }
        let by_digest = |manifest: &Manifest| match whole.starts_with("oci:") {
            true => format!(":@{}", manifest.digest()),
            false => format!("@{}", manifest.digest()),
        };
        for (at, options, others) in [
            // The signature of a child belongs to every index that lists it.
            (":1", &["--with-referrers"][..], &["2", "amd", "outer"][..]),
            (":1", &["--with-referrers", "--manifest"], &["2", "amd", "outer"]),
            (":2", &["--with-referrers"], &["1", "amd", "outer"]),
            (":amd", &["--with-referrers"], &["1", "2", "outer"]),
            (":amd", &["--with-referrers", "--dry-run"], &["1", "2", "outer"]),
            // An index needs what it lists.
            (":amd", &["--manifest"], &["1", "2", "outer"]),
            (":2", &["--manifest"], &["outer"]),
            (&by_digest(&arm), &["--manifest"], &["1"]),
        ] {
            refused(&whole, at, options, others);
        }
        assert_eq!(names(&whole).len(), 4, "{whole}");
        for platform in [&amd, &arm] {
            assert_eq!(types(&format!("{whole}{}", by_digest(platform))), ["signature"], "{whole}");
        }
        // Without the other tags, the signatures go too.
        for tag in ["outer", "2", "amd"] {
            good(&["delete", "--yes", &format!("{whole}:{tag}")]);
        }
        let out = good(&["delete", "--yes", "--with-referrers", &format!("{whole}:1")]);
        assert_eq!(out.stdout.lines().count(), 3, "{whole}: {}", out.stdout);
        for platform in [&amd, &arm] {
            assert!(types(&format!("{whole}{}", by_digest(platform))).is_empty(), "{whole}");
        }
    }
}

/// A tag or an index that cannot be read may need the signatures too.
#[test]
fn a_tag_that_cannot_be_compared_may_need_the_referrers() {
    let (registry, [.., two]) = shared();
    let one = format!("{}/app:1", registry.host());
    let stumbles = |tag: &'static str| ["HEAD", "GET"].map(|method| Stumble::new(method, tag, 400, 99));
    let tags = ["/manifests/2", "/manifests/amd", "/manifests/outer"];
    registry.faults().stumbles = tags.into_iter().flat_map(stumbles).collect();
    fails(&["delete", &one, "--yes", "--with-referrers"], 2, "3 other tags that imgmv did not compare");
    let out = good(&["delete", &one, "--dry-run", "--manifest"]);
    assert!(out.stderr.contains("did not compare 3 more tags"), "{}", out.stderr);
    registry.faults().stumbles = stumbles(tags[1]).to_vec();
    registry.put_manifest_at("app", two.digest(), media_type::OCI_INDEX, b"damaged");
    fails(&["delete", &one, "--yes", "--with-referrers"], 2, "3 other tags that imgmv did not compare");
    assert_eq!(registry.count("DELETE", ""), 0);
}

#[test]
fn nothing_is_deleted_without_a_terminal_or_in_a_dry_run() {
    let (registry, _) = signed();
    let source = format!("{}/app:1", registry.host());
    fails(&["delete", &source], 2, "--yes");
    let out = good(&["delete", &source, "--dry-run"]);
    assert_eq!(out.stdout.lines().count(), 1, "{}", out.stdout);
    assert!(out.stdout.contains(&source) && out.stdout.ends_with("would be deleted\n"), "{}", out.stdout);
    assert_eq!(registry.count("DELETE", ""), 0);
}

#[test]
fn an_answer_on_a_terminal_decides() {
    if support::program::peer("script").is_none() {
        return;
    }
    let server = Server::writable();
    let (whole, app) = (format!("{}/app", server.host), server.host.clone() + "/app:1");
    copy_signed(&whole, |tag| format!("{whole}:{tag}"));
    for (answer, left) in [("n", 3), ("y", 2)] {
        let line = format!("{} delete {app}", env!("CARGO_BIN_EXE_imgmv"));
        let mut command = command("script");
        let child = command.args(["-qec", &line, "/dev/null"]).stdin(Stdio::piped());
        let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), format!("{answer}\n").as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        assert_eq!(out.status.success(), answer == "y", "{}", String::from_utf8_lossy(&out.stdout));
        assert_eq!(names(&whole).len(), left, "{}", String::from_utf8_lossy(&out.stdout));
    }
}

#[test]
fn a_registry_that_cannot_delete_tags_never_loses_the_manifest() {
    let (registry, app) = signed();
    let source = format!("{}/app:1", registry.host());
    for status in [400, 404, 405] {
        registry.faults().stumbles = vec![Stumble::new("DELETE", "/manifests/1", status, 9)];
        fails(&["delete", &source, "--yes"], 1, &format!("cannot delete a tag (status {status}"));
        fails(&["delete", &source, "--yes"], 1, &format!("manifest {}, with it this tag and the tags 2", app.digest()));
    }
    assert_eq!(registry.count("DELETE", "sha256"), 0);
    registry.faults().stumbles = vec![Stumble::new("DELETE", "/manifests/sha256", 405, 9)];
    fails(&["delete", &source, "--yes", "--manifest"], 1, "does not allow to delete");
}

#[test]
fn docker_registry_deletes_manifests_where_it_is_allowed() {
    for allowed in [true, false] {
        let dir = TempDir::new().unwrap();
        let registry = Registry::start_with(dir.path(), allowed);
        if !registry.is_real() {
            return;
        }
        let whole = format!("{}/app", registry.address);
        let (source, app) = signed();
        for tag in ["1", "2"] {
            good(&["copy", &format!("{}/app:{tag}", source.host()), &format!("{whole}:{tag}")]);
        }
        // The referrers tag too.
        assert_eq!(names(&whole).len(), 4);
        fails(&["delete", &format!("{whole}:1"), "--yes"], 1, "and the tags 2");
        assert_eq!(names(&whole).len(), 4);
        let args = ["delete", &format!("{whole}:1"), "--yes", "--manifest", "--with-referrers"];
        if !allowed {
            fails(&args, 1, "storage.delete.enabled");
            assert_eq!(names(&whole).len(), 4);
            continue;
        }
        good(&args);
        assert!(names(&whole).is_empty());
        fails(&["inspect", &format!("{whole}@{}", app.digest()), "--raw"], 3, "no image");
    }
}

/// docker-registry has no referrers API, so there is a list of them under a tag.
#[test]
fn a_deleted_referrer_leaves_the_list_of_its_subject() {
    let dir = TempDir::new().unwrap();
    let registry = Registry::start_with(dir.path(), true);
    if !registry.is_real() {
        return;
    }
    let (source, app) = signed();
    sign_as(&source, &app, "another");
    let whole = format!("{}/app", registry.address);
    good(&["copy", &format!("{}/app:1", source.host()), &format!("{whole}:1")]);
    let listed = || {
        let out = good(&["list", "--referrers", &format!("{whole}:1"), "--json"]);
        assert!(!out.stderr.contains("not all"), "{}", out.stderr);
        let document: Value = serde_json::from_str(&out.stdout).unwrap();
        let nodes = document["images"][0]["referrers"].as_array().unwrap().clone();
        let digests = nodes.iter().filter(|node| node["tag"].is_null()).map(|node| node["digest"].as_str().unwrap());
        digests.map(str::to_owned).collect::<Vec<_>>()
    };
    let tags = names(&whole).len();
    for left in [1, 0] {
        let digest = listed().pop().unwrap();
        good(&["delete", &format!("{whole}@{digest}"), "--manifest", "--yes"]);
        assert_eq!((listed().len(), names(&whole).len()), (left, tags - usize::from(left == 0)));
    }
    good(&["delete", &format!("{whole}:1"), "--manifest", "--with-referrers", "--yes"]);
}

#[test]
fn of_many_referrers_that_stay_the_number_is_told() {
    let (registry, app) = signed();
    (0..24).for_each(|nth| drop(sign_as(&registry, &app, &nth.to_string())));
    let out = good(&["delete", &format!("{}/app:1", registry.host()), "--yes"]);
    assert!(out.stderr.contains("26 signatures") && out.stderr.contains(" and 6 more)"), "{}", out.stderr);
}

#[test]
fn a_layout_with_nothing_but_referrers_says_so() {
    let dir = TempDir::new().unwrap();
    let layout = format!("oci:{}", dir.path().join("layout").display());
    let app = copy_signed(&layout, |tag| format!("{layout}:{tag}"));
    for tag in ["1", "2"] {
        good(&["delete", &format!("{layout}:{tag}"), "--yes"]);
    }
    let to = format!("oci:{}", dir.path().join("to").display());
    for args in [&["verify", &layout][..], &["copy", &layout, &to]] {
        fails(
            args,
            3,
            "the source has 2 manifests, all of which are signatures or other referrers of images without a name",
        );
    }
    good(&["copy", &format!("{layout}:@{}", app.digest()), &format!("{to}:1")]);
}

#[test]
fn what_names_no_tag_is_a_usage_error() {
    let (registry, app) = signed();
    let (host, digest) = (registry.host(), app.digest());
    let layout = format!("oci:{}", fixture("layout"));
    for (args, told) in [
        (&[&format!("{host}/app")[..]][..], "names no image"),
        (&[&layout], "names no image"),
        (&[&fixture("layout")], "names no image"),
        (&[&format!("{host}/app@{digest}")], "--manifest"),
        (&[&format!("{layout}:@{digest}")], ""),
        (&[&fixture("hello-docker20.tar")], "delete works on"),
        (&["docker-daemon:app:1"], "delete works on"),
        (&["ssh://node1/app:1"], "delete works on"),
    ] {
        let expected = if told.is_empty() { 3 } else { 2 };
        fails(&[&["delete", "--yes"], args].concat(), expected, told);
    }
    let other = format!("sha256:{}", "0".repeat(64));
    fails(&["delete", &format!("{host}/app:1@{other}"), "--yes"], 5, "points to");
    assert_eq!(registry.count("DELETE", ""), 0);
}
