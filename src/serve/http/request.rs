//! What a request says in its head.

use super::route::Query;
use crate::serve::backend::catalog::{Search, Wanted};
use hyper::Method;
use hyper::header::HeaderMap;

/// Shown by a server that looks for something at its peers.
pub const PEER: &str = "imgmv-peer";

/// What a request says in its head.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: Method,
    pub query: Query,
    pub headers: HeaderMap,
    /// Bytes that this connection may have in a buffer.
    pub share: usize,
    /// Who asks, where somebody showed a password that is right.
    pub user: Option<String>,
}

impl Asked {
    /// A header's value, where it is text.
    pub fn header(&self, name: impl hyper::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The repository called `name`, for the registry in `?ns=`.
    pub fn wanted(&self, name: &str) -> Wanted {
        let ns = self.query.value("ns").filter(|ns| !ns.is_empty()).map(str::to_owned);
        let search = if self.headers.contains_key(PEER) { Search::Here } else { Search::Anywhere };
        Wanted { name: name.to_owned(), ns, user: self.user.clone(), search }
    }

    pub fn reads(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }
}
