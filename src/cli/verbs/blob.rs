//! `imgmv blob`: one blob, hashed while it is written.

use crate::cli::address::Place;
use crate::cli::address::help::PLACES;
use crate::cli::context::Run;
use crate::cli::open;
use crate::cli::open::{NetworkOptions, Opened};
use crate::image::{Digest, Hasher};
use crate::source::Store;
use crate::tarball::ArchiveStream;
use crate::{Error, Result};
use clap::Args;
use std::ffi::OsString;
use std::io::Read;

const BUFFER: usize = 256 << 10;

/// Write one blob to standard output, checked
///
/// The bytes are hashed while they are written; where they turn out to be others than DIGEST says, the exit status is
/// 5 and what was written has to be thrown away.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{PLACES}"))]
pub struct Blob {
    /// Where the blob is
    #[arg(value_name = "SRC")]
    src: OsString,
    /// The blob, as sha256:…; imgmv inspect shows them
    #[arg(value_name = "DIGEST")]
    digest: Digest,
    #[command(flatten)]
    from: open::SourceOptions,
    #[command(flatten)]
    reach: NetworkOptions,
}

const EXAMPLES: &str = "\
Examples:
  imgmv blob oci:./mirror sha256:4f4f… > layer.tar.gz
  imgmv blob app.tar sha256:54e2… | tar tz";

impl Blob {
    pub fn run(self, run: &Run) -> Result<()> {
        let Opened { source, .. } = open::source(&Place::parse(&self.src)?, &self.from, &self.reach, run)?;
        match source.into_store() {
            Ok(store) => self.of_store(&*store, run),
            Err(stream) => self.of_stream(*stream, run),
        }
    }

    fn of_store(&self, store: &dyn Store, run: &Run) -> Result<()> {
        match store.find(&self.digest)? {
            Some(blob) => self.write(&mut *store.open(&blob, 0)?, Some(blob.size).filter(|size| *size > 0), run),
            None => Err(self.absent()),
        }
    }

    fn of_stream(&self, mut stream: ArchiveStream, run: &Run) -> Result<()> {
        if !stream.digests_known()? {
            return Err(Error::usage(
                "this archive's blobs have no digests until it has passed; save it to a file first, unpacked",
            ));
        }
        while let Some(mut blob) = stream.next_blob()? {
            run.cancel.check()?;
            if blob.claim.digest == Some(self.digest) {
                return self.write(&mut *blob.bytes, blob.claim.size, run);
            }
        }
        match stream.finish()?.documents.get(&self.digest) {
            Some(bytes) => self.write(&mut &bytes[..], None, run),
            None => Err(self.absent()),
        }
    }

    fn absent(&self) -> Error {
        Error::not_found(format!("no blob {} there; imgmv inspect shows what there is", self.digest))
    }

    fn write(&self, from: &mut dyn Read, size: Option<u64>, run: &Run) -> Result<()> {
        run.screen.end();
        let mut hasher = Hasher::new(self.digest.algorithm());
        let (mut buffer, mut written) = (vec![0; BUFFER], 0);
        loop {
            run.cancel.check()?;
            let n = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::from(error)),
            };
            written += n as u64;
            if size.is_some_and(|size| written > size) {
                return Err(self.wrong("it goes on behind its end"));
            }
            hasher.update(&buffer[..n]);
            run.answer.bytes(&buffer[..n])?;
        }
        let found = hasher.finish();
        match found == self.digest {
            true => Ok(()),
            false => Err(self.wrong(&format!("got {found}"))),
        }
    }

    fn wrong(&self, why: &str) -> Error {
        Error::invalid(format!("blob {} does not match: {why}; throw away what was written", self.digest))
    }
}
