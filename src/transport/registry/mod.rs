//! `docker://`: a registry (OCI distribution-spec v1.1, Docker Registry v2), read and pushed to.
