//! The end of a copy: manifests with their children first, then names.

use super::Copied;
use super::convert;
use super::run::CopyRun;
use super::unchanged;
use crate::error::{Error, Kind, Result};
use crate::image::{Digest, Image};

impl CopyRun<'_> {
    /// Fails with `Usage` where a stream's blob was recompressed and then turned out to belong to an artifact.
    pub fn check_recompressed(&self, images: &[Image]) -> Result<()> {
        match unchanged::blobs(images).into_iter().find(|digest| self.recompressed(digest).is_some()) {
            Some(digest) => Err(Error::usage(format!(
                "blob {digest} was compressed like an image's layer, but an artifact in the same pipe needs it unchanged; \
                 nothing of it was published; use --compress keep, or save the archive to a file first"
            ))),
            None => Ok(()),
        }
    }

    /// `image` as it will be at the sink.
    pub(super) fn converted(&self, image: &Image) -> Result<Image> {
        convert::image(image, &self.tally().recompressed, self.options.format)
    }

    /// Stores the manifests of `images`, children first, then their names. Every blob is stored already.
    pub fn publish(&self, images: &[Image]) -> Result<()> {
        images.iter().try_for_each(|image| self.publish_image(image))
    }

    fn publish_image(&self, image: &Image) -> Result<()> {
        self.cancel.check()?;
        let image = &*self.without_unreadable(image)?;
        let mut made = self.converted(image)?;
        if made.root().digest() != image.root().digest() {
            let (was, now) = (image.root().digest(), made.root().digest());
            self.watch.say(&format!("{was} becomes {now} at the destination: its layers or types were converted"));
        }
        if !made.is_current
            && let Some(narrowed) = self.put_tree(image, &made)?
        {
            made = narrowed;
        }
        self.tell_dropped(image, &made)?;
        // Other clients may have signed the image there during the copy.
        self.decide_tags(&mut made)?;
        self.publish_attached(&made)?;
        let root = made.listed_root();
        if made.names.is_empty() {
            self.sink.publish(None, &root)?;
        }
        for name in made.names.iter().filter(|_| !made.is_current) {
            self.sink.publish(Some(name), &root)?;
        }
        self.report_image(&made, image.source_digest);
        Ok(())
    }

    /// Stores the manifests of `made`, the converted `image`. Returns the smaller image that is stored instead where the
    /// sink refuses an index of which children are missing.
    fn put_tree(&self, image: &Image, made: &Image) -> Result<Option<Image>> {
        let put = |made: &Image| made.tree.iter().try_for_each(|manifest| self.sink.put_manifest(manifest));
        // A sink without unnamed images is a directory, which refuses nothing.
        let narrowed = image.narrowed.as_ref().filter(|_| self.capabilities.unnamed_images);
        let Some(narrowed) = narrowed else { return put(made).map(|()| None) };
        let root = made.root();
        match put(made).and_then(|()| self.sink.publish(None, root)) {
            Ok(()) => Ok(None),
            Err(refused) if matches!(refused.kind(), Kind::Failed | Kind::NotFound | Kind::Invalid) => {
                let smaller = Image { tree: narrowed.clone(), narrowed: None, ..image.clone() };
                let smaller = self.converted(&smaller)?;
                let (was, now) = (root.digest(), smaller.root().digest());
                let means_missing = refused.is_missing_content() || refused.kind() == Kind::NotFound;
                let why = if means_missing { ", since children of it are missing there" } else { "" };
                self.watch
                    .say(&format!("the destination refuses index {was}{why} ({refused}); {now} is stored instead"));
                put(&smaller)?;
                Ok(Some(smaller))
            }
            Err(error) => Err(error),
        }
    }

    /// Adds `image` to the report.
    pub fn report_image(&self, image: &Image, source_digest: Digest) {
        let root = image.root();
        self.tally().images.push(Copied {
            names: image.names.clone(),
            digest: root.digest(),
            media_type: root.descriptor.media_type.clone(),
            source_digest: image.lost_manifest.unwrap_or(source_digest),
            referrers: image.attached.iter().map(|attached| attached.manifest.digest()).collect(),
            platforms: image.platforms(),
        });
    }
}
