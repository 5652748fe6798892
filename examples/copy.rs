//! Copies images between two addresses of the command line with the library.
//!
//!     cargo run --example copy -- fixtures/hello-docker20.tar oci:/tmp/hello:1

use imgmv::{Cancel, Error, Options, Result, Silent, copy, open_sink, open_source};
use std::sync::Arc;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(src), Some(dst)) = (arguments.next(), arguments.next()) else {
        return Err(Error::usage("usage: copy SRC DST"));
    };
    let (watch, cancel) = (Arc::new(Silent), Cancel::default());
    let (source, options) = open_source(&src, watch.clone(), &cancel)?;
    let (sink, naming) = open_sink(&dst, watch, &cancel)?;
    let report = copy(source, &*sink, &Options { naming, ..options }, None, &Silent, &cancel)?;
    for image in report.images {
        println!("{}", image.digest);
    }
    Ok(())
}
