//! Packed layers as programs written in Go read them: skopeo unpacks what was packed here and names it by its digest.

use imgmv::compress::recompress;
use imgmv::image::{Coding, Digest, media_type};
use std::path::Path;
use std::process::Command;

/// Some blocks of text, numbered, so that a block that is lost or comes twice shows.
fn layer() -> Vec<u8> {
    (0..200_000).flat_map(|line| format!("line {line} of a file\n").into_bytes()).collect()
}

fn add_blob(layout: &Path, bytes: &[u8]) -> String {
    let digest = Digest::of(bytes);
    std::fs::write(layout.join(digest.blob_path()), bytes).unwrap();
    format!("\"digest\":\"{digest}\",\"size\":{}", bytes.len())
}

/// An OCI layout with one image of one layer.
fn write_layout(layout: &Path, raw: &Digest, packed: &[u8], coding: Coding) {
    std::fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let config = add_blob(
        layout,
        format!(
            "{{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{{}},\
             \"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"{raw}\"]}}}}"
        )
        .as_bytes(),
    );
    let layer = add_blob(layout, packed);
    let manifest = add_blob(
        layout,
        format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{}\",\"config\":{{\"mediaType\":\"{}\",{config}}},\
             \"layers\":[{{\"mediaType\":\"{}\",{layer}}}]}}",
            media_type::OCI_MANIFEST,
            media_type::OCI_CONFIG,
            media_type::with_coding(media_type::OCI_LAYER, coding),
        )
        .as_bytes(),
    );
    let of = media_type::OCI_MANIFEST;
    let index = format!("{{\"schemaVersion\":2,\"manifests\":[{{\"mediaType\":\"{of}\",{manifest}}}]}}");
    std::fs::write(layout.join("index.json"), index).unwrap();
    std::fs::write(layout.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
}

#[test]
fn skopeo_unpacks_a_packed_layer_to_the_same_bytes() {
    if Command::new("skopeo").arg("--version").output().is_err() {
        assert!(std::env::var("IMGMV_REQUIRE_PEERS").as_deref() != Ok("1"), "no skopeo on PATH");
        println!("skipped: no skopeo on PATH");
        return;
    }
    let raw = layer();
    for coding in [Coding::Gzip, Coding::Zstd] {
        let mut packed = Vec::new();
        let recompressed = recompress(&mut &raw[..], Coding::Raw, coding, None, 3, &mut |bytes| {
            packed.extend_from_slice(bytes);
            Ok(())
        });
        let digest = recompressed.unwrap().uncompressed.0;
        let place = tempfile::tempdir().unwrap();
        let (layout, unpacked) = (place.path().join("layout"), place.path().join("unpacked"));
        write_layout(&layout, &digest, &packed, coding);
        let skopeo = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet", "--dest-decompress"])
            .arg(format!("oci:{}", layout.display()))
            .arg(format!("dir:{}", unpacked.display()))
            .output()
            .unwrap();
        assert!(skopeo.status.success(), "{}", String::from_utf8_lossy(&skopeo.stderr));
        assert!(std::fs::read(unpacked.join(digest.hex())).unwrap() == raw, "{}", coding.name());
    }
}
