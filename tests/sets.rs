//! Documents that list images: every format, limits, hostile documents, credentials and templates.

#[path = "sets/credentials.rs"]
mod credentials;
#[path = "sets/documents.rs"]
mod documents;
#[path = "sets/hostile.rs"]
mod hostile;
#[path = "sets/large.rs"]
mod large;
#[path = "sets/properties.rs"]
mod properties;
#[path = "sets/shown.rs"]
mod shown;
