//! `--limit-rate`: one rate for the process. Connections to registries and hosts are limited; if neither end is remote,
//! reading the source is.

use crate::Result;
use crate::cli::context::Run;
use crate::cli::options::Rate;
use crate::image::{Descriptor, Digest, Name};
use crate::rate_limit::{Limit, Limited};
use crate::source::{Origin, Root, Selector, Store};
use std::io::Read;
use std::sync::{Arc, OnceLock};

/// The limit of this process, set by the first call of [`shared`].
static LIMIT: OnceLock<Arc<Limit>> = OnceLock::new();

/// Returns the limit that all connections share, if there is a `rate`.
pub fn shared(rate: Option<Rate>, run: &Run) -> Option<Arc<Limit>> {
    rate.map(|rate| LIMIT.get_or_init(|| Limit::new(rate.0, &run.cancel)).clone())
}

/// Limits reading `store` to `rate`, if there is one.
pub fn limited(store: Arc<dyn Store>, rate: Option<Rate>, run: &Run) -> Arc<dyn Store> {
    match shared(rate, run) {
        Some(limit) => Arc::new(SlowStore { store, limit }),
        None => store,
    }
}

/// Limits reading `bytes` to `rate`, if there is one.
pub fn limited_bytes(bytes: Box<dyn Read + Send>, rate: Option<Rate>, run: &Run) -> Box<dyn Read + Send> {
    match shared(rate, run) {
        Some(limit) => Box::new(Limited::new(bytes, Some(&limit))),
        None => bytes,
    }
}

struct SlowStore {
    store: Arc<dyn Store>,
    limit: Arc<Limit>,
}

impl Store for SlowStore {
    fn roots(&self, selectors: &[Selector]) -> Result<Vec<Root>> {
        self.store.roots(selectors)
    }
    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        self.store.manifest(at)
    }
    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(Limited::new(self.store.open(blob, from)?, Some(&self.limit))))
    }
    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        self.store.find(digest)
    }
    fn names(&self) -> Result<Vec<Name>> {
        self.store.names()
    }
    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.store.referrers(subject)
    }
    fn origin(&self) -> Option<&Origin> {
        self.store.origin()
    }
    fn fetches(&self, layer: &Descriptor) -> bool {
        self.store.fetches(layer)
    }
    fn nothing(&self) -> String {
        self.store.nothing()
    }
    fn is_sparse(&self) -> bool {
        self.store.is_sparse()
    }
    fn is_far(&self) -> bool {
        self.store.is_far()
    }
    fn lanes(&self) -> usize {
        self.store.lanes()
    }
    fn expect(&self, all: &[Digest], wanted: &mut dyn Iterator<Item = Digest>) {
        self.store.expect(all, wanted);
    }
    fn skip_blob(&self, blob: &Digest) {
        self.store.skip_blob(blob);
    }
}
