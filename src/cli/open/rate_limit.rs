//! `--limit-rate`: one rate for the process. Connections to registries and hosts are limited; if neither end is remote,
//! reading the source is.

use crate::Result;
use crate::cli::context::CliRun;
use crate::cli::options::Rate;
use crate::image::Descriptor;
use crate::rate_limit::{Limit, Limited};
use crate::source::{Store, Wrapper};
use std::io::Read;
use std::sync::{Arc, OnceLock};

/// The limit of this process, set by the first call of [`shared`].
static LIMIT: OnceLock<Arc<Limit>> = OnceLock::new();

/// Returns the limit that all connections share, if there is a `rate`.
pub fn shared(rate: Option<Rate>, run: &CliRun) -> Option<Arc<Limit>> {
    rate.map(|rate| LIMIT.get_or_init(|| Limit::new(rate.0, &run.cancel)).clone())
}

/// Limits reading `store` to `rate`, if there is one.
pub fn limited(store: Arc<dyn Store>, rate: Option<Rate>, run: &CliRun) -> Arc<dyn Store> {
    match shared(rate, run) {
        Some(limit) => Arc::new(SlowStore { store, limit }),
        None => store,
    }
}

/// Limits reading `bytes` to `rate`, if there is one.
pub fn limited_bytes(bytes: Box<dyn Read + Send>, rate: Option<Rate>, run: &CliRun) -> Box<dyn Read + Send> {
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
