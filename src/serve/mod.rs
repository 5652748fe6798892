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

mod answer;
mod body;
mod buffers;
mod cache;
pub mod catalog;
mod checked;
mod connection;
mod documents;
mod errors;
mod evict;
mod fill;
mod floor;
mod gate;
mod inflow;
pub mod journal;
pub mod listen;
mod lists;
mod live;
mod metrics;
pub mod mirror;
mod mirrored;
pub mod names;
mod once;
mod page;
mod paths;
mod peers;
mod pool;
mod proxy;
mod push;
mod put;
mod read;
pub mod rights;
mod sessions;
mod shelf;
mod target;
mod tls;
mod tokens;
mod upstream;
mod upstreams;

pub use cache::{Cache, Pools};
pub use evict::Budget;
pub use gate::Gate;
pub use listen::{Limits, Listening, Options};
pub use peers::Peers;
pub use proxy::{Beside, Caches, ProxyShelf, Share};
pub use rights::Rights;
pub use shelf::StoreShelf;
pub use target::Target;
pub use tls::Certificate;
pub use upstream::{RegistryShelf, pumped};
pub use upstreams::{Endpoint, Upstream};
