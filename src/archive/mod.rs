//! The tar forms of images (docker-save, OCI layout in a tar), read and written; no endpoints here.
