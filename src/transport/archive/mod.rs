//! `docker-archive:`, `oci-archive:`, `-` and archive paths.
