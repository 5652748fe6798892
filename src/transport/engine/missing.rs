//! The query for missing layers, before a load.

use super::delta::Delta;
use super::expected::ExpectedImages;
use super::inventory::Query;
use super::kind::Loader;
use super::sink::EngineSink;
use crate::error::Result;
use crate::image::{Descriptor, Digest, Image, Name};
use crate::source::Store;

impl EngineSink {
    /// Builds the query and checks all names before anything is sent: an engine would reject a name only after the last
    /// byte.
    fn query(&self, images: &[Image], blobs: &[Descriptor], source: &dyn Store) -> Result<Query> {
        let mut expected = ExpectedImages::default();
        for image in images {
            image.tree.iter().for_each(|manifest| expected.add_manifest(manifest));
            for name in &image.names {
                expected.add_name(&self.canonical(name)?, image.root().digest());
            }
        }
        Query::new(images, blobs, expected.to_verify(&self.found), source)
    }

    pub(super) fn missing_blobs(
        &self,
        images: &[Image],
        blobs: Vec<Descriptor>,
        source: &dyn Store,
    ) -> Result<Vec<Descriptor>> {
        let images = &*self.with_storable_names(images);
        images.iter().try_for_each(|image| self.check_runnable(&image.tree))?;
        let query = self.query(images, &blobs, source)?;
        let mut state = self.state();
        // A session answers one query: a second source is sent completely, and so is everything after a failed delta.
        if std::mem::replace(&mut state.queried, true) {
            return Ok(blobs);
        }
        let Some((session, answer)) = self.open_session(&query.to_lines(&self.found))? else {
            self.watch.say(&format!(
                "{}: the layers on the host are not known for a custom --remote-command; all layers are sent",
                self.host.name()
            ));
            return Ok(blobs);
        };
        let canonical = |name: &Name| self.canonical(name).ok();
        state.delta = Delta::new(&self.found, images, &blobs, &query, &answer, &canonical);
        let missing: Vec<Descriptor> = blobs.into_iter().filter(|blob| !state.delta.skips(&blob.digest)).collect();
        if !missing.is_empty() {
            state.delta.explain(self.host.name(), &self.found, &query, &answer, self.watch.as_ref());
        }
        state.session = Some((session, answer));
        Ok(missing)
    }

    pub(super) fn expect_layers(&self, layers: &[Vec<Digest>]) -> Result<()> {
        let host = self.host.name();
        let mut state = self.state();
        if std::mem::replace(&mut state.queried, true) || self.found.loader == Loader::Custom {
            return Ok(());
        }
        if layers.is_empty() {
            self.watch.say(&format!("{host}: a streamed archive lists its layers at its end; all layers are sent"));
            return Ok(());
        }
        let query = Query::expected_diff_ids(layers);
        if let Some((session, answer)) = self.open_session(&query.to_lines(&self.found))? {
            if layers.len() == 1 || self.found.loader != Loader::Podman {
                state.delta.skipped = query.skippable(&self.found, &answer);
            }
            state.delta.explain(host, &self.found, &query, &answer, self.watch.as_ref());
            state.session = Some((session, answer));
        }
        Ok(())
    }
}
