//! Garbage.
