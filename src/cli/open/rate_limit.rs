//! `--limit-rate`: one rate for the whole process. Registries and other hosts keep to it at their connections; where
//! neither is at the other end, the source is read no faster.

use crate::Result;
use crate::cli::context::Run;
use crate::cli::options::Rate;
use crate::image::Descriptor;
use crate::rate_limit::{Limit, Limited};
use crate::source::{Store, Wrapper};
use std::io::Read;
use std::sync::{Arc, OnceLock};

/// Whoever asks first says how fast: there is one command line.
static LIMIT: OnceLock<Arc<Limit>> = OnceLock::new();

/// What everything that moves over the network shares, if there is a `rate`.
pub fn shared(rate: Option<Rate>, run: &Run) -> Option<Arc<Limit>> {
    rate.map(|rate| LIMIT.get_or_init(|| Limit::new(rate.0, &run.cancel)).clone())
}

/// `store`, read no faster than `rate` if there is one.
pub fn limited(store: Arc<dyn Store>, rate: Option<Rate>, run: &Run) -> Arc<dyn Store> {
    match shared(rate, run) {
        Some(limit) => Arc::new(SlowStore { store, limit }),
        None => store,
    }
}

/// `bytes`, no faster than `rate` if there is one.
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

impl Wrapper for SlowStore {
    fn wrapped(&self) -> &dyn Store {
        &*self.store
    }
    fn open_blob(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(Limited::new(self.store.open(blob, from)?, Some(&self.limit))))
    }
}
