//! Several destinations at once: what they share of the source, and that none of them is harmed by another.

#[path = "support/memory.rs"]
mod memory;
#[path = "support/mod.rs"]
mod support;

#[path = "fan/program.rs"]
mod program;
#[path = "fan/real.rs"]
mod real;
#[path = "fan/sharing.rs"]
mod sharing;
#[path = "fan/tape.rs"]
mod tape;
