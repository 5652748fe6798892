//! `docker-dir:[REF]`: docker's own directory. Its images are in the stores of graph drivers, or in the containerd that
//! dockerd starts for itself; after the feature was switched, in both.

use crate::disk::rooted::Resolution;
use crate::image::{Descriptor, Name, Reference};
use crate::message::some_of;
use crate::progress::Watch;
use crate::sink::Sink;
use crate::source::rebuilt::IdPrefix;
use crate::source::{Profile, ReferrerList, Root, Selector, Several, Store};
use crate::tarsplit::MeasuredLayers;
use crate::transport::address::{
    Address, Listed, OpenSource, RepositoryName, SelectedSource, ServeSource, Transport, all_of,
};
use crate::transport::containerd::ContainerdStore;
use crate::transport::docker_dir::data_root;
use crate::transport::docker_dir::{DockerDir, DockerDirStore};
use crate::transport::names;
use crate::transport::options::{Context, ReadOptions, WriteOptions};
use crate::transport::syntax::selector;
use crate::{Digest, Error, Kind, Result};
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The shortest time between two checks of the names of a running docker.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// containerd's namespace for docker. With userns-remap, `-UID.GID` follows.
const NAMESPACE: &str = "moby";
/// docker's name in containerd for an image without a tag.
const DANGLING: &str = "moby-dangling@";

pub(crate) const DOCKER_DIR: Transport = Transport {
    scheme: "docker-dir:",
    syntax: "docker-dir:[REF]",
    help: &[
        "SRC: docker's own directory, without a daemon or while it runs; REF is a",
        "name or an image ID; without REF, every image in it",
    ],
    serve_forms: &[("docker-dir:", "docker's own directory")],
    parse: |_, rest| Ok(Box::new(DockerDirAddress { selector: selector(rest)? })),
};

/// docker's directory, and an image in it.
#[derive(Debug)]
struct DockerDirAddress {
    selector: Option<Selector>,
}

impl fmt::Display for DockerDirAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(DOCKER_DIR.scheme)?;
        self.selector.as_ref().map_or(Ok(()), |selector| selector.fmt(f))
    }
}

impl Address for DockerDirAddress {
    fn source(&self, options: &ReadOptions<'_>, context: &Context) -> Result<SelectedSource> {
        let stores = Stores::open(options.storage_root, &context.watch, &MeasuredLayers::default())?;
        Ok(SelectedSource { source: OpenSource::Store(stores.together()), selector: self.selector.clone(), name: None })
    }

    fn sink(&self, _options: &WriteOptions<'_>, _context: &Context) -> Result<Box<dyn Sink>> {
        Err(Error::usage(format!(
            "{self} is read only: dockerd would not know an image that is written to its directory; use \
             docker-daemon:REF as DST"
        )))
    }

    fn identity(&self) -> Option<String> {
        Some(format!("{}{}", DOCKER_DIR.scheme, names::selector_key(self.selector())))
    }

    fn selector(&self) -> Option<&Selector> {
        self.selector.as_ref()
    }

    /// Lists without reading a layer, for which every tar-split would be read. Images without a name have their IDs.
    fn list(&self, options: &ReadOptions<'_>, context: &Context) -> Result<Option<Vec<Listed>>> {
        let stores = Stores::open(options.storage_root, &context.watch, &MeasuredLayers::default())?;
        match &stores {
            Stores { graph: Some(graph), containerds, .. } if self.selector.is_none() && containerds.is_empty() => {
                Ok(Some(graph.names_and_ids()?.into_iter().map(|name| (name, None)).collect()))
            }
            _ => Ok(None),
        }
    }

