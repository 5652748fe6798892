//! A registry double: distribution-spec v1.1 in memory, on loopback, which counts what it is asked and fails as it is
//! told.
//!
//! ```ignore
//! let double = Double::start();
//! let image = double.image("team/app", "1", &[b"layer one", b"layer two"]);
//! double.faults().redirect_blobs = Some(format!("http://{}", other.host()));
//! assert_eq!(double.count("GET", "/blobs/"), 2);
//! ```
#![allow(dead_code)]

use super::routes::answer;
use super::web::{Request, Tls, Web};
use imgmv::internals::image::media_type;
use imgmv::{Descriptor, Digest, Manifest};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// How the double wants to be asked.
#[derive(Debug, Clone, Default)]
pub enum Auth {
    #[default]
    Open,
    Basic {
        user: String,
        password: String,
    },
    Bearer(Bearer),
}

/// A token service, which is the double itself (`/token`) unless `realm` says otherwise.
#[derive(Debug, Clone)]
pub struct Bearer {
    pub realm: Option<String>,
    /// Who gets a token; nobody in particular: everybody.
    pub user: Option<(String, String)>,
    /// The identity token that is exchanged by POST.
    pub identity: Option<String>,
    /// Whether POST is known; otherwise 404.
    pub post: bool,
    /// How many requests a token is good for: expiry without a clock.
    pub uses: usize,
    /// Pulling needs no token.
    pub public_pull: bool,
    /// What stands before the Bearer challenge, in the same header.
    pub before: String,
}

impl Default for Bearer {
    fn default() -> Self {
        Bearer {
            realm: None,
            user: None,
            identity: None,
            post: true,
            uses: usize::MAX,
            public_pull: false,
            before: String::new(),
        }
    }
}

/// A request that fails `times` times: by status, or (status 0) by breaking off.
#[derive(Debug, Clone)]
pub struct Stumble {
    pub method: &'static str,
    /// Part of the path.
    pub path: &'static str,
    pub status: u16,
    pub times: usize,
    pub retry_after: Option<String>,
    pub body: String,
}

impl Stumble {
    pub fn new(method: &'static str, path: &'static str, status: u16, times: usize) -> Stumble {
        Stumble { method, path, status, times, retry_after: None, body: String::new() }
    }
}

/// How ranges are answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ranges {
    #[default]
    Honoured,
    Ignored,
    Wrong,
}

/// What goes wrong. Nothing by default.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    pub auth: Auth,
    pub stumbles: Vec<Stumble>,
    /// Blobs are redirected to the same path (with `?signature=secret`) below this.
    pub redirect_blobs: Option<String>,
    /// The token service sends on to this.
    pub redirect_token: Option<String>,
    /// Upload locations are absolute: below this, or (empty) below the double itself.
    pub locations: Option<String>,
    pub no_mount: bool,
    pub ranges: Ranges,
    /// Bytes after which a blob's body breaks off, for so many times.
    pub cut: Option<(usize, usize)>,
    /// Bytes after which a blob's body says nothing more, for so many times.
    pub stall: Option<(usize, usize)>,
    /// So many `PATCH`es of an upload are taken, and the next one is refused with 416.
    pub patches: Option<usize>,
    /// Bytes of an upload's body after which the connection breaks, for so many times. They are kept.
    pub cut_upload: Option<(usize, usize)>,
    /// An upload that was cut, here or on its way, is forgotten, as docker's registry does.
    pub forget_uploads: bool,
    /// In bytes: what a chunk has to have, unless it is the last (`OCI-Chunk-Min-Length`).
    pub chunk_min: Option<u64>,
    /// One bit of a manifest flips on its way, for so many times; its digest header stays right.
    pub flip_manifest: usize,
    pub no_digest_header: bool,
    /// A path's part whose body never ends.
    pub endless: Option<&'static str>,
    /// Tags on one page.
    pub page: Option<usize>,
    /// Manifest types that are refused, in the words of docker's registry.
    pub refused_types: Vec<&'static str>,
    /// Tags that are there cannot be put again, and what is said then.
    pub immutable: Option<String>,
    pub no_referrers: bool,
    /// A part of the tags that the list of tags does not have.
    pub unlisted: Option<&'static str>,
    /// Tags cannot be deleted.
    pub keeps_tags: bool,
    /// An index may lack children.
    pub takes_sparse: bool,
    /// Writes of a referrers tag that another writer undoes at once.
    pub lost_referrers_tags: usize,
    /// Reads of a referrers tag after which another writer replaces it, which had read it before it existed.
    pub late_referrers_tags: usize,
    /// Blobs that are stored without an answer: the connection breaks behind them.
    pub lose_answers: usize,
    /// Blobs of more than a MiB that are not stored: 500, and the upload stays as it is.
    pub fail_to_store: usize,
    /// What a push is answered with instead of the digest that was stored.
    pub stored_digest: Option<String>,
    /// The pulls that are left, as Docker Hub counts and names them.
    pub pulls: Option<u64>,
}

