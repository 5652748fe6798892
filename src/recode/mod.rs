//! Changing the coding of a layer as it passes, deterministically.
