use super::*;
use crate::image::Name;
use crate::source::Selector;
use crate::{Kind, Result};
use std::collections::BTreeSet;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn address(word: &str) -> Parsed {
    parse(OsStr::new(word))
}

#[test]
fn each_address_has_one_canonical_form() {
    let by_digest = format!("docker://docker.io/library/app@{DIGEST}");
    let in_layout = format!("oci:dir:@{DIGEST}");
    let on_host = format!("ssh://u@h/app@{DIGEST}");
    for (word, canonical) in [
        ("docker://alpine", "docker://docker.io/library/alpine"),
        ("docker://registry.lan:5000/team/app:2", "docker://registry.lan:5000/team/app:2"),
        ("docker://oci:latest", "docker://docker.io/library/oci:latest"),
        ("docker://registry.lan:5000/", "docker://registry.lan:5000/"),
        ("docker://registry.lan/team/", "docker://registry.lan/team/"),
        ("docker://docker.io/", "docker://docker.io/"),
        ("docker://org/", "docker://docker.io/org/"),
        ("docker-archive:a.tar", "docker-archive:a.tar"),
        ("docker-archive:/x/a.tar:app:2", "docker-archive:/x/a.tar:app:2"),
        ("oci-archive:a.tar:docker.io/library/app:2", "oci-archive:a.tar:docker.io/library/app:2"),
        ("oci:./mirror", "oci:./mirror"),
        ("oci:./mirror:app-2", "oci:./mirror:app-2"),
        (&in_layout, &in_layout),
        ("registry-dir:/srv/registry", "registry-dir:/srv/registry"),
        ("registry-dir:./r:team/app:2", "registry-dir:./r:team/app:2"),
        ("containerd:docker.io/library/app:2", "containerd:docker.io/library/app:2"),
        ("containerd:", "containerd:"),
        ("docker-daemon:app:2", "docker-daemon:app:2"),
        ("docker-dir:app:2", "docker-dir:app:2"),
        ("docker-dir:", "docker-dir:"),
        ("docker-dir:0123456789ab", "docker-dir:0123456789ab"),
        ("containers-storage:", "containers-storage:"),
        ("containers-storage:app:2", "containers-storage:app:2"),
        ("containers-storage:[::1]:5000/app", "containers-storage:[::1]:5000/app"),
        ("ssh://node1", "ssh://node1"),
        ("ssh://root@node1:2222", "ssh://root@node1:2222"),
        ("ssh://root@node1/docker.io/library/app:2", "ssh://root@node1/docker.io/library/app:2"),
        ("ssh://[::1]:22/app", "ssh://[::1]:22/app"),
        ("ssh://[fe80::1]", "ssh://[fe80::1]"),
        ("node1.lan:", "ssh://node1.lan"),
        ("C:", "ssh://C"),
        ("app:", "ssh://app"),
        ("user@host:", "ssh://user@host"),
        ("user@host:ref", "ssh://user@host/ref"),
        ("user@host:app:2", "ssh://user@host/app:2"),
        ("user@[::1]:5000/app", "ssh://user@[::1]/5000/app"),
        ("[::1]:", "ssh://[::1]"),
        (&format!("u@h:app@{DIGEST}"), &on_host),
        ("-", "-"),
        ("/x/y", "/x/y"),
        ("./x", "./x"),
        ("../x:y", "../x:y"),
        ("./host:app.tar", "./host:app.tar"),
        (".", "."),
        ("x.tgz", "x.tgz"),
        ("dir/x.tar.zst", "dir/x.tar.zst"),
        ("x.tar.gz", "x.tar.gz"),
        ("x.tzst", "x.tzst"),
        ("app:2", "docker://docker.io/library/app:2"),
        ("app", "docker://docker.io/library/app"),
        ("mirror/app", "docker://docker.io/mirror/app"),
        ("localhost:5000/app", "docker://localhost:5000/app"),
        ("[::1]:5000/app", "docker://[::1]:5000/app"),
        (&format!("app@{DIGEST}"), &by_digest),
    ] {
        let found = address(word).map(|address| address.to_string()).map_err(|error| error.to_string());
        assert_eq!(found, Ok(canonical.to_owned()), "{word}");
        let again = address(canonical).map(|address| address.to_string()).map_err(|error| error.to_string());
        assert_eq!(again, Ok(canonical.to_owned()), "{canonical} is not stable");
    }
}

