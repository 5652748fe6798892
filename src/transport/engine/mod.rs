//! Engines, here or on another host: nerdctl, docker, ctr, podman.
