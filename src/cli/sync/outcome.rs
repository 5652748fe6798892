//! The result of one image at one destination.

use crate::Result;
use crate::copy::{Copied, Report};
use crate::image::Digest;
use serde::Serialize;

/// The image at the destination, compared with before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The destination did not have the name.
    New,
    /// The name had another digest.
    Changed,
    /// The name had the same digest; referrers may be new.
    Same,
}

impl State {
    /// The state of a name that had the digest `before` and gets the digest `after`.
    pub fn of(before: Option<Digest>, after: Digest) -> State {
        match before {
            None => State::New,
            Some(before) if before == after => State::Same,
            Some(_) => State::Changed,
        }
    }

    /// The word in the answer.
    pub fn word(self) -> &'static str {
        match self {
            State::New => "new",
            State::Changed => "changed",
            State::Same => "same",
        }
    }
}

/// The copy of an image to one destination.
#[derive(Debug, Default)]
pub struct Done {
    /// The state of each image of `report`.
    pub states: Vec<State>,
    pub report: Report,
    /// The manifests that a copy requests from Docker Hub, which counts them as pulls.
    pub hub_pulls: usize,
}

impl Done {
    /// An image that was not copied, since the destination has it.
    pub fn same(name: crate::image::Name, digest: Digest, media_type: &str, dry_run: bool) -> Done {
        let image = Copied {
            names: vec![name],
            digest,
            media_type: media_type.to_owned(),
            source_digest: digest,
            referrers: Vec::new(),
            platforms: Vec::new(),
        };
        let report = Report { images: vec![image], dry_run, ..Report::default() };
        Done { states: vec![State::Same], report, hub_pulls: 0 }
    }
}

/// The result of one image at one destination.
#[derive(Debug)]
pub struct Outcome {
    /// The index of the entry.
    pub entry: usize,
    /// The image at its source, or the entry's source if its images are not known.
    pub from: String,
    /// The name or place at the destination.
    pub to: String,
    pub result: Result<Done>,
}
