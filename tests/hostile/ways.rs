//! The ways on which a hostile image comes in: each kind of source, made of the same world.

use super::support::web::{Response, Web};
use super::tars::Tar;
use super::world::World;
use imgmv::Result;
use imgmv::cancel::Cancel;
use imgmv::copy::Source;
use imgmv::image::{Digest, media_type};
use imgmv::progress::Silent;
use imgmv::source::Store;
use imgmv::transport::archive;
use imgmv::transport::archive::Input;
use imgmv::transport::layout::LayoutStore;
use imgmv::transport::registry::{Access, Registry};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Layout,
    /// An archive in a file.
    File,
    /// A packed archive, which passes.
    Stream,
    Registry,
}

pub const WAYS: [Way; 4] = [Way::Layout, Way::File, Way::Stream, Way::Registry];

/// A source, and what has to live as long.
pub struct Opened {
    pub source: Result<Source>,
    _folder: Option<tempfile::TempDir>,
    _web: Option<Web>,
}

impl Way {
    pub fn open(self, world: &World) -> Opened {
        if self == Way::Registry {
            let web = serve(world.clone());
            return Opened { source: Ok(repository(&web)), _folder: None, _web: Some(web) };
        }
        let folder = tempfile::tempdir().unwrap();
        let source = match self {
            Way::Layout => {
                write_layout(world, folder.path());
                LayoutStore::open(folder.path()).map(|store| Source::Store(Arc::new(store)))
            }
            Way::File => open_archive(folder.path(), &oci_archive(world)),
            _ => open_archive(folder.path(), &gzip(&oci_archive(world))),
        };
        Opened { source, _folder: Some(folder), _web: None }
    }
}

/// `bytes` as an archive in a file in `folder`.
pub fn open_archive(folder: &Path, bytes: &[u8]) -> Result<Source> {
    let path = folder.join("archive.tar");
    fs::write(&path, bytes).unwrap();
    archive::open(&Input::File(path), Arc::new(Silent))
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

pub fn write_layout(world: &World, dir: &Path) {
    fs::write(dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(dir.join("index.json"), world.index_json()).unwrap();
    for (digest, bytes) in &world.blobs {
        let path = dir.join(digest.blob_path());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// As docker writes them: the index last.
pub fn oci_archive(world: &World) -> Vec<u8> {
    let mut tar = Tar::new().file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    for (digest, bytes) in &world.blobs {
        tar = tar.file(&digest.blob_path(), bytes);
    }
    tar.file("index.json", &world.index_json()).end()
}

/// A registry that hands out what it has, whatever it is; each entry is a tag.
fn serve(world: World) -> Web {
    let tag = |entry: &serde_json::Value| {
        let name = entry["annotations"]["io.containerd.image.name"].as_str().unwrap_or_default();
        name.rsplit_once(':').map_or(name, |(_, tag)| tag).to_owned()
    };
    Web::start(
        None,
        Arc::new(move |request, _| {
            let Some((_, at)) = request.path.split_once("/manifests/").or(request.path.split_once("/blobs/")) else {
                let tags: Vec<String> = world.entries.iter().map(tag).collect();
                return Some(Response::json(200, &serde_json::json!({ "name": "app", "tags": tags }).to_string()));
            };
            let tagged = world.entries.iter().find(|entry| tag(entry) == at);
            let digest = tagged.map_or(at, |entry| entry["digest"].as_str().unwrap_or_default());
            let bytes = digest.parse::<Digest>().ok().and_then(|digest| world.blobs.get(&digest));
            let Some(bytes) = bytes else { return Some(Response::new(404)) };
            let stated = tagged.and_then(|entry| entry["mediaType"].as_str()).map(str::to_owned);
            let own =
                || serde_json::from_slice::<serde_json::Value>(bytes).ok()?["mediaType"].as_str().map(str::to_owned);
            let media_type = stated.or_else(own).unwrap_or(media_type::OCI_MANIFEST.to_owned());
            let body = super::support::web::Body::Bytes(bytes.clone());
            let response = Response::new(200).with("Content-Type", media_type);
            Some(response.with("Docker-Content-Digest", digest).body(body))
        }),
    )
}

/// The repository `app` at `web`, asked as one who gives up soon.
pub fn repository(web: &Web) -> Source {
    let registry = Registry::new(&web.address.to_string(), access(), Arc::new(Silent), Cancel::default()).unwrap();
    let store: Arc<dyn Store> = Arc::new(registry.repository("app"));
    Source::Store(store)
}

pub fn access() -> Access {
    Access {
        authfile: Some("/nonexistent/auth.json".into()),
        certs_dirs: Vec::new(),
        retry_pause: Duration::from_millis(1),
        timeout: Duration::from_secs(5),
        retries: 2,
        ..Access::default()
    }
}

/// So many bytes that are all the same.
pub fn repeated(byte: u8, size: u64) -> impl io::Read {
    io::Read::take(io::repeat(byte), size)
}
