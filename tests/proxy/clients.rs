//! Real clients through the mirror, told of it as their users would tell them.
