//! Copies the images of an uncompressed archive (`docker save`, or an OCI layout in a tar) into an OCI layout with the library.
//!
//!     cargo run --example copy -- ARCHIVE DIR

use imgmv::cancel::Cancel;
use imgmv::copy::Source;
use imgmv::copy::{Options, copy};
use imgmv::progress::Silent;
use imgmv::tarball::{ArchiveStore, Section};
use imgmv::transport::layout::{LayoutSink, Verify};
use imgmv::{Error, Result};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let (Some(archive), Some(dir)) = (words.next(), words.next()) else {
        return Err(Error::usage("copy ARCHIVE DIR"));
    };
    let bytes = File::open(&archive).and_then(|file| Section::new(file, 0));
    let bytes = bytes.map_err(|error| Error::reading(&archive, error))?;
    let store = ArchiveStore::open(bytes, &archive, Arc::new(Silent))?;
    let sink = LayoutSink::open(Path::new(&dir), Verify::default(), Arc::new(Silent))?;
    let report = copy(Source::Store(Arc::new(store)), &sink, &Options::default(), None, &Silent, &Cancel::default())?;
    for image in report.images {
        println!("{}", image.digest);
    }
    Ok(())
}
