//! An image of one large layer that takes no room on the disk.

use super::*;
use imgmv::Digest;
use serde_json::json;
use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    path::Path,
};

/// Writes the layout `NAME` below the shell's folder: one raw layer of two files, `bytes` of zeros together, tagged 1.
pub fn write_large(shell: &Shell, name: &str, bytes: u64) {
    let dir = shell.at(name);
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    write_layer(&dir.join("layer"), bytes / 1024 * 512);
    let sum = shell.run(&format!("sha256sum <{name}/layer"));
    let layer = format!("sha256:{}", &sum[..64]);
    let size = fs::metadata(dir.join("layer")).unwrap().len();
    fs::rename(dir.join("layer"), dir.join("blobs").join(layer.replacen(':', "/", 1))).unwrap();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": { "Cmd": ["/zeros0"] },
        "rootfs": { "type": "layers", "diff_ids": [layer] },
    });
    let config = write_blob(&dir, "application/vnd.oci.image.config.v1+json", &config);
    let layer = json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": size });
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": [layer],
    });
    let mut manifest = write_blob(&dir, "application/vnd.oci.image.manifest.v1+json", &manifest);
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "1" });
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(dir.join("index.json"), json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string()).unwrap();
}

/// A tar of two files of `each` bytes, a multiple of 512; only its headers are written.
fn write_layer(file: &Path, each: u64) {
    let mut layer = File::create(file).unwrap();
    for (number, name) in ["zeros0", "zeros1"].into_iter().enumerate() {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_mode(0o755);
        header.set_mtime(0);
        header.set_size(each);
        header.set_cksum();
        layer.seek(SeekFrom::Start(number as u64 * (512 + each))).unwrap();
        layer.write_all(header.as_bytes()).unwrap();
    }
    layer.set_len(2 * (512 + each) + 1024).unwrap();
}

/// A descriptor of what was written.
fn write_blob(dir: &Path, media_type: &str, document: &serde_json::Value) -> serde_json::Value {
    let bytes = document.to_string().into_bytes();
    let digest = Digest::of(&bytes);
    fs::write(dir.join(digest.blob_path()), &bytes).unwrap();
    json!({ "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len() })
}
