//! `imgmv list`: the names a place has.

use crate::Result;
use crate::cli::address;
use crate::cli::address::help::PLACES;
use crate::cli::context::Run;
use crate::cli::open;
use crate::cli::open::NetworkOptions;
use crate::cli::open::inspect_source;
use crate::cli::output::answer::VERSION;
use crate::image::Digest;
use crate::source::Root;
use crate::transport::address::Listed;
use clap::Args;
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;

/// List the names of the images that SRC has, one a line
///
/// An image without a name is listed as @DIGEST, a name that stands for two images as NAME@DIGEST. Of a repository, its tags.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{PLACES}"))]
pub struct List {
    /// What to look into
    #[arg(value_name = "SRC")]
    src: OsString,
    #[command(flatten)]
    from: open::SourceOptions,
    #[command(flatten)]
    reach: NetworkOptions,
}

const EXAMPLES: &str = "\
Examples:
  imgmv list oci:./mirror
  imgmv list bundle.tar
  imgmv list registry.lan:5000/team/app
  imgmv list containerd: --src-namespace k8s.io
  imgmv list ssh://root@node1
  imgmv list bundle.tar --json";

#[derive(Serialize)]
struct Document {
    version: u32,
    images: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    name: Option<String>,
    /// Null where a registry would have to be asked for each tag, or an engine for each image.
    digest: Option<Digest>,
    media_type: Option<String>,
    #[serde(skip)]
    by_digest: bool,
}

impl List {
    pub fn run(self, run: &Run) -> Result<()> {
        self.look(run).map_err(|error| open::with_hint(&self.src, error))
    }

    fn look(&self, run: &Run) -> Result<()> {
        let address = address::parse(&self.src)?;
        if let Some(listed) = open::list(&*address, &self.from, &self.reach, run)? {
            return answer(listed.into_iter().map(Entry::from).collect(), run);
        }
        let opened = open::source(&*address, &self.from, &self.reach, run)?;
        let store = inspect_source::store(opened.source, run)?;
        answer(told_apart(store.roots(&opened.picks)?.into_iter().map(Entry::from).collect()), run)
    }
}

fn answer(entries: Vec<Entry>, run: &Run) -> Result<()> {
    run.screen.end();
    if run.answer.json() {
        return run.answer.document(&Document { version: VERSION, images: entries });
    }
    entries.iter().try_for_each(|entry| run.answer.line(&entry.told()))
}

/// A name that stands for two images is shown with the digest of each.
fn told_apart(mut entries: Vec<Entry>) -> Vec<Entry> {
    let mut owners: HashMap<String, HashSet<Option<Digest>>> = HashMap::new();
    for entry in &entries {
        owners.entry(entry.name.clone().unwrap_or_default()).or_default().insert(entry.digest);
    }
    for entry in &mut entries {
        entry.by_digest = entry.name.as_ref().is_some_and(|name| owners[name].len() > 1);
    }
    entries
}

impl From<Listed> for Entry {
    fn from((name, known): Listed) -> Entry {
        let (digest, media_type) = known.unzip();
        Entry { name: Some(name.to_string()), digest, media_type, by_digest: false }
    }
}

impl From<Root> for Entry {
    fn from(root: Root) -> Entry {
        Entry {
            name: root.name.map(|name| name.to_string()),
            digest: Some(root.descriptor.digest),
            media_type: Some(root.descriptor.media_type),
            by_digest: false,
        }
    }
}

impl Entry {
    fn told(&self) -> String {
        match (&self.name, &self.digest) {
            (Some(name), Some(digest)) if self.by_digest => format!("{name}@{digest}"),
            (Some(name), _) => name.clone(),
            (None, Some(digest)) => format!("@{digest}"),
            (None, None) => String::new(),
        }
    }
}
