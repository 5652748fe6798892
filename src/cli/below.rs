//! A copy of several images, each to its own repository below a prefix of a registry.

use crate::cli::context::CliRun;
use crate::cli::open::copy_options::{self, CopyOptions};
use crate::cli::open::{self, NetworkOptions, Opened, SinkOptions};
use crate::copy::plan::left_out;
use crate::copy::{Naming, Options, Report};
use crate::image::{Name, Reference};
use crate::source::attached::{image_roots, no_image_message};
use crate::source::{Root, Selector, Store};
use crate::transport::registry::Prefix;
use crate::{Error, Result};

/// The images that go to one repository, with their names.
type Repository = (Reference, Vec<(Selector, Name)>);

/// A copy of all images of a source below a prefix.
pub struct CopyBelow<'a> {
    pub prefix: &'a Prefix,
    /// The options of the copy, without selectors and names.
    pub options: &'a Options,
    pub into: &'a SinkOptions,
    pub network: &'a NetworkOptions,
}

impl CopyBelow<'_> {
    /// Copies each image of `opened` to its own repository.
    ///
    /// # Errors
    /// - `Usage`: the source is a stream, or a selected image has no name.
    pub fn copy(&self, opened: Opened, copying: &CopyOptions, run: &CliRun) -> Result<Report> {
        let Opened { source, selectors, name: own } = opened;
        let Some(store) = source.again().and_then(|source| source.into_store().ok()) else {
            return Err(Error::usage(
                "a DST that ends in / needs the image names first, but SRC is streamed; save it to an uncompressed \
                 file first",
            ));
        };
        let repositories = self.repositories(&*store, &selectors, own.as_ref(), run)?;
        let mut sum = Report { dry_run: self.options.dry_run, ..Report::default() };
        for (repository, jobs) in repositories {
            let address = self.prefix.repository(&repository);
            let sink = open::sink(&*address, self.into, self.network, &copying.written(), run)?;
            let jobs = jobs.into_iter().filter_map(|(selector, name)| {
                let naming = Naming::Names(vec![name]);
                Some((source.again()?, Options { selectors: vec![selector], naming, ..self.options.clone() }))
            });
            let report = copy_options::copy_all(jobs.collect(), &*sink, run)?;
            sum.count(&report);
            sum.images.extend(report.images);
        }
        Ok(sum)
    }

    /// The images that `selectors` select by their repository below the prefix.
    fn repositories(
        &self,
        store: &dyn Store,
        selectors: &[Selector],
        own: Option<&Name>,
        run: &CliRun,
    ) -> Result<Vec<Repository>> {
        let mut repositories: Vec<Repository> = Vec::new();
        for root in named_roots(store, selectors, own, self.options, run)? {
            let digest = root.descriptor.digest;
            let Some(name) = root.name.as_ref().or(own).and_then(Name::reference) else {
                return Err(Error::usage(format!(
                    "image {} has no name, so its repository below DST is unknown; copy it alone to DST/NAME:TAG",
                    label(&root, store)
                )));
            };
            let target = self.prefix.under(&name)?;
            let job = (Selector::Digest(digest), Name::from(&target));
            match repositories.iter_mut().find(|(known, _)| known.full_repository() == target.full_repository()) {
                Some((_, jobs)) if target.tag.is_none() && jobs.iter().any(|(known, _)| *known == job.0) => {}
                Some((_, jobs)) => jobs.push(job),
                None => repositories.push((target, vec![job])),
            }
        }
        Ok(repositories)
    }
}

/// The images that `selectors` select. Images without a name are left out if all of the source are copied.
fn named_roots(
    store: &dyn Store,
    selectors: &[Selector],
    own: Option<&Name>,
    options: &Options,
    run: &CliRun,
) -> Result<Vec<Root>> {
    let mut roots = image_roots(store, selectors)?;
    if roots.is_empty() && !options.allow_empty {
        return Err(Error::not_found(no_image_message(store)));
    }
    let is_unnamed = |root: &Root| root.name.as_ref().or(own).is_none();
    let unnamed: Vec<String> = roots.iter().filter(|root| is_unnamed(root)).map(|root| label(root, store)).collect();
    if selectors.is_empty() && !unnamed.is_empty() && unnamed.len() < roots.len() {
        run.watch().say(&left_out(&unnamed));
        roots.retain(|root| !is_unnamed(root));
    }
    // Names by digest come last: a tag of the same image in the same repository makes them unnecessary.
    roots.sort_by_key(|root| root.name.as_ref().is_some_and(|name| name.digest().is_some()));
    Ok(roots)
}

/// The digest by which the source knows the image of `root`: of one without a manifest, the image ID.
fn label(root: &Root, store: &dyn Store) -> String {
    let manifest = if root.synthesised { root.read(store).ok() } else { None };
    let config = manifest.as_ref().and_then(|manifest| manifest.config());
    config.map_or(root.descriptor.digest, |config| config.digest).to_string()
}
