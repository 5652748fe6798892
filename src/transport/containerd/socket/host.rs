//! The properties of a containerd as a destination: its platform, its namespaces, its snapshotter.

use super::call::{Scope, unary};
use super::connection::Connection;
use super::listing;
use super::messages::{Namespace, Plugin, PluginsRequest};
use super::status::Failure;
use crate::error::{Error, Result};
use crate::image::Platform;
use std::sync::Arc;

/// containerd's default snapshotter on linux.
const OVERLAYFS: &str = "overlayfs";
/// The label of a namespace that names another one.
const SNAPSHOTTER_LABEL: &str = "containerd.io/defaults/snapshotter";
/// kubelet's namespace.
const KUBERNETES: &str = "k8s.io";
/// containerd's own default.
const DEFAULT_NAMESPACE: &str = "default";
const MAX_PLUGINS_BYTES: usize = 256 << 10;

/// A containerd as a destination.
#[derive(Debug, Clone)]
pub(super) struct HostInfo {
    pub namespace: String,
    /// The platform of the images that it runs.
    pub platform: Platform,
    /// Where layers are unpacked; `None` if no snapshotter works.
    pub snapshotter: Option<String>,
}

impl HostInfo {
    /// Queries containerd. Without `namespace`, images go to kubelet's if it exists, else to containerd's default.
    ///
    /// # Errors
    /// - `NotFound`, `Denied`, `RemoteHost`: the socket cannot be opened, or nothing answers on it.
    /// - `Invalid`: what answers does not follow containerd's protocol.
    pub fn query(connection: &Arc<Connection>, namespace: Option<&str>) -> Result<HostInfo> {
        let failed = |failure: Failure| failure.into_error(connection.name(), "the first query");
        let namespaces = listing::namespaces(connection).map_err(failed)?;
        let namespace = match namespace {
            Some(name) => name.to_owned(),
            None if namespaces.iter().any(|namespace| namespace.name == KUBERNETES) => KUBERNETES.to_owned(),
            None => DEFAULT_NAMESPACE.to_owned(),
        };
        let plugins = snapshotters(connection).map_err(failed)?;
        let platform = plugins.iter().flat_map(|plugin| &plugin.platforms).find(|platform| !platform.os.is_empty());
        let platform = platform.map(|found| Platform::new(&found.os, &found.architecture, Some(&found.variant)));
        let snapshotter = snapshotter(&namespaces, &namespace, &plugins)?;
        Ok(HostInfo { namespace, platform: platform.unwrap_or_else(Platform::host), snapshotter })
    }
}

fn snapshotters(connection: &Arc<Connection>) -> Result<Vec<Plugin>, Failure> {
    let request = PluginsRequest { filters: vec!["type~=io.containerd.snapshotter.v1".to_owned()] };
    let method = "containerd.services.introspection.v1.Introspection/Plugins";
    let answer = unary(connection, method, &Scope::default(), &request, MAX_PLUGINS_BYTES)?;
    let mut plugins: Vec<Plugin> = Vec::new();
    listing::entries(answer, "plugins", |plugin: Plugin| {
        if plugin.init_error.as_ref().is_none_or(|error| error.code == 0 && error.message.is_empty()) {
            plugins.push(plugin);
        }
    })?;
    Ok(plugins)
}

/// The snapshotter that the namespace names, else overlayfs, else native.
fn snapshotter(namespaces: &[Namespace], namespace: &str, plugins: &[Plugin]) -> Result<Option<String>> {
    let works = |id: &str| plugins.iter().any(|plugin| plugin.id == id);
    let settings = namespaces.iter().find(|found| found.name == namespace);
    match settings.and_then(|found| found.labels.get(SNAPSHOTTER_LABEL)) {
        Some(id) if works(id) => Ok(Some(id.clone())),
        Some(id) => Err(Error::remote_host(format!(
            "the namespace {namespace} of containerd uses the snapshotter {id:?}, which does not work there"
        ))),
        None => Ok([OVERLAYFS, "native"].into_iter().find(|id| works(id)).map(str::to_owned)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn a_namespace_may_name_its_snapshotter() {
        let plugin = |id: &str| Plugin { id: id.to_owned(), ..Plugin::default() };
        let plugins = [plugin("native"), plugin(OVERLAYFS), plugin("zfs")];
        let labels = HashMap::from([(SNAPSHOTTER_LABEL.to_owned(), "zfs".to_owned())]);
        let namespaces = [Namespace { name: "n".to_owned(), labels }];
        assert_eq!(snapshotter(&namespaces, "n", &plugins).unwrap().as_deref(), Some("zfs"));
        assert_eq!(snapshotter(&namespaces, "other", &plugins).unwrap().as_deref(), Some(OVERLAYFS));
        assert_eq!(snapshotter(&namespaces, "other", &plugins[..1]).unwrap().as_deref(), Some("native"));
        assert_eq!(snapshotter(&namespaces, "other", &[]).unwrap(), None);
        assert!(snapshotter(&namespaces, "n", &plugins[..1]).is_err());
    }
}
