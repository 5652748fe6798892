//! Faults that hostile registries and real users' inputs showed, one table a kind. Every input is built here.

#[path = "support/mod.rs"]
mod support;

#[path = "faults/archives.rs"]
mod archives;
#[path = "faults/downloads.rs"]
mod downloads;
#[path = "faults/images.rs"]
mod images;
#[path = "faults/network.rs"]
mod network;
#[path = "faults/uploads.rs"]
mod uploads;
