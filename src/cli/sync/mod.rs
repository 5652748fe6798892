//! The story of `imgmv sync`: read the set, find the images, copy them, delete what is gone, report.
//!
//! `documents` reads the set; `entry` parses its addresses; `listing` finds the tags of each entry; `jobs` assigns each
//! image its names and destinations; `transfer` copies one image, `together` all images of a destination that is written
//! once; `outcome` and `report` are the answer, `failures` the list for the next run, `lock` the digests of `--locked`, `gone` the deletions of `--delete`.

pub mod documents;
pub mod entry;
pub mod failures;
pub mod gone;
pub mod jobs;
pub mod listing;
pub mod lock;
pub mod outcome;
pub mod report;
pub mod together;
pub mod transfer;
