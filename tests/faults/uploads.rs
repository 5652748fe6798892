//! Registries and proxies that refuse, limit or forget uploads.
