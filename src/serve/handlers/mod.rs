//! One file for each group of the distribution specification's endpoints.

pub(super) mod lists;
pub(super) mod manifest_memory;
pub(super) mod manifests;
pub(super) mod metrics;
pub(super) mod page;
pub(super) mod pull;
pub(super) mod push;
pub(super) mod uploads;
