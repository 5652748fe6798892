//! What a registry or its token service can be shown.

use crate::transport::registry::options::Secret;

/// What a registry or its token service can be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    Password {
        user: String,
        password: Secret,
    },
    /// An identity (refresh) token: exchanged for tokens, never shown to the registry itself.
    Identity(Secret),
    /// A token to be shown as it is.
    Token(Secret),
}