    fn serve_source(&self, options: &ReadOptions<'_>, context: &Context) -> Result<ServeSource> {
        all_of(self.selector())?;
        let (root, watch, measured) =
            (options.storage_root.map(Path::to_owned), context.watch.clone(), MeasuredLayers::default());
        Ok(ServeSource::Store {
            watched: Stores::open(root.as_deref(), &watch, &measured)?.watched,
            poll_interval: POLL_INTERVAL,
            repository: RepositoryName::Fixed("docker"),
            open: Box::new(move || Ok(Stores::open(root.as_deref(), &watch, &measured)?.together())),
        })
    }
}

/// The stores in docker's directory.
struct Stores {
    graph: Option<DockerDirStore>,
    containerds: Vec<ContainerdStore>,
    /// The files that change with the names of images.
    watched: Vec<PathBuf>,
    /// There are graph drivers, and the names in a containerd changed after theirs.
    used_containerd_last: bool,
    watch: Arc<dyn Watch>,
}

impl Stores {
    /// Opens the stores in `root`, or in this host's directories.
    fn open(root: Option<&Path>, watch: &Arc<dyn Watch>, measured: &MeasuredLayers) -> Result<Stores> {
        let roots = data_root::find(root, Resolution::default())?;
        for link in &roots.links {
            watch.say(&format!(
                "{} is a symbolic link, which is not followed; mount its target there (mount --bind), or copy it",
                link.display()
            ));
        }
        let (mut containerds, mut others) = (Vec::new(), Vec::new());
        let mut watched = roots.names_files();
        let names_files = watched.len();
        for directory in &roots.containerds {
            watched.push(directory.join("io.containerd.metadata.v1.bolt/meta.db"));
            match MobyStores::open(directory) {
                Ok(found) => {
                    containerds.extend(found.stores);
                    others.extend(found.others);
                }
                // Without a database, containerd has not started yet.
                Err(error) if roots.drivers.is_empty() => return Err(error),
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => watch.say(&format!("{error}; only the images of graph drivers are read")),
            }
        }
        if roots.drivers.is_empty() && containerds.is_empty() {
            return Err(others.into_iter().next().map_or_else(|| roots.nothing(), Error::not_found));
        }
        others.iter().for_each(|other| watch.say(other));
        if !roots.unsupported.is_empty() {
            let drivers = some_of(&roots.unsupported);
            watch.say(&format!("images of the graph driver {drivers} are not read; start that docker for them"));
        }
        let graph = (!roots.drivers.is_empty())
            .then(|| DockerDirStore::new(DockerDir::new(roots, watch.clone()), measured.clone()));
        let (of_graph, of_containerds) = watched.split_at(names_files.min(watched.len()));
        let used_containerd_last =
            graph.is_some() && !containerds.is_empty() && newest(of_containerds) > newest(of_graph);
        Ok(Stores { graph, containerds, watched, used_containerd_last, watch: watch.clone() })
    }

    /// All of them as one store. The one that docker used last is the first.
    fn together(self) -> Arc<dyn Store> {
        let graph = self.graph.map(|store| Arc::new(store) as Arc<dyn Store>);
        let containerds = self.containerds.into_iter().map(|store| Arc::new(MobyStore(store)) as Arc<dyn Store>);
        let mut stores: Vec<Arc<dyn Store>> = graph.into_iter().chain(containerds).collect();
        if self.used_containerd_last {
            stores.rotate_left(1);
        }
        match stores.len() {
            1 => stores.remove(0),
            _ => Arc::new(Several::new(stores, self.watch)),
        }
    }
}

/// The time of the last change of `files`; `None` if none exists.
fn newest<'p>(files: impl IntoIterator<Item = &'p PathBuf>) -> Option<SystemTime> {
    files.into_iter().filter_map(|file| file.symlink_metadata().ok()?.modified().ok()).max()
}

/// The stores of one containerd that docker uses.
struct MobyStores {
    stores: Vec<ContainerdStore>,
    /// A sentence about images in namespaces that are not docker's.
    others: Option<String>,
}

