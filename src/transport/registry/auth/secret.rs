//! The secrets that a registry or its token service accepts.

use crate::transport::registry::options::Secret;

/// A secret for a registry or its token service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginSecret {
    Password {
        user: String,
        password: Secret,
    },
    /// An identity (refresh) token. It is exchanged for tokens and never sent to the registry itself.
    Identity(Secret),
    /// A token that is sent unchanged.
    Token(Secret),
}
