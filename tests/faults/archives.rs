//! Archives and layouts as other tools write them, and the names in them.
