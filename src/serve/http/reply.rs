//! Helpers of the handlers: responses, and work on blocking threads.

use super::errors::{Code, Refusal};
use super::response::Answer;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

pub type Answered = Result<Response<Answer>, Refusal>;

/// The error for a panic on a worker thread.
pub fn lost() -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown, "internal error: the request's worker failed")
}

/// Runs `work` on a blocking thread.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|_| lost())
}

/// A response with a short text.
pub fn text(media_type: &'static str, text: impl Into<hyper::body::Bytes>) -> Response<Answer> {
    let mut response = Response::new(Answer::text(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// A response without a body.
pub fn bare(status: StatusCode) -> Response<Answer> {
    let mut response = Response::new(Answer::nothing());
    *response.status_mut() = status;
    response
}

/// Adds a header whose value may come from outside; a value that is invalid in a header is omitted.
pub fn add(response: &mut Response<Answer>, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
}
