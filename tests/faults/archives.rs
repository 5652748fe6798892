//! Archives and layouts as other tools write them, and the names in them.

#[path = "archives/compressed.rs"]
mod compressed;
#[path = "archives/layouts.rs"]
mod layouts;
#[path = "archives/make.rs"]
mod make;
#[path = "archives/messages.rs"]
mod messages;
#[path = "archives/names.rs"]
mod names;
#[path = "archives/tags.rs"]
mod tags;
