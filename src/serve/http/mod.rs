//! Connections, requests and responses.

pub(super) mod buffers;
pub(super) mod connection;
pub(super) mod errors;
pub(super) mod minimum_rate;
pub(super) mod reply;
pub(super) mod request;
pub(super) mod request_body;
pub(super) mod response;
pub(super) mod route;
pub(super) mod router;
pub(super) mod tls;
