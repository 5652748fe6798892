//! The parts of a sync of many images that read and write nothing themselves.

pub mod deletion;
