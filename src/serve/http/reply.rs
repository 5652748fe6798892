//! What handlers answer with, and the threads on which they ask.

use super::errors::{Code, Refusal};
use super::response::Answer;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

pub type Answered = Result<Response<Answer>, Refusal>;

/// A thread has panicked.
pub fn lost() -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown, "the request was lost")
}

/// Runs `work` on a thread that may block.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|_| lost())
}

/// A short answer.
pub fn text(media_type: &'static str, text: impl Into<hyper::body::Bytes>) -> Response<Answer> {
    let mut response = Response::new(Answer::text(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// An answer without a body.
pub fn bare(status: StatusCode) -> Response<Answer> {
    let mut response = Response::new(Answer::nothing());
    *response.status_mut() = status;
    response
}

/// Adds a header whose value may be a stranger's; one that cannot stand in a header is left out.
pub fn add(response: &mut Response<Answer>, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
}