#[test]
fn a_name_with_a_digest_stays_a_name_in_a_store() {
    for word in [format!("containerd:registry.k8s.io/pause@{DIGEST}"), format!("oci:dir:name@{DIGEST}")] {
        let address = address(&word).unwrap();
        assert!(matches!(address.selector(), Some(Selector::Name(name)) if word.ends_with(name)), "{word}");
    }
}

#[test]
fn a_word_that_is_not_an_address_is_a_usage_error_that_names_what_to_write() {
    for (word, told) in [
        ("", "empty"),
        ("registry-dir:", "names no file"),
        ("registry-dir:/srv/registry:App", "expected REPO:TAG"),
        ("registry-dir:/srv/registry:localhost:5000/app", "expected REPO:TAG"),
        ("https://ghcr.io/org/app", "docker://HOST"),
        ("dir://x", "dir:// is not a scheme of imgmv; it has docker:// and ssh://"),
        ("oci:dir://x", "not a scheme"),
        ("oci:", "names no file"),
        ("docker-archive::app", "names no file"),
        ("docker-archive:-", "- alone"),
        ("oci:dir:@sha256:12", "not a digest"),
        ("ssh://", "names no host"),
        ("ssh://-oProxyCommand=x", "names no host"),
        ("ssh://host:99999", "port"),
        ("ssh://host:0", "port"),
        ("ssh://ho st/", "names no host"),
        ("-host:", "names no host"),
        ("user@-host:", "names no host"),
        ("-l@host:", "names no host"),
        ("@host:", "not an image reference"),
        ("user@::1:", "not an image reference"),
        ("host:bundle.tar", "./host:bundle.tar"),
        ("user@host:bundle.tar", "could be a file"),
        ("C:\\images\\app", "path begins with"),
        ("mirror/", "oci:mirror/"),
        ("App", "path begins with"),
        ("containers-storage:[overlay@/srv+/run]app:2", "--src-root"),
        ("containers-storage:@sha256:12", "not a digest"),
        ("buildah-storage:app:2", "not an image reference"),
        ("docker://", "not an image reference"),
        ("docker:///", "not a prefix"),
        ("a b", "not an image reference"),
        ("app@sha256:12", "not an image reference"),
    ] {
        let wrong = address(word).map(|address| address.to_string()).expect_err(word);
        assert_eq!(wrong.kind(), Kind::Usage, "{word}");
        assert!(wrong.to_string().contains(told), "{word}: {wrong}");
    }
}

#[test]
fn images_keep_their_path_under_a_prefix() {
    let address = address("docker://registry.lan:5000/mirror/").unwrap();
    let prefix = address.prefix().expect("a prefix");
    let under = |name: &str| prefix.under(&name.parse().unwrap()).unwrap().to_string();
    assert_eq!(under("app:2"), "registry.lan:5000/mirror/library/app:2");
    assert_eq!(under("ghcr.io/org/app"), "registry.lan:5000/mirror/org/app:latest");
}

#[test]
fn a_path_that_is_not_utf_8_is_still_a_path() {
    use std::os::unix::ffi::OsStrExt;
    let word = OsStr::from_bytes(b"./a\xff.tar");
    assert_eq!(parse(word).unwrap().layout().map(|path| path.as_os_str()), Some(word));
    assert_eq!(parse(OsStr::from_bytes(b"a\xff.tar")).unwrap_err().kind(), Kind::Usage);
}