#[derive(Default)]
pub struct Repository {
    pub blobs: HashMap<Digest, Arc<Vec<u8>>>,
    /// Type and bytes.
    pub manifests: HashMap<Digest, (String, Vec<u8>)>,
    pub tags: BTreeMap<String, Digest>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) repositories: HashMap<String, Repository>,
    pub(super) uploads: HashMap<String, Vec<u8>>,
    /// The scopes a token is for, and how many uses it has left.
    pub(super) tokens: HashMap<String, (Vec<String>, usize)>,
    pub(super) requests: Vec<Request>,
    /// The requests that come before the hook, and the hook.
    hook: Option<(usize, Box<dyn FnOnce() + Send>)>,
    pub(super) next: usize,
}

#[derive(Default)]
pub(super) struct Shared {
    /// Nobody who holds it waits for `faults`.
    state: Mutex<State>,
    faults: Mutex<Faults>,
    base: OnceLock<String>,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the hook if this is its request.
    fn count_request(&self) {
        let mut state = self.state();
        match &mut state.hook {
            Some((left, _)) if *left > 0 => *left -= 1,
            hook => {
                let hook = hook.take();
                drop(state);
                hook.into_iter().for_each(|(_, hook)| hook());
            }
        }
    }

    pub(super) fn base(&self) -> &str {
        self.base.get().map_or("", String::as_str)
    }
}

/// The running double; ends when dropped.
pub struct Double {
    web: Web,
    shared: Arc<Shared>,
}

impl Double {
    pub fn start() -> Double {
        Double::with(None)
    }

    /// With TLS, by the certificates of `tests/support/tls`.
    pub fn start_tls(tls: Tls) -> Double {
        Double::with(Some(tls))
    }

    fn with(tls: Option<Tls>) -> Double {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared: Arc<Shared> = Arc::default();
        let own = shared.clone();
        let web = Web::start(
            tls,
            Arc::new(move |request, body| {
                own.count_request();
                let response = answer(&own, request, body);
                request.status = response.as_ref().map_or(0, |response| response.status);
                own.state().requests.push(request.clone());
                response
            }),
        );
        shared.base.set(format!("{scheme}://{}", web.address)).expect("set once");
        Double { web, shared }
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.web.address.to_string()
    }

    /// `http://127.0.0.1:PORT`.
    pub fn base(&self) -> String {
        self.shared.base().to_owned()
    }

