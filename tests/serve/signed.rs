//! A signed image is served with all that belongs to it, from an archive as from a layout.

use super::support::program::{fixture, imgmv};
use super::support::signing::{Signatures, sign};
use super::*;
use std::path::Path;
use tempfile::TempDir;

/// The fixtures' index of several platforms (fixtures/README.md).
const MULTI: &str = "sha256:1e8da6cd7fd1d027d8c4b738aec76f1bf0686397fcc80da6e7a70db620d8aaf6";

fn done(args: &[&str]) -> String {
    let done = imgmv(args, None);
    assert!(done.status.success(), "{args:?}: {}", done.stderr);
    done.stdout.trim().to_owned()
}

/// An index of several platforms in the layout `l` below `dir`, signed; the address of the layout's image.
fn signed(dir: &Path) -> (String, Signatures) {
    let layout = dir.join("l");
    let image = format!("oci:{}:1", layout.display());
    done(&["copy", "-q", &format!("oci:{}:1", fixture("multi")), &image]);
    let signatures = sign(&layout, MULTI);
    (image, signatures)
}

fn digest(server: &Server, repository: &str, reference: &str) -> Option<String> {
    let reply = server.head(&format!("/v2/{repository}/manifests/{reference}"));
    reply.find("docker-content-digest").map(str::to_owned)
}

/// Checks that `server` has the index as tag `1` of `repository`, with all that belongs to it.
fn assert_signed(server: &Server, repository: &str, signatures: &Signatures) {
    let host = &server.host;
    assert_eq!(digest(server, repository, "1").as_deref(), Some(MULTI), "{host}");
    assert_eq!(digest(server, repository, &signatures.tag), Some(signatures.tagged.to_string()), "{host}");
    assert_eq!(digest(server, repository, &signatures.tagged.to_string()), Some(signatures.tagged.to_string()));
    let tags = server.get(&format!("/v2/{repository}/tags/list")).json();
    assert_eq!(tags["tags"], json!(["1", signatures.tag]), "{host}");
    let referrers = server.get(&format!("/v2/{repository}/referrers/{MULTI}")).json();
    assert_eq!(referrers["manifests"].as_array().unwrap().len(), 1, "{referrers}");
    assert_eq!(referrers["manifests"][0]["digest"], signatures.referrer.to_string());
}

#[test]
fn a_signed_image_is_served_from_an_archive_as_from_a_layout() {
    let dir = TempDir::new().unwrap();
    let (image, signatures) = signed(dir.path());
    let at = |name: &str| dir.path().join(name).display().to_string();
    let platform = ["--platform", "linux/amd64"];
    done(&["save", "-q", &image, "-o", &at("whole.tar"), "--as", "team/app:1"]);
    done(&[&["save", "-q", &image, "-o", &at("narrow.tar"), "--as", "team/app:1"], &platform[..]].concat());
    done(&["save", "-q", &image, "-o", &at("l2.tar")]);
    done(&[&["copy", "-q", &image, &format!("oci:{}:1", at("sparse"))], &platform[..]].concat());
    for (place, repository) in [
        (at("l"), "l"),
        (at("sparse"), "sparse"),
        (at("whole.tar"), "team/app"),
        (at("narrow.tar"), "team/app"),
        (at("l2.tar"), "l2"),
    ] {
        let server = Server::start(&[&place]);
        assert_signed(&server, repository, &signatures);
        // What a client copies from there is signed too.
        let copied = Server::writable();
        let from = format!("docker://{}/{repository}:1", server.host);
        done(&["copy", "-q", &from, &format!("docker://{}/copied:1", copied.host)]);
        assert_signed(&copied, "copied", &signatures);
    }
}

/// The image of the chosen platform is still there by its digest, for a client that knows it.
#[test]
fn the_only_platform_of_a_served_archive_is_pulled_by_its_index() {
    let dir = TempDir::new().unwrap();
    let (image, _) = signed(dir.path());
    let archive = dir.path().join("narrow.tar").display().to_string();
    done(&["save", "-q", "--platform", "linux/arm64", &image, "-o", &archive, "--as", "team/app:1"]);
    let child = done(&["digest", &archive]);
    let server = Server::start(&[&archive]);
    assert_eq!(digest(&server, "team/app", &child), Some(child.clone()));
    let manifest = server.get(&format!("/v2/team/app/manifests/{child}"));
    assert_eq!(manifest.header("content-type"), media_type::OCI_MANIFEST);
    let listed = server.get("/v2/team/app/manifests/1").json();
    let children = listed["manifests"].as_array().unwrap();
    let held = children.iter().filter(|one| digest(&server, "team/app", one["digest"].as_str().unwrap()).is_some());
    let (images, attestations): (Vec<&Value>, Vec<&Value>) = held.partition(|one| one["annotations"].is_null());
    assert_eq!(images.iter().map(|one| &one["digest"]).collect::<Vec<_>>(), [&child]);
    // The attestation of this platform belongs to it.
    let of = attestations.iter().map(|one| &one["annotations"]["vnd.docker.reference.digest"]);
    assert_eq!(of.collect::<Vec<_>>(), [&child]);
}

/// Two repositories of one archive: each has the tag of its own image.
#[test]
fn a_signature_is_a_tag_only_of_its_own_image() {
    let dir = TempDir::new().unwrap();
    let (image, signatures) = signed(dir.path());
    let at = |name: &str| dir.path().join(name).display().to_string();
    done(&["copy", "-q", &image, &format!("oci:{}:t/signed:1", at("both"))]);
    done(&["copy", "-q", &format!("oci:{}:1", fixture("layout")), &format!("oci:{}:t/other:1", at("both"))]);
    done(&["save", "-q", &format!("oci:{}", at("both")), "-o", &at("both.tar")]);
    let server = Server::start(&[&at("both.tar")]);
    assert_signed(&server, "t/signed", &signatures);
    assert_eq!(server.get("/v2/t/other/tags/list").json()["tags"], json!(["1"]));
    assert_eq!(digest(&server, "t/other", &signatures.tag), None);
}

#[test]
fn a_sparse_index_is_pushed_with_its_signatures() {
    let dir = TempDir::new().unwrap();
    let (image, signatures) = signed(dir.path());
    let server = Server::writable();
    let to = format!("docker://{}/team/app:1", server.host);
    let copied = imgmv(&["copy", "--platform", "linux/arm64", &image, &to], None);
    assert!(copied.status.success(), "{}", copied.stderr);
    assert!(copied.stdout.contains(MULTI), "{}", copied.stdout);
    assert_signed(&server, "team/app", &signatures);
    let listed = server.get("/v2/team/app/manifests/1").json();
    let held = |platform: &str| {
        let mut children = listed["manifests"].as_array().unwrap().iter();
        let child = children.find(|one| one["platform"]["architecture"] == platform).unwrap();
        digest(&server, "team/app", child["digest"].as_str().unwrap()).is_some()
    };
    assert_eq!((held("arm64"), held("amd64")), (true, false));
    // The missing platform comes later, below the same index.
    done(&["copy", "-q", "--platform", "linux/amd64", &image, &to]);
    assert_eq!((held("arm64"), held("amd64")), (true, true));
    // An index without any of its children is not accepted.
    let index = server.get("/v2/team/app/manifests/1").body;
    assert_eq!(server.push_manifest("other", "1", &index).code(), "MANIFEST_BLOB_UNKNOWN");
}
