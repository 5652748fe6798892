//! Helpers of the handlers: responses, and work on blocking threads.

use super::errors::{ApiError, ErrorCode};
use super::response::ResponseBody;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

pub type HandlerResult = Result<Response<ResponseBody>, ApiError>;

/// The error for a panic on a worker thread.
pub fn panicked() -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown, "internal error: the request's worker failed")
}

/// Runs `work` on a blocking thread.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| panicked())
}

/// A response with a short text.
pub fn text(media_type: &'static str, text: impl Into<hyper::body::Bytes>) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::text(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// A response without a body.
pub fn empty(status: StatusCode) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = status;
    response
}

/// Adds a header whose value may come from outside; a value that is invalid in a header is omitted.
pub fn add_header(response: &mut Response<ResponseBody>, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
}
