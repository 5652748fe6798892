//! Archives of images: every shape that tools write is read, from a file and from a stream; what is hostile, cut or
//! at odds with itself is refused; what is written is the same for the same images and loads nowhere when cut.

#[path = "archive/hostile.rs"]
mod hostile;
#[path = "archive/make.rs"]
mod make;
#[path = "support/memory.rs"]
mod memory;
#[path = "archive/read.rs"]
mod read;
#[path = "archive/relay.rs"]
mod relay;
#[path = "archive/resume.rs"]
mod resume;
#[path = "archive/retag.rs"]
mod retag;
#[path = "archive/write.rs"]
mod write;
