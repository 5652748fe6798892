//! The head of a request.

use super::route::UrlQuery;
use crate::serve::backend::catalog::{RepositoryRequest, Search};
use hyper::Method;
use hyper::header::HeaderMap;

/// The header that marks a request from a peer.
pub const PEER: &str = "imgmv-peer";

/// The parsed head of a request.
#[derive(Debug, Clone)]
pub struct RequestHead {
    pub method: Method,
    pub query: UrlQuery,
    pub headers: HeaderMap,
    /// The buffer size of the connection, in bytes.
    pub buffer_bytes: usize,
    /// The authenticated user.
    pub user: Option<String>,
}

impl RequestHead {
    /// A header's value, if it is text.
    pub fn header(&self, name: impl hyper::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The request for the repository `name` of the registry in `?ns=`.
    pub fn repository(&self, name: &str) -> RepositoryRequest {
        let ns = self.query.value("ns").filter(|ns| !ns.is_empty()).map(str::to_owned);
        let search = if self.headers.contains_key(PEER) { Search::Local } else { Search::Everywhere };
        RepositoryRequest { name: name.to_owned(), ns, user: self.user.clone(), search }
    }

    pub fn is_read(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }
}
