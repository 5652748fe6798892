//! Commands on this host or another one: the user's ssh client, or ssh2 built in.
