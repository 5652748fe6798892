//! `imgmv tag`: another name for an image where it is.

use crate::Result;
use crate::cli::address::Place;
use crate::cli::address::naming;
use crate::cli::context::Run;
use crate::cli::open;
use crate::cli::open::inspect_source;
use crate::cli::open::{InPlace, NetworkOptions, SourceOptions};
use crate::cli::output::answer::VERSION;
use crate::cli::output::report::named;
use crate::image::{Digest, Name};
use crate::progress::Event;
use crate::source::Selector;
use crate::transport::archive;
use clap::Args;
use serde_json::json;
use std::ffi::OsString;
use std::path::Path;

/// Give an image another name where it is
///
/// In a registry (a tag in the same repository), an OCI layout, or an archive, which is replaced as a whole by one
/// with the new name. No layer moves.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgmv tag registry.lan/team/app:2 stable
  imgmv tag oci:./mirror:app-2 app-stable
  imgmv tag app.tar app:stable")]
pub struct Tag {
    /// The image: in a registry, a layout or an archive
    #[arg(value_name = "SRC")]
    src: OsString,
    /// The new name
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    from: SourceOptions,
    #[command(flatten)]
    reach: NetworkOptions,
}

impl Tag {
    pub fn run(self, run: &Run) -> Result<()> {
        let place = Place::parse(&self.src)?;
        let names = self.names(&place)?;
        let root = self.publish(&place, &names, run)?;
        run.screen.end();
        match run.answer.json() {
            true => run.answer.document(&json!({
                "version": VERSION,
                "names": names.iter().map(Name::as_str).collect::<Vec<_>>(),
                "digest": root,
            })),
            false => named(&names, &root).try_for_each(|line| run.answer.line(&line)),
        }
    }

    /// The new names as the place spells them.
    fn names(&self, place: &Place) -> Result<Vec<Name>> {
        let spell = |text: &String| match place {
            Place::Registry(reference) => naming::tag_in(reference, text),
            place if archive_file(place).is_some() => naming::full(text),
            _ => naming::as_kept(text),
        };
        self.names.iter().map(spell).collect()
    }

    fn publish(&self, place: &Place, names: &[Name], run: &Run) -> Result<Digest> {
        if let Some((file, pick)) = archive_file(place) {
            return Ok(archive::retag(file, pick, names, run.watch())?.descriptor.digest);
        }
        let InPlace { store, picks, sink } = open::in_place(place, &self.from, &self.reach, run)?;
        let mut roots = store.roots(&picks)?;
        roots.dedup_by_key(|root| root.descriptor.digest);
        let manifest = inspect_source::one(roots)?.read(&*store)?;
        for name in names {
            if sink.published(name).ok().flatten() == Some(manifest.digest()) {
                run.watch().event(Event::Detail(&format!("{name} points there already")));
                continue;
            }
            // Where the index was made of platforms side by side, it is not there yet.
            sink.put_manifest(&manifest)?;
            sink.publish(Some(name), &manifest)?;
        }
        sink.finish()?;
        Ok(manifest.digest())
    }
}

/// The archive that is meant, if it is one, and which of its images.
fn archive_file(place: &Place) -> Option<(&Path, Option<&Selector>)> {
    match place {
        Place::DockerArchive { file, pick } | Place::OciArchive { file, pick } => Some((file, pick.as_ref())),
        Place::Path(path) if !path.is_dir() => Some((path, None)),
        _ => None,
    }
}