impl MobyStores {
    /// Opens docker's namespaces in containerd's directory. With graph drivers, containerd runs containers only, and they
    /// have no image.
    fn open(directory: &Path) -> Result<MobyStores> {
        let all = ContainerdStore::open(directory, None)?;
        let mut namespaces: Vec<String> = all.records().iter().map(|record| record.namespace.clone()).collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        let (dockers, others): (Vec<String>, Vec<String>) = namespaces.into_iter().partition(|name| is_dockers(name));
        let stores = dockers.iter().map(|name| ContainerdStore::open(directory, Some(name)));
        Ok(MobyStores { stores: stores.collect::<Result<_>>()?, others: not_read(directory, &others) })
    }
}

/// Whether `namespace` is docker's.
fn is_dockers(namespace: &str) -> bool {
    let rest = namespace.strip_prefix(NAMESPACE);
    rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('-').is_some_and(data_root::is_remapped))
}

/// The sentence about the images of `namespaces`, which are not docker's; `None` if there are none.
fn not_read(directory: &Path, namespaces: &[String]) -> Option<String> {
    let first = namespaces.first()?;
    let (directory, names) = (directory.display(), some_of(namespaces));
    Some(format!(
        "containerd at {directory} has images in the namespace {names}, which is not docker's; read them with \
         containerd:REF --src-root {directory} --src-namespace {first}"
    ))
}

/// containerd's directory as docker uses it: an image ID is the digest of a manifest or index.
struct MobyStore(ContainerdStore);

impl MobyStore {
    fn by_id(&self, text: &str) -> Result<Option<Digest>> {
        let Some(prefix) = IdPrefix::parse(text) else { return Ok(None) };
        let is_name = |name: &Name| name.matches(text);
        match self.0.names()?.iter().any(is_name) {
            true => Ok(None),
            false => prefix.only(self.0.records().iter().map(|record| record.target.digest)),
        }
    }
}

impl MobyStore {
    /// The digest in `NAME@DIGEST`, where an image has both.
    fn by_name_and_digest(&self, text: &str) -> Option<Digest> {
        let asked = text.parse::<Reference>().ok()?;
        let digest = asked.digest?;
        let name = Name::from(&Reference { digest: None, ..asked });
        let named = self.0.roots(&[Selector::Name(name.to_string())]).ok()?;
        named.iter().any(|root| root.descriptor.digest == digest).then_some(digest)
    }
}

impl Store for MobyStore {
    fn roots(&self, selectors: &[Selector]) -> Result<Vec<Root>> {
        let mut translated = Vec::with_capacity(selectors.len());
        for selector in selectors {
            let id = match selector {
                Selector::Name(text) => self.by_id(text)?.or_else(|| self.by_name_and_digest(text)),
                Selector::Digest(_) => None,
            };
            translated.push(id.map_or_else(|| selector.clone(), Selector::Digest));
        }
        let mut roots = self.0.roots(&translated)?;
        for root in &mut roots {
            root.name = root.name.take().filter(|name| !name.as_str().starts_with(DANGLING));
        }
        Ok(roots)
    }

    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        self.0.manifest(at)
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        self.0.open(blob, from)
    }

    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        self.0.find(digest)
    }

    fn file_of(&self, digest: &Digest) -> Option<String> {
        self.0.file_of(digest)
    }

    fn names(&self) -> Result<Vec<Name>> {
        let names = self.0.names()?.into_iter();
        Ok(names.filter(|name| !name.as_str().starts_with(DANGLING)).collect())
    }

    fn referrers(&self, subject: &Digest) -> Result<ReferrerList> {
        self.0.referrers(subject)
    }

    fn profile(&self) -> Profile {
        self.0.profile()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_namespaces_are_moby_and_those_of_remapped_users() {
        for (namespace, expected) in [
            ("moby", true),
            ("moby-200000.200000", true),
            ("moby-", false),
            ("moby-x", false),
            ("moby200000.200000", false),
            ("plugins.moby", false),
            ("k8s.io", false),
        ] {
            assert_eq!(is_dockers(namespace), expected, "{namespace}");
        }
    }
}
