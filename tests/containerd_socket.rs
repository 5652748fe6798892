//! containerd by its socket: real daemons of both releases, kills at chosen bytes, and a peer that lies.

#[path = "support/mod.rs"]
mod support;

#[path = "containerd_socket/daemon.rs"]
mod daemon;
#[path = "containerd_socket/delta.rs"]
mod delta;
#[path = "containerd_socket/hostile.rs"]
mod hostile;
#[path = "containerd_socket/killed.rs"]
mod killed;
#[path = "containerd_socket/line.rs"]
mod line;
#[path = "support/memory.rs"]
mod memory;
#[path = "containerd_socket/real.rs"]
mod real;
#[path = "containerd_socket/serve.rs"]
mod serve;
#[path = "containerd_socket/ssh.rs"]
mod ssh;
