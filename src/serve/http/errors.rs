//! What a registry answers when it does not do what was asked: a status and the specification's JSON
//! (distribution-spec, "Error Codes").

use crate::error::{Error, Kind};
use hyper::StatusCode;
use serde_json::json;

/// The specification's words, each of which a client may act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
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
    /// Not the specification's: nothing of the above.
    Unknown,
}

impl Code {
    pub fn word(self) -> &'static str {
        match self {
            Code::BlobUnknown => "BLOB_UNKNOWN",
            Code::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Code::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Code::DigestInvalid => "DIGEST_INVALID",
            Code::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Code::ManifestInvalid => "MANIFEST_INVALID",
            Code::ManifestUnknown => "MANIFEST_UNKNOWN",
            Code::NameInvalid => "NAME_INVALID",
            Code::NameUnknown => "NAME_UNKNOWN",
            Code::SizeInvalid => "SIZE_INVALID",
            Code::Unauthorized => "UNAUTHORIZED",
            Code::Denied => "DENIED",
            Code::Unsupported => "UNSUPPORTED",
            Code::TooManyRequests => "TOOMANYREQUESTS",
            Code::Unknown => "UNKNOWN",
        }
    }
}

/// A request that is refused or has failed.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub status: StatusCode,
    pub code: Code,
    pub message: String,
    /// Headers that belong to it, as `Range` to an upload that stands elsewhere.
    pub headers: Vec<(&'static str, String)>,
}

impl Refusal {
    pub fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Refusal {
        Refusal { status, code, message: message.into(), headers: Vec::new() }
    }

    pub fn not_found(code: Code, message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, code, message)
    }

    pub fn bad(code: Code, message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// The method is none for this path; `allowed` are those that are.
    pub fn method(allowed: &str) -> Refusal {
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, format!("only {allowed} here"))
            .with("allow", allowed.to_owned())
    }

    pub fn with(mut self, header: &'static str, value: String) -> Refusal {
        self.headers.push((header, value));
        self
    }

    /// The body, as the specification has it.
    pub fn json(&self) -> String {
        json!({ "errors": [{ "code": self.code.word(), "message": self.message, "detail": null }] }).to_string()
    }
}

/// What failed below, as far as a client has to act differently.
impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        let (status, code) = match error.kind() {
            Kind::NotFound => (StatusCode::NOT_FOUND, Code::Unknown),
            Kind::Denied => (StatusCode::FORBIDDEN, Code::Denied),
            Kind::Network | Kind::RemoteHost => (StatusCode::BAD_GATEWAY, Code::Unknown),
            Kind::Unwritable => (StatusCode::INSUFFICIENT_STORAGE, Code::Unknown),
            Kind::Interrupted => (StatusCode::SERVICE_UNAVAILABLE, Code::Unknown),
            Kind::Failed | Kind::Usage | Kind::Invalid | Kind::Partial => {
                (StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown)
            }
        };
        Refusal::new(status, code, error.to_string())
    }
}
