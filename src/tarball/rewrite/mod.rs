//! Archives copied in their own form, with other names.

pub(super) mod relay;
pub(super) mod retag;
