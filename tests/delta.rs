//! Another host is sent only what it lacks: over a real sshd into real engines, with every byte on the line counted.

#[path = "support/noise.rs"]
mod bytes;
#[path = "support/engines.rs"]
mod engines;
#[path = "delta/line.rs"]
mod line;
#[path = "support/memory.rs"]
mod memory;
#[path = "support/program.rs"]
mod program;
#[path = "support/sshd.rs"]
mod sshd;
#[path = "delta/trouble.rs"]
mod trouble;
#[path = "delta/versions.rs"]
mod versions;
#[path = "delta/ways.rs"]
mod ways;
#[path = "delta/world.rs"]
mod world;
