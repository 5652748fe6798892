//! The images of a copy to containerd: which blobs they need, and which of them are unpacked, once.

use super::call::Scope;
use super::connection::Connection;
use super::host::HostInfo;
use super::labels;
use super::read::small;
use super::unpack::Unpacker;
use crate::error::{Error, Result};
use crate::image::{Config, Descriptor, Digest, Hasher, Manifest};
use crate::progress::{Event, Watch};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The manifests that the copy stored, and the images that it unpacked.
#[derive(Default)]
pub(super) struct Images(Mutex<State>);

#[derive(Default)]
struct State {
    stored: HashMap<Digest, Summary>,
    unpacked: HashSet<Digest>,
}

/// A manifest without its bytes.
#[derive(Clone)]
struct Summary {
    manifest: Descriptor,
    children: Vec<Descriptor>,
    /// `None` for an index or an artifact.
    config: Option<Descriptor>,
    layers: Vec<Descriptor>,
}

impl Images {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a stored manifest.
    pub fn add(&self, manifest: &Manifest) {
        let summary = Summary {
            manifest: manifest.descriptor.clone(),
            children: manifest.children().to_vec(),
            config: manifest.config().filter(|_| manifest.is_container_image()).cloned(),
            layers: manifest.layers().to_vec(),
        };
        self.state().stored.insert(manifest.digest(), summary);
    }

    /// The blobs of `root` and of what the copy stored below it, each once: manifests, configs and layers.
    pub fn blobs(&self, root: &Digest) -> Vec<Descriptor> {
        let state = self.state();
        let (mut seen, mut blobs, mut next) = (HashSet::new(), Vec::new(), vec![*root]);
        while let Some(digest) = next.pop() {
            let Some(summary) = state.stored.get(&digest).filter(|_| !seen.contains(&digest)) else { continue };
            let layers = summary.layers.iter().filter(|layer| !layer.is_foreign());
            let all = [&summary.manifest].into_iter().chain(&summary.config).chain(layers);
            blobs.extend(all.filter(|blob| seen.insert(blob.digest)).cloned());
            next.extend(summary.children.iter().map(|child| child.digest));
        }
        blobs
    }

    /// The image below `root` that the platform of `host` selects; `None` if no such image was stored.
    fn runnable(&self, root: &Digest, host: &HostInfo) -> Option<Summary> {
        let state = self.state();
        let mut found = state.stored.get(root)?;
        // An index may list indexes, but not without an end.
        for _ in 0..8 {
            if found.children.is_empty() {
                return found.config.is_some().then(|| found.clone());
            }
            let stored = |child: &&Descriptor| state.stored.contains_key(&child.digest);
            let children: Vec<&Descriptor> = found.children.iter().filter(stored).collect();
            let best = host.platform.best(children.iter().map(|child| child.platform.as_ref()))?;
            found = state.stored.get(&children.get(best)?.digest)?;
        }
        None
    }

    /// Unpacks the image that `host` runs of `root`, so that a container can start at once. Other images are stored
    /// only.
    pub fn unpack(
        &self,
        connection: &Arc<Connection>,
        scope: &Scope,
        host: &HostInfo,
        root: &Manifest,
        watch: &Arc<dyn Watch>,
    ) -> Result<()> {
        let place = connection.name();
        let Some((image, config)) = self.runnable(&root.digest(), host).and_then(|mut image| {
            let config = image.config.take()?;
            Some((image, config))
        }) else {
            watch.event(Event::Detail(&format!("{place}: {} is stored and not unpacked", root.digest())));
            return Ok(());
        };
        let Some(snapshotter) = &host.snapshotter else {
            watch.say(&format!("{place}: no snapshotter works there; the image is stored and not unpacked"));
            return Ok(());
        };
        if self.state().unpacked.contains(&image.manifest.digest) {
            return Ok(());
        }
        let bytes = small(connection, scope, &config.digest, Some(config.size), watch)?;
        let bytes = bytes.filter(|bytes| Hasher::new(config.digest.algorithm()).with(bytes).finish() == config.digest);
        let bytes = bytes.ok_or_else(|| {
            Error::remote_host(format!("{place}: the config {} was stored and is not readable", config.digest))
        })?;
        let parsed = Config::parse(&bytes)?;
        let runs = parsed.os.is_empty() || host.platform.rank(&parsed.platform()).is_some();
        if !runs || parsed.diff_ids().len() != image.layers.len() {
            watch.event(Event::Detail(&format!("{place}: {} is stored and not unpacked", image.manifest.digest)));
            return Ok(());
        }
        let unpacker = Unpacker { connection, scope, snapshotter };
        let done = unpacker.unpack(&image.layers, parsed.diff_ids()).and_then(|chain| match chain {
            Some(chain) => labels::add(connection, scope, &config.digest, labels::of_config(snapshotter, &chain)),
            None => Ok(()),
        });
        done.map_err(|failure| failure.into_error(place, &format!("unpacking {}", image.manifest.digest)))?;
        self.state().unpacked.insert(image.manifest.digest);
        Ok(())
    }
}
