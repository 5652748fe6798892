//! `containerd:` read straight from containerd's directory.
