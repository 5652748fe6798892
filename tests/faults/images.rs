//! What a copy does with images and artifacts of unusual shape.

#[path = "images/artifacts.rs"]
mod artifacts;
#[path = "images/foreign.rs"]
mod foreign;
#[path = "images/parts.rs"]
mod parts;
#[path = "images/verified.rs"]
mod verified;
#[path = "images/world.rs"]
mod world;