fn names(dst: &str, given: &[&str]) -> Result<Vec<String>> {
    let given: Vec<String> = given.iter().map(|name| (*name).to_owned()).collect();
    Ok(address(dst)?.names(&given)?.iter().map(Name::to_string).collect())
}

#[test]
fn the_destinations_own_name_wins_then_as_then_the_sources() {
    for (dst, given, expected) in [
        ("h.lan/app:2", &[][..], &["h.lan/app:2"][..]),
        ("h.lan/app", &[], &["h.lan/app:latest"]),
        ("h.lan/app:2", &["3"], &["h.lan/app:2"]),
        ("oci:dir:v1", &["v2"], &["v1"]),
        ("h.lan/app", &["2", "h.lan/app:stable"], &["h.lan/app:2", "h.lan/app:stable"]),
        ("out.tar", &[], &[]),
        ("out.tar", &["app:2", "app:new"], &["docker.io/library/app:2", "docker.io/library/app:new"]),
        ("docker-archive:out.tar:app", &[], &["docker.io/library/app:latest"]),
        ("oci:dir:v1", &[], &["v1"]),
        ("oci:dir:app:2", &[], &["docker.io/library/app:2"]),
        ("oci:dir", &["v1"], &["v1"]),
        ("registry-dir:r", &[], &[]),
        ("registry-dir:r", &["app:2"], &["docker.io/library/app:2"]),
        ("registry-dir:r:app", &[], &["localhost/app:latest"]),
        ("registry-dir:r:quay.io/org/app:2", &[], &["localhost/quay.io/org/app:2"]),
        ("node1:", &[], &[]),
        ("root@node1:app:2", &[], &["docker.io/library/app:2"]),
        ("-", &["app:2"], &["docker.io/library/app:2"]),
        ("docker://h.lan/", &[], &[]),
    ] {
        assert_eq!(names(dst, given).unwrap(), expected, "{dst} {given:?}");
    }
}

#[test]
fn invalid_names_at_the_destination_are_refused() {
    for (dst, given) in [
        ("h.lan/app", &["other.lan/app:2"][..]),
        ("docker://h.lan/", &["app:2"]),
        ("node1:", &["App"]),
        (&format!("h.lan/app@{DIGEST}"), &[]),
        (&format!("oci:dir:@{DIGEST}"), &[]),
        (&format!("registry-dir:r:@{DIGEST}"), &[]),
        (&format!("registry-dir:r:app@{DIGEST}"), &[]),
    ] {
        assert_eq!(names(dst, given).unwrap_err().kind(), Kind::Usage, "{dst} {given:?}");
    }
}

#[test]
fn every_row_is_distinct_and_fits_the_help() {
    let schemes: BTreeSet<&str> = TABLE.iter().map(|row| row.scheme).collect();
    assert_eq!(schemes.len(), TABLE.len());
    for row in TABLE {
        assert!(row.syntax.starts_with(row.scheme) && row.scheme.ends_with([':', '/']), "{}", row.scheme);
        assert!(!row.help.is_empty(), "{}", row.scheme);
        assert!(row.serve_forms.iter().all(|(syntax, _)| syntax.starts_with(row.scheme)), "{}", row.scheme);
    }
}

/// The README has a table whose first column has the forms of addresses, as code.
#[test]
fn the_readme_has_each_transport() {
    let readme = include_str!("../../../README.md");
    let table =
        readme.lines().skip_while(|line| !line.starts_with("| `docker://")).take_while(|line| line.starts_with('|'));
    let cells: Vec<Vec<&str>> = table.map(|line| line.split('|').nth(1).unwrap().split('`').collect()).collect();
    for row in TABLE {
        let is_listed = cells.iter().flatten().any(|form| form.starts_with(row.scheme));
        assert!(is_listed, "the table of transports in README.md has no row for {}", row.scheme);
    }
    for cell in &cells {
        let is_known = cell.iter().any(|form| TABLE.iter().any(|row| form.starts_with(row.scheme)));
        assert!(is_known, "README.md has a row {cell:?} that is not a transport");
    }
}
