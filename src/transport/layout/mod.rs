//! `oci:DIR`: an OCI layout directory (image-layout.md), read and written.
