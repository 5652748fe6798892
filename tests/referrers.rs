//! What belongs to an image goes with it: referrers, cosign's tags, and the index that an image is a part of.

#[path = "referrers/copies.rs"]
mod copies;
#[path = "referrers/engines.rs"]
mod engines;
#[path = "referrers/hostile.rs"]
mod hostile;
#[path = "referrers/incomplete.rs"]
mod incomplete;
#[path = "referrers/nested.rs"]
mod nested;
#[path = "referrers/options.rs"]
mod options;
#[path = "referrers/peers.rs"]
mod peers;
#[path = "referrers/recursion.rs"]
mod recursion;
#[path = "referrers/signed.rs"]
mod signed;
#[path = "referrers/sparse.rs"]
mod sparse;
#[path = "support/mod.rs"]
mod support;
#[path = "referrers/uncompressed.rs"]
mod uncompressed;
#[path = "faults/images/world.rs"]
#[allow(dead_code)]
mod world;
