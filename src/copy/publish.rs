//! The end of a copy: manifests with their children first, then names.

use super::Copied;
use super::convert;
use super::run::Run;
use crate::error::{Error, Result};
use crate::image::{Digest, Image};

impl Run<'_> {
    /// A blob that was packed anew unseen (from a stream) has to be a layer of a container image wherever it is listed.
    pub fn check_packed(&self) -> Result<()> {
        let fixed = self.fixed.get().into_iter().flatten();
        match fixed.into_iter().find(|digest| self.packed(digest).is_some()) {
            Some(digest) => Err(Error::usage(format!(
                "blob {digest} passed as if it were an image's layer and was compressed, but an artifact names it as it \
                 is; nothing was published; use --compress keep, or save the archive to a file first"
            ))),
            None => Ok(()),
        }
    }

    /// `image` as it is to be at the sink.
    pub(super) fn converted(&self, image: &Image) -> Result<Image> {
        convert::image(image, &self.tally().packed, self.options.format)
    }

    /// Manifests, children first, then names: every blob is there.
    pub fn settle(&self, images: &[Image]) -> Result<()> {
        for image in images {
            self.cancel.check()?;
            let made = self.converted(image)?;
            if made.root().digest() != image.root().digest() {
                let (was, now) = (image.root().digest(), made.root().digest());
                self.watch.say(&format!("{was} became {now} there, since its layers or types were converted"));
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
            self.settled(&made, image.source_digest);
        }
        Ok(())
    }

    pub fn settled(&self, image: &Image, source_digest: Digest) {
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
