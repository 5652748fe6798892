//! `imgmv tag`: gives an image another name at its location.

use crate::Result;
use crate::cli::address;
use crate::cli::address::Address;
use crate::cli::context::CliRun;
use crate::cli::open::SourceAccess;
use crate::cli::open::inspect_source;
use crate::cli::output::answer::VERSION;
use crate::cli::output::report::name_lines;
use crate::image::{Digest, Name};
use crate::progress::Event;
use crate::transport::address::InPlace;
use crate::transport::archive;
use clap::Args;
use serde_json::json;
use std::ffi::OsString;

/// Give an image another name at its location
///
/// SRC is in a registry or its storage tree (the name is a tag in the same repository), an OCI layout or an archive. An
/// archive is replaced atomically. Layers are not transferred.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgmv tag registry.lan/team/app:2 stable
  imgmv tag oci:./mirror:app-2 app-stable
  imgmv tag registry-dir:/srv/registry:team/app:2 stable
  imgmv tag app.tar app:stable")]
pub struct TagVerb {
    /// Location of the image: a registry, its storage tree, a layout or an archive
    #[arg(value_name = "SRC")]
    src: OsString,
    /// New name
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    access: SourceAccess,
}

impl TagVerb {
    pub fn run(self, run: &CliRun) -> Result<()> {
        let address = address::parse(&self.src)?;
        let names = self.names.iter().map(|text| address.spell(text)).collect::<Result<Vec<_>>>()?;
        let digest = self.publish(&*address, &names, run)?;
        run.screen.clear();
        match run.answer.json() {
            true => run.answer.document(&json!({
                "version": VERSION,
                "names": names.iter().map(Name::as_str).collect::<Vec<_>>(),
                "digest": digest,
            })),
            false => name_lines(&names, &digest).try_for_each(|line| run.answer.line(&line)),
        }
    }

    fn publish(&self, address: &dyn Address, names: &[Name], run: &CliRun) -> Result<Digest> {
        let (store, selector, sink) = match self.access.in_place(address, run)? {
            InPlace::Store { store, selector, sink } => (store, selector, sink),
            InPlace::Archive { file, selector } => {
                return Ok(archive::retag(&file, selector.as_ref(), names, run.watch())?.descriptor.digest);
            }
        };
        let mut roots = store.roots(&Vec::from_iter(selector))?;
        roots.dedup_by_key(|root| root.descriptor.digest);
        let manifest = inspect_source::one(roots)?.read(&*store)?;
        for name in names {
            if sink.published(name).ok().flatten() == Some(manifest.digest()) {
                run.watch().event(Event::Detail(&format!("{name}: points to this image already")));
                continue;
            }
            // A generated index does not exist at the location yet.
            sink.put_manifest(&manifest)?;
            sink.publish(Some(name), &manifest)?;
        }
        sink.finish()?;
        Ok(manifest.digest())
    }
}
