//! Which recoded layer belongs to which raw one, as far as it was made or checked here.
