//! Registries that answer reads wrongly, oddly or too late.
