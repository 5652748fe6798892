//! The sentences for an image of which a part is missing or wrong.

use super::ImageAt;
use crate::error::{Error, Kind};

/// An image of which a part is missing or wrong.
pub(crate) struct Explanation<'a> {
    pub image: &'a ImageAt,
    /// The engine in the sentence: `docker`.
    pub engine: &'a str,
}

/// The state of an image by the names that were read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Now {
    /// It is the same as before.
    Same,
    /// Another image has its name.
    Replaced,
    /// Neither its name nor it exists.
    Removed,
    /// The layer that was read is another one now.
    StoredAgain,
}

impl Explanation<'_> {
    /// Returns whether `error` has a reason that the names can tell.
    pub fn concerns(error: &Error) -> bool {
        matches!(error.kind(), Kind::NotFound | Kind::Invalid)
    }

    /// The error for `error`, which [`Explanation::concerns`].
    pub fn error(&self, now: Now, error: Error) -> Error {
        let (image, engine) = (self.image.label(), self.engine);
        let what = match now {
            Now::Same if error.kind() == Kind::NotFound => {
                return Error::invalid(format!("image {image} is damaged: {error}"));
            }
            Now::Same => return error.at(format!("image {image}")),
            Now::Removed => format!("removed from {engine}"),
            Now::Replaced => "replaced by another image of the same name".to_owned(),
            Now::StoredAgain => format!("removed from {engine} and stored again"),
        };
        Error::not_found(format!(
            "image {image} was {what} while it was read; run the same command again for the image that {engine} has now"
        ))
    }
}
