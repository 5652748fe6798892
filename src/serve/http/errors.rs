//! Error responses: a status and the JSON of the specification (distribution-spec, "Error Codes").

use crate::error::{Error, Kind};
use hyper::StatusCode;
use serde_json::json;

/// The error codes of the specification; clients may act on each one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    TooManyRequests,
    /// Any other error; not in the specification.
    Unknown,
}

impl ErrorCode {
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorCode::BlobUnknown => "BLOB_UNKNOWN",
            ErrorCode::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            ErrorCode::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            ErrorCode::DigestInvalid => "DIGEST_INVALID",
            ErrorCode::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            ErrorCode::ManifestInvalid => "MANIFEST_INVALID",
            ErrorCode::ManifestUnknown => "MANIFEST_UNKNOWN",
            ErrorCode::NameInvalid => "NAME_INVALID",
            ErrorCode::NameUnknown => "NAME_UNKNOWN",
            ErrorCode::SizeInvalid => "SIZE_INVALID",
            ErrorCode::Unauthorized => "UNAUTHORIZED",
            ErrorCode::Denied => "DENIED",
            ErrorCode::Unsupported => "UNSUPPORTED",
            ErrorCode::TooManyRequests => "TOOMANYREQUESTS",
            ErrorCode::Unknown => "UNKNOWN",
        }
    }
}

/// An error response.
#[derive(Debug, Clone)]
pub struct ApiError {
    pub status: StatusCode,
    pub code: ErrorCode,
    pub message: String,
    /// Additional headers, for example the `Range` of an upload.
    pub headers: Vec<(&'static str, String)>,
}

impl ApiError {
    pub fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> ApiError {
        ApiError { status, code, message: message.into(), headers: Vec::new() }
    }

    pub fn not_found(code: ErrorCode, message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, code, message)
    }

    pub fn bad_request(code: ErrorCode, message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// The error for a method that this path does not support; `allowed` lists the supported ones.
    pub fn method_not_allowed(allowed: &str) -> ApiError {
        ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            ErrorCode::Unsupported,
            format!("method not allowed; use {allowed}"),
        )
        .with_header("allow", allowed.to_owned())
    }

    pub fn with_header(mut self, header: &'static str, value: String) -> ApiError {
        self.headers.push((header, value));
        self
    }

    /// The JSON body in the form of the specification.
    pub fn json(&self) -> String {
        json!({ "errors": [{ "code": self.code.as_str(), "message": self.message, "detail": null }] }).to_string()
    }
}

/// Maps an error to the status on which a client acts.
impl From<Error> for ApiError {
    fn from(error: Error) -> ApiError {
        let (status, code) = match error.kind() {
            Kind::NotFound => (StatusCode::NOT_FOUND, ErrorCode::Unknown),
            Kind::Denied => (StatusCode::FORBIDDEN, ErrorCode::Denied),
            Kind::Network | Kind::RemoteHost => (StatusCode::BAD_GATEWAY, ErrorCode::Unknown),
            Kind::Unwritable => (StatusCode::INSUFFICIENT_STORAGE, ErrorCode::Unknown),
            Kind::Interrupted => (StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unknown),
            Kind::Failed | Kind::Usage | Kind::Invalid | Kind::Partial => {
                (StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown)
            }
        };
        ApiError::new(status, code, error.to_string())
    }
}
