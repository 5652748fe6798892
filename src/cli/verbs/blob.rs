//! `imgmv blob`: writes one blob to standard output and verifies it.

use crate::cli::address;
use crate::cli::address::help::PLACES;
use crate::cli::context::CliRun;
use crate::cli::open::{Opened, SourceAccess};
use crate::image::{Descriptor, Digest, Hasher};
use crate::source::{Selector, Store};
use crate::tarball::ArchiveStream;
use crate::{Error, Result};
use clap::Args;
use std::ffi::OsString;
use std::io::Read;

const BUFFER_BYTES: usize = 256 << 10;

/// Write one blob to standard output and verify it
///
/// imgmv hashes the bytes while it writes them. If they do not match DIGEST, the exit status is 5 and the output must
/// be discarded.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{PLACES}"))]
pub struct BlobVerb {
    /// Location of the blob
    #[arg(value_name = "SRC")]
    src: OsString,
    /// Digest of the blob, as sha256:…; imgmv inspect shows the digests
    #[arg(value_name = "DIGEST")]
    digest: Digest,
    #[command(flatten)]
    access: SourceAccess,
}

const EXAMPLES: &str = "\
Examples:
  imgmv blob oci:./mirror sha256:4f4f… > layer.tar.gz
  imgmv blob app.tar sha256:54e2… | tar tz";

impl BlobVerb {
    pub fn run(self, run: &CliRun) -> Result<()> {
        let Opened { source, selectors, .. } = self.access.source(&*address::parse(&self.src)?, run)?;
        match source.into_store() {
            Ok(store) => self.write_from_store(&*store, &selectors, run),
            Err(stream) => self.write_from_stream(*stream, run),
        }
    }

    fn write_from_store(&self, store: &dyn Store, selectors: &[Selector], run: &CliRun) -> Result<()> {
        let blob = match store.find(&self.digest)? {
            Some(blob) => blob,
            None => self.find_listed(store, selectors)?,
        };
        self.write(&mut *store.open(&blob, 0)?, Some(blob.size).filter(|size| *size > 0), run)
    }

    /// Finds the blob in a store that knows its blobs only after it returned their images.
    fn find_listed(&self, store: &dyn Store, selectors: &[Selector]) -> Result<Descriptor> {
        let images = store.roots(selectors);
        match store.find(&self.digest)? {
            Some(blob) => Ok(blob),
            // An image that cannot be read may have the blob.
            None => images.and_then(|_| Err(self.not_found())),
        }
    }

    fn write_from_stream(&self, mut stream: ArchiveStream, run: &CliRun) -> Result<()> {
        if !stream.digests_known()? {
            return Err(Error::usage(
                "SRC is streamed and has its digests at the end; save it to an uncompressed file first",
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
            None => Err(self.not_found()),
        }
    }

    fn not_found(&self) -> Error {
        Error::not_found(format!("blob {} was not found; imgmv inspect lists the blobs of SRC", self.digest))
    }

    fn write(&self, from: &mut dyn Read, size: Option<u64>, run: &CliRun) -> Result<()> {
        run.screen.clear();
        let mut hasher = Hasher::new(self.digest.algorithm());
        let (mut buffer, mut written) = (vec![0; BUFFER_BYTES], 0);
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
                return Err(self.mismatch(&format!("it has more than {} bytes", size.unwrap_or_default())));
            }
            hasher.update(&buffer[..n]);
            run.answer.bytes(&buffer[..n])?;
        }
        let found = hasher.finish();
        match found == self.digest {
            true => Ok(()),
            false => Err(self.mismatch(&format!("got {found}"))),
        }
    }

    fn mismatch(&self, why: &str) -> Error {
        Error::invalid(format!("blob {} does not match: {why}; discard the output", self.digest))
    }
}
