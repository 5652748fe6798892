//! The end of a copy: manifests with their children first, then names.

use super::Copied;
use super::convert;
use super::run::CopyRun;
use crate::error::{Error, Result};
use crate::image::{Digest, Image};

impl CopyRun<'_> {
    /// Fails with `Usage` where a stream's blob was recompressed and then turned out to belong to an artifact.
    pub fn check_recompressed(&self) -> Result<()> {
        let unchanged = self.unchanged.get().into_iter().flatten();
        match unchanged.into_iter().find(|digest| self.recompressed(digest).is_some()) {
            Some(digest) => Err(Error::usage(format!(
                "blob {digest} was compressed like an image's layer, but an artifact in the same stream needs it \
                 unchanged; nothing was published; use --compress keep, or save the archive to a file first"
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
        for image in images {
            self.cancel.check()?;
            let made = self.converted(image)?;
            if made.root().digest() != image.root().digest() {
                let (was, now) = (image.root().digest(), made.root().digest());
                self.watch.say(&format!("{was} becomes {now} at the destination: its layers or types were converted"));
            }
            for manifest in &made.tree {
                self.sink.put_manifest(manifest)?;
            }
            if made.names.is_empty() {
                self.sink.publish(None, made.root())?;
            }
            for name in &made.names {
                self.sink.publish(Some(name), made.root())?;
            }
            self.report_image(&made, image.source_digest);
        }
        Ok(())
    }

    /// Adds `image` to the report.
    pub fn report_image(&self, image: &Image, source_digest: Digest) {
        let root = image.root();
        self.tally().images.push(Copied {
            names: image.names.clone(),
            digest: root.digest(),
            media_type: root.descriptor.media_type.clone(),
            source_digest,
            platforms: image.platforms(),
        });
    }
}