    /// What goes wrong from now on. Held no longer than a statement.
    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        self.shared.faults()
    }

    /// Connections that were made so far.
    pub fn connections(&self) -> usize {
        self.web.connections.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// Every request that was answered (or broken off), in order.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.clone()
    }

    /// Calls `hook` when so many more requests have come, before the next one is answered.
    pub fn after_requests(&self, count: usize, hook: impl FnOnce() + Send + 'static) {
        self.shared.state().hook = Some((count, Box::new(hook)));
    }

    pub fn forget_requests(&self) {
        self.shared.state().requests.clear();
    }

    /// Requests of `method` with `part` in their path.
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.requests().iter().filter(|r| r.method == method && r.path.contains(part)).count()
    }

    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let mut state = self.shared.state();
        let repository = state.repositories.entry(repository.to_owned()).or_default();
        repository.blobs.insert(digest, Arc::new(bytes.to_vec()));
        digest
    }

    /// Bytes under a digest that need not be theirs.
    pub fn put_blob_at(&self, repository: &str, digest: Digest, bytes: &[u8]) {
        let mut state = self.shared.state();
        let repository = state.repositories.entry(repository.to_owned()).or_default();
        repository.blobs.insert(digest, Arc::new(bytes.to_vec()));
    }

    pub fn put_manifest(&self, repository: &str, tag: Option<&str>, manifest: &Manifest) {
        let mut state = self.shared.state();
        let repository = state.repositories.entry(repository.to_owned()).or_default();
        let stored = (manifest.descriptor.media_type.clone(), manifest.bytes.clone());
        repository.manifests.insert(manifest.digest(), stored);
        if let Some(tag) = tag {
            repository.tags.insert(tag.to_owned(), manifest.digest());
        }
    }

    /// Any bytes under any digest.
    pub fn put_manifest_at(&self, repository: &str, digest: Digest, media_type: &str, bytes: &[u8]) {
        let mut state = self.shared.state();
        let repository = state.repositories.entry(repository.to_owned()).or_default();
        repository.manifests.insert(digest, (media_type.to_owned(), bytes.to_vec()));
    }

    /// Points a tag at a digest, stored or not, later and from anywhere.
    pub fn tagger(&self) -> impl Fn(&str, &str, Digest) + Send + 'static {
        let shared = self.shared.clone();
        move |repository, tag, digest| {
            let mut state = shared.state();
            state.repositories.entry(repository.to_owned()).or_default().tags.insert(tag.to_owned(), digest);
        }
    }

    /// Points `tag` at `digest`, stored or not.
    pub fn tag_as(&self, repository: &str, tag: &str, digest: Digest) {
        let mut state = self.shared.state();
        let repository = state.repositories.entry(repository.to_owned()).or_default();
        repository.tags.insert(tag.to_owned(), digest);
    }

    /// All blobs and manifests, and the tags.
    pub fn contents(&self, repository: &str) -> (HashMap<Digest, Vec<u8>>, BTreeMap<String, Digest>) {
        let state = self.shared.state();
        let Some(repository) = state.repositories.get(repository) else { return Default::default() };
        let blobs = repository.blobs.iter().map(|(digest, bytes)| (*digest, bytes.to_vec()));
        let manifests = repository.manifests.iter().map(|(digest, (_, bytes))| (*digest, bytes.clone()));
        (blobs.chain(manifests).collect(), repository.tags.clone())
    }

    /// An image with these layers (their bytes are taken as they are), under `tag`.
    pub fn image(&self, repository: &str, tag: &str, layers: &[&[u8]]) -> Manifest {
        let manifest = image(layers);
        self.put_blob(repository, CONFIG);
        for layer in layers {
            self.put_blob(repository, layer);
        }
        self.put_manifest(repository, Some(tag), &manifest);
        manifest
    }

    pub fn blob(&self, repository: &str, digest: &Digest) -> Option<Arc<Vec<u8>>> {
        self.shared.state().repositories.get(repository)?.blobs.get(digest).cloned()
    }

    /// Takes a whole repository away.
    pub fn forget(&self, repository: &str) {
        self.forgetter()(repository);
    }

    /// Takes a whole repository away, later and from anywhere.
    pub fn forgetter(&self) -> impl Fn(&str) + Send + 'static {
        let shared = self.shared.clone();
        move |repository| drop(shared.state().repositories.remove(repository))
    }

    /// Takes a blob away.
    pub fn lose_blob(&self, repository: &str, digest: &Digest) {
        if let Some(repository) = self.shared.state().repositories.get_mut(repository) {
            repository.blobs.remove(digest);
        }
    }

    /// Takes a manifest away.
    pub fn lose_manifest(&self, repository: &str, digest: &Digest) {
        if let Some(repository) = self.shared.state().repositories.get_mut(repository) {
            repository.manifests.remove(digest);
        }
    }

    /// Those among `digests` that are stored.
    pub fn settled(&self, repository: &str, digests: impl Iterator<Item = Digest>) -> Vec<Digest> {
        digests.filter(|digest| self.blob(repository, digest).is_some()).collect()
    }

    /// What `tag` points at.
    pub fn tag(&self, repository: &str, tag: &str) -> Option<Digest> {
        self.shared.state().repositories.get(repository)?.tags.get(tag).copied()
    }

    /// Type and bytes.
    pub fn manifest(&self, repository: &str, digest: &Digest) -> Option<(String, Vec<u8>)> {
        self.shared.state().repositories.get(repository)?.manifests.get(digest).cloned()
    }

    /// What uploads that were begun and not ended have.
    pub fn kept(&self) -> Vec<Vec<u8>> {
        self.shared.state().uploads.values().cloned().collect()
    }

    /// Uploads that were begun and not ended.
    pub fn open_uploads(&self) -> usize {
        self.shared.state().uploads.len()
    }
}

const CONFIG: &[u8] = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;

/// The manifest of an image with these layers.
pub fn image(layers: &[&[u8]]) -> Manifest {
    let layers: Vec<Descriptor> = layers.iter().map(|bytes| Descriptor::of(media_type::OCI_LAYER, bytes)).collect();
    Manifest::synthesise(&Descriptor::of(media_type::OCI_CONFIG, CONFIG), &layers)
}

/// The config of [`image`].
pub fn config() -> &'static [u8] {
    CONFIG
}

/// The list of another writer ([`Faults::late_referrers_tags`]), with one entry.
pub fn late_list() -> Manifest {
    let entry = serde_json::json!(Descriptor::of(media_type::OCI_MANIFEST, b"a signature of another writer"));
    let list = serde_json::json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [entry] });
    Manifest::from_bytes(list.to_string().into_bytes(), media_type::OCI_INDEX).unwrap()
}
