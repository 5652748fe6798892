//! Compresses a complete archive while it is written, in independent blocks of a fixed size and on every core. The bytes
//! do not depend on the number of cores (see [`crate::compress`]).

use crate::compress;
use crate::error::{Error, Result};
use crate::image::Coding;
use std::{
    fs::File,
    io::{self, Read, Write},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, JoinHandle},
};

/// The maximum number of writes that wait for the compressor, each of at most the copy's buffer (1 MiB).
const MAX_WAITING: usize = 4;

/// A compressed archive file. It is complete only after [`Compressed::finish`].
#[derive(Debug)]
pub struct Compressed {
    pieces: Option<SyncSender<TarPiece>>,
    worker: Option<JoinHandle<Result<File>>>,
}

#[derive(Debug)]
enum TarPiece {
    Bytes(Vec<u8>),
    End,
}

impl Compressed {
    /// Compresses into `file` with `threads` threads. `label` is its name in messages. `level` is one of
    /// [`compress::levels`]; `None` means the default.
    ///
    /// Fails with `Usage` if `coding` does not have that level.
    pub fn new(mut file: File, label: &str, coding: Coding, level: Option<i32>, threads: usize) -> Result<Compressed> {
        compress::check_level(coding, level)?;
        let (pieces, next_piece) = sync_channel(MAX_WAITING);
        let label = label.to_owned();
        let work = move || {
            let mut pieces = PieceReader { next_piece, piece: Vec::new(), at: 0 };
            let mut write = |bytes: &[u8]| file.write_all(bytes).map_err(|e| Error::writing(&label, e));
            compress::compress(&mut pieces, coding, level, threads, &mut write).map(|()| file)
        };
        let worker = thread::Builder::new().name("compressor".into()).spawn(work)?;
        Ok(Compressed { pieces: Some(pieces), worker: Some(worker) })
    }

    /// Writes the end of the archive and returns the file, not yet synced.
    pub fn finish(mut self) -> Result<File> {
        self.send(TarPiece::End)?;
        self.join()
    }

    fn send(&mut self, piece: TarPiece) -> Result<()> {
        let sent = self.pieces.as_ref().is_some_and(|pieces| pieces.send(piece).is_ok());
        if sent { Ok(()) } else { self.join().and(Err(ended())) }
    }

    /// Closes the channel and returns the worker's result.
    fn join(&mut self) -> Result<File> {
        self.pieces = None;
        let worker = self.worker.take().ok_or_else(ended)?;
        worker.join().map_err(|_| Error::failed("the compression thread panicked"))?
    }
}

fn ended() -> Error {
    Error::failed("the compressed archive has already ended")
}

impl Write for Compressed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(TarPiece::Bytes(bytes.to_vec()))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Compressed {
    /// Without [`Compressed::finish`] the file has no end, so a reader detects that it is truncated.
    fn drop(&mut self) {
        if self.worker.is_some() {
            let _ = self.join();
        }
    }
}

/// Reads the written bytes. It fails if the writer is dropped before the end.
struct PieceReader {
    next_piece: Receiver<TarPiece>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match self.next_piece.recv() {
                Ok(TarPiece::Bytes(bytes)) => (self.piece, self.at) = (bytes, 0),
                Ok(TarPiece::End) => return Ok(0),
                Err(_) => return Err(Error::failed("the archive was aborted").into()),
            }
        }
        let n = (&self.piece[self.at..]).read(buffer)?;
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tarball::ArchiveCompression;
    use std::io::{Seek, SeekFrom};

    fn compressed(bytes: &[u8], coding: Coding, threads: usize, piece: usize) -> Vec<u8> {
        let file = tempfile::tempfile().unwrap();
        let mut out = Compressed::new(file, "out", coding, None, threads).unwrap();
        bytes.chunks(piece).for_each(|piece| out.write_all(piece).unwrap());
        let mut file = out.finish().unwrap();
        let mut all = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut all).unwrap();
        all
    }

    #[test]
    fn the_bytes_do_not_depend_on_threads_or_pieces() {
        let bytes: Vec<u8> = (0..1_200_000u32).flat_map(|n| (n / 3).to_le_bytes()).collect();
        for (coding, compression) in
            [(Coding::Gzip, ArchiveCompression::Gzip), (Coding::Zstd, ArchiveCompression::Zstd)]
        {
            let once = compressed(&bytes, coding, 1, 1 << 20);
            assert!(compressed(&bytes, coding, 5, 70_001) == once, "{coding:?}");
            let mut back = Vec::new();
            compression.decompress(Box::new(io::Cursor::new(once))).unwrap().read_to_end(&mut back).unwrap();
            assert!(back == bytes, "{coding:?}");
        }
    }

    #[test]
    fn what_is_dropped_has_no_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut out = Compressed::new(file.reopen().unwrap(), "out", Coding::Zstd, None, 2).unwrap();
        out.write_all(&vec![7; 3_000_000]).unwrap();
        drop(out);
        let mut back = Vec::new();
        let bytes =
            ArchiveCompression::Zstd.decompress(Box::new(file.reopen().unwrap())).unwrap().read_to_end(&mut back);
        assert!(bytes.is_err() || back.len() < 3_000_000);
    }

    #[test]
    fn a_disk_that_is_full_and_a_level_that_there_is_not_are_told() {
        assert!(Compressed::new(tempfile::tempfile().unwrap(), "out", Coding::Gzip, Some(19), 1).is_err());
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut out = Compressed::new(full, "out.tar.gz", Coding::Gzip, None, 2).unwrap();
        let bytes: Vec<u8> = (0..4_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let written = bytes.chunks(100_000).try_for_each(|piece| out.write_all(piece)).map_err(Error::from);
        let error = written.and_then(|()| out.finish().map(drop)).unwrap_err();
        assert!(error.to_string().contains("cannot write out.tar.gz"), "{error}");
        assert_eq!(error.kind(), crate::Kind::Unwritable);
    }
}
