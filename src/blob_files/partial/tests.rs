use super::*;
use crate::blob_files::StoredBlobs;
use crate::progress::Silent;
use crate::transport::layout::LayoutDirectory;

#[test]
fn a_child_process_that_is_just_being_started_does_not_hold_a_partial() {
    let dir = tempfile::tempdir().unwrap();
    let (layout, cancel) = (LayoutDirectory::create(dir.path()).unwrap(), Cancel::default());
    let blob = (Digest::of(b"it"), 1_000_000);
    let open = || Partial::open_or_create(&layout, blob, &Silent, &cancel);
    let mut partial = open().unwrap();
    partial.start(Hasher::default()).unwrap();
    partial.write(&[1; 300_000]).unwrap();
    assert!(open().is_none());
    // As a fork does with open files.
    let _twin = partial.file.try_clone().unwrap();
    drop(partial);
    assert_eq!(open().unwrap().start(Hasher::default()).unwrap().0, 300_000);
}

/// A place where blobs cannot be renamed to.
struct Full(LayoutDirectory);

impl StoredBlobs for Full {
    fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        StoredBlobs::size(&self.0, digest)
    }
    fn blob(&self, digest: &Digest) -> Result<Option<File>> {
        StoredBlobs::blob(&self.0, digest)
    }
    fn describe(&self) -> String {
        StoredBlobs::describe(&self.0)
    }
}

impl BlobPlace for Full {
    fn unfinished(&self) -> Result<&Directory> {
        self.0.unfinished()
    }
    fn store(&self, _: &str, _: &Digest) -> Result<()> {
        Err(Error::unwritable("full"))
    }
}

#[test]
fn a_complete_file_stays_when_only_its_rename_fails() {
    let dir = tempfile::tempdir().unwrap();
    let (layout, cancel) = (LayoutDirectory::create(dir.path()).unwrap(), Cancel::default());
    let bytes: Vec<u8> = (0..700_000_u32).map(|n| (n * 31) as u8).collect();
    let blob = (Digest::of(&bytes), bytes.len() as u64);
    let full = Full(layout);
    let mut partial = Partial::open_or_create(&full, blob, &Silent, &cancel).unwrap();
    partial.start(Hasher::default()).unwrap();
    partial.write(&bytes).unwrap();
    partial.become_blob(&blob.0).unwrap_err();
    drop(partial);
    // The next run fails in the same way, and the one behind it finishes.
    let again = Partial::open_or_create(&full, blob, &Silent, &cancel).unwrap();
    assert_eq!(again.finish_if_complete().err().map(|error| error.kind()), Some(crate::Kind::Unwritable));
    let last = Partial::open_or_create(&full.0, blob, &Silent, &cancel).unwrap();
    assert!(last.finish_if_complete().unwrap().is_none());
    assert_eq!(StoredBlobs::size(&full.0, &blob.0).unwrap(), Some(blob.1));
}
