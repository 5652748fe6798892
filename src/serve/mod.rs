//! `imgmv serve`: a registry (OCI distribution-spec v1.1) in front of stores that stay where they are.
//!
//! The map: [`catalog`] says what a server has, in two traits; `shelf` (local stores, with `live` and `names`) and
//! `upstream` (another registry) implement them. [`listen`] accepts connections, `gate` and [`rights`] let requests
//! pass, `paths` reads what is asked for, `answer` hands it to `read` and `lists`, and to `push` and `put` where there
//! is a `target`; `sessions` are uploads under way; `body` sends blobs, `inflow` takes them in, `errors` says no.
//! [`journal`] is told of every request. Everything asynchronous is in this folder; stores are called from threads that
//! may block.
//!
//! The mirror: `proxy` is a shelf of `mirrored` repositories, over `upstreams` (with `once`), `peers` and a `cache`; `fill` brings a blob into it
//! while clients read (`pool`: by how many threads), `evict` makes room, `checked` hashes what is not kept, [`mirror`] is
//! what clients are told.

pub mod access;
pub mod access_log;
pub mod backend;
mod handlers;
mod http;
pub mod mirror;
pub mod server;

pub use access::browser_guard::BrowserGuard;
pub use access::users::Rights;
pub use backend::local::LocalBackend;
pub use backend::upstream::{UpstreamBackend, pumped};
pub use backend::writable::Target;
pub use http::tls::Certificate;
pub use mirror::cache::{Cache, Pools};
pub use mirror::evict::Budget;
pub use mirror::peers::Peers;
pub use mirror::upstreams::{Endpoint, Upstream};
pub use mirror::{Beside, Caches, MirrorBackend, Share};
pub use server::{Limits, Listening, Options};
