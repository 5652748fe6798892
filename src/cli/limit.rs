//! `--limit-rate`: one rate for the whole process. Registries and other hosts keep to it at their connections; where
//! neither is at the other end, the source is read no faster.

use super::Run;
use super::options::Rate;
use imgmv::Result;
use imgmv::image::{Descriptor, Digest, Name};
use imgmv::limit::{Limit, Limited};
use imgmv::source::{Blob, Origin, Pick, Relay, Root, Source, Store, Stream, Tail};
use std::io::Read;
use std::sync::{Arc, OnceLock};

/// Whoever asks first says how fast: there is one command line.
static LIMIT: OnceLock<Arc<Limit>> = OnceLock::new();

/// What everything that moves over the network shares, if there is a `rate`.
pub fn shared(rate: Option<Rate>, run: &Run) -> Option<Arc<Limit>> {
    rate.map(|rate| LIMIT.get_or_init(|| Limit::new(rate.0, &run.cancel)).clone())
}

/// `source`, read no faster than `rate` if there is one.
pub fn limited(source: Source, rate: Option<Rate>, run: &Run) -> Source {
    let Some(limit) = shared(rate, run) else { return source };
    match source {
        Source::Store(store) => Source::Store(Arc::new(SlowStore { store, limit })),
        Source::Stream(stream) => Source::Stream(Box::new(SlowStream { stream, limit })),
    }
}

struct SlowStore {
    store: Arc<dyn Store>,
    limit: Arc<Limit>,
}

impl Store for SlowStore {
    fn roots(&self, picks: &[Pick]) -> Result<Vec<Root>> {
        self.store.roots(picks)
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
    fn may_lack(&self) -> bool {
        self.store.may_lack()
    }
    fn lanes(&self) -> usize {
        self.store.lanes()
    }
}

struct SlowStream {
    stream: Box<dyn Stream>,
    limit: Arc<Limit>,
}

impl Stream for SlowStream {
    fn digests_known(&mut self) -> Result<bool> {
        self.stream.digests_known()
    }
    fn next_blob(&mut self) -> Result<Option<Blob<'_>>> {
        let limit = self.limit.clone();
        let slow = |Blob { claim, bytes }| Blob { claim, bytes: Box::new(Limited::new(bytes, Some(&limit))) };
        Ok(self.stream.next_blob()?.map(slow))
    }
    fn finish(self: Box<Self>) -> Result<Tail> {
        self.stream.finish()
    }
    fn relay(self: Box<Self>, relay: Relay<'_>) -> Result<Tail> {
        let Relay { out, picks, rename, moved } = relay;
        let limit = self.limit;
        let mut slow = |bytes: u64| {
            limit.pass(usize::try_from(bytes).unwrap_or(usize::MAX))?;
            moved(bytes)
        };
        self.stream.relay(Relay { out, picks, rename, moved: &mut slow })
    }
}
