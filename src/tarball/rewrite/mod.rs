//! Archives copied in their own form, with other names.

pub(super) mod retag;
pub(super) mod streamed;
