//! Copies that were cut, and those that take up what they left.

use super::*;

/// A store whose blobs end after so many bytes, and which notes from where each was asked for.
struct Cut {
    memory: Memory,
    after: u64,
    asked: Mutex<Vec<(Digest, u64)>>,
}

impl Cut {
    fn new(memory: &Memory, after: u64) -> Arc<Cut> {
        Arc::new(Cut { memory: memory.clone(), after, asked: Mutex::default() })
    }

    fn asked_from(&self, digest: &Digest) -> Option<u64> {
        self.asked.lock().unwrap().iter().find(|(asked, _)| asked == digest).map(|(_, from)| *from)
    }
}

impl Wrapper for Cut {
    fn wrapped(&self) -> &dyn Store {
        &self.memory
    }
    fn open_blob(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        self.asked.lock().unwrap().push((blob.digest, from));
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(Error::network("the connection was cut").into())
            }
        }
        let whole = self.memory.open(blob, from)?;
        match blob.size > self.after {
            true => Ok(Box::new(whole.take(self.after.saturating_sub(from)).chain(Broken))),
            false => Ok(whole),
        }
    }
}

fn big() -> Memory {
    let mut memory = Memory::default();
    let root = memory.image("linux/amd64", &[layer(5, 9_000_000)]);
    memory.name("app:1", &root);
    memory
}

fn partial(dir: &Dir) -> PathBuf {
    let name = dir.top().into_iter().find(|name| name.ends_with(".part")).unwrap();
    dir.layout().join(name)
}

#[test]
fn a_copy_that_was_cut_goes_on_where_it_was() {
    let (dir, memory) = (Dir::new(), big());
    let blob = large(&memory).digest;
    for (after, from) in [(1_000_000, 0), (4_000_001, 1_000_000), (u64::MAX, 4_000_001)] {
        let store = Cut::new(&memory, after);
        let done = put(store.clone(), &dir.sink(BlobCheck::Size));
        assert_eq!(store.asked_from(&blob), Some(from));
        assert_eq!(done.is_ok(), after == u64::MAX);
        assert_eq!(dir.blob(&blob).exists(), after == u64::MAX);
    }
    assert!(fs::read(dir.blob(&blob)).unwrap() == memory.blobs[&blob]);
    assert_eq!(dir.top(), WHOLE);
}

#[test]
fn a_damaged_partial_is_cut_back_and_that_is_said() {
    let (dir, memory) = (Dir::new(), big());
    let blob = large(&memory).digest;
    put(Cut::new(&memory, 6_000_000), &dir.sink(BlobCheck::Size)).unwrap_err();
    let mut bytes = fs::read(partial(&dir)).unwrap();
    bytes[3_500_000] ^= 1;
    fs::write(partial(&dir), bytes).unwrap();
    let (store, heard) = (Cut::new(&memory, u64::MAX), Arc::new(Heard::default()));
    put(store.clone(), &LayoutSink::open(&dir.layout(), BlobCheck::Size, heard.clone()).unwrap()).unwrap();
    let from = store.asked_from(&blob).unwrap();
    assert!((2_000_000..=3_500_000).contains(&from), "{from}");
    assert!(heard.0.lock().unwrap()[0].contains("is damaged"));
    assert!(fs::read(dir.blob(&blob)).unwrap() == memory.blobs[&blob]);
}

#[test]
fn a_partial_with_wrong_bytes_fails_once_and_no_more() {
    let (dir, memory) = (Dir::new(), big());
    let blob = large(&memory).digest;
    let mut lying = memory.clone();
    lying.blobs.get_mut(&blob).unwrap()[10] ^= 1;
    put(Cut::new(&lying, 6_000_000), &dir.sink(BlobCheck::Size)).unwrap_err();
    assert_eq!(dir.take(&memory).unwrap_err().kind(), Kind::Invalid);
    dir.take(&memory).unwrap();
    assert!(fs::read(dir.blob(&blob)).unwrap() == memory.blobs[&blob]);
}

#[test]
fn a_partial_that_is_whole_becomes_the_blob_without_a_read() {
    let (dir, memory) = (Dir::new(), big());
    let blob = large(&memory);
    put(Cut::new(&memory, blob.size - 1), &dir.sink(BlobCheck::Size)).unwrap_err();
    // As if killed between the last write and the rename.
    let (part, bytes) = (partial(&dir), &memory.blobs[&blob.digest]);
    let sums = part.with_extension("sums");
    let mut records = fs::read(&sums).unwrap();
    let end = u64::from_le_bytes(records[records.len() - 12..][..8].try_into().unwrap());
    let mut crc = flate2::Crc::new();
    crc.update(&bytes[end as usize..]);
    records.extend_from_slice(&blob.size.to_le_bytes());
    records.extend_from_slice(&crc.sum().to_le_bytes());
    fs::write(&part, bytes).unwrap();
    fs::write(&sums, records).unwrap();
    let store = Cut::new(&memory, u64::MAX);
    put(store.clone(), &dir.sink(BlobCheck::Size)).unwrap();
    assert_eq!(store.asked_from(&blob.digest), None);
    assert_eq!(dir.top(), WHOLE);
}

#[test]
fn a_stream_takes_up_a_partial_too() {
    let (dir, memory) = (Dir::new(), big());
    put(Cut::new(&memory, 6_000_000), &dir.sink(BlobCheck::Size)).unwrap_err();
    let heard = Arc::new(Heard::default());
    let sink = LayoutSink::open(&dir.layout(), BlobCheck::Size, heard.clone()).unwrap();
    copy(memory.streamed(), &sink, &Options::default(), None, &Silent, &Cancel::default()).unwrap();
    assert!(heard.0.lock().unwrap()[0].starts_with("resuming blob"));
    assert!(fs::read(dir.blob(&large(&memory).digest)).unwrap() == memory.blobs[&large(&memory).digest]);
    assert_eq!(dir.top(), WHOLE);
}

#[test]
fn two_that_write_the_same_blob_do_not_meet() {
    let (dir, memory) = (Dir::new(), big());
    let (sink, other) = (dir.sink(BlobCheck::Size), dir.sink(BlobCheck::Size));
    let claim = Claim::from(&large(&memory));
    let Begin::Write(mut first) = sink.begin(&claim, None).unwrap() else { panic!("it is not there") };
    first.start(Hasher::default()).unwrap();
    first.write(&memory.blobs[&large(&memory).digest][..3_000_000]).unwrap();
    put(Arc::new(memory.clone()), &other).unwrap();
    first.write(b"something else").unwrap();
    drop(first);
    assert!(fs::read(dir.blob(&large(&memory).digest)).unwrap() == memory.blobs[&large(&memory).digest]);
    sink.finish().unwrap();
    assert_eq!(dir.top(), WHOLE);
}

#[test]
fn a_partial_that_is_a_link_is_not_written_through() {
    let (dir, memory) = (Dir::new(), big());
    put(Cut::new(&memory, 6_000_000), &dir.sink(BlobCheck::Size)).unwrap_err();
    let victim = dir.at("victim");
    fs::write(&victim, b"precious").unwrap();
    for name in [partial(&dir), partial(&dir).with_extension("sums")] {
        fs::remove_file(&name).unwrap();
        symlink(&victim, &name).unwrap();
    }
    symlink(&victim, dir.layout().join(".imgmv-lock")).unwrap();
    assert_eq!(dir.take(&memory).unwrap_err().kind(), Kind::Invalid);
    fs::remove_file(dir.layout().join(".imgmv-lock")).unwrap();
    dir.take(&memory).unwrap();
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
}

/// The process of `what_a_killed_process_wrote_is_not_asked_for_again`: its source gives so many bytes, then nothing.
#[test]
#[ignore = "run by what_a_killed_process_wrote_is_not_asked_for_again"]
fn stuck() {
    let Ok(layout) = std::env::var("TEST_LAYOUT") else { return };
    struct Stuck(Memory);
    impl Wrapper for Stuck {
        fn wrapped(&self) -> &dyn Store {
            &self.0
        }
        fn open_blob(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
            struct Nothing;
            impl Read for Nothing {
                fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                    // Until the parent kills this process or is gone.
                    std::io::stdin().read(&mut [0])
                }
            }
            Ok(Box::new(self.0.open(blob, from)?.take(GIVEN - from).chain(Nothing)))
        }
    }
    let sink = LayoutSink::open(Path::new(&layout), BlobCheck::Size, Arc::new(Silent)).unwrap();
    let _ = put(Arc::new(Stuck(big())), &sink);
}

const GIVEN: u64 = 5_000_000;
/// The engine's buffer, in bytes: what is in it is not written yet.
const BUFFER: u64 = 256 << 10;

#[test]
fn what_a_killed_process_wrote_is_not_asked_for_again() {
    let (dir, memory) = (Dir::new(), big());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "resume::stuck"]).env("TEST_LAYOUT", dir.layout());
    let mut child = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
    let written = || {
        let parts = dir.top().into_iter().filter(|name| name.ends_with(".part"));
        parts.filter_map(|name| fs::metadata(dir.layout().join(name)).ok()).map(|part| part.len()).max().unwrap_or(0)
    };
    for _ in 0..6000 {
        if written() > GIVEN - BUFFER {
            break;
        }
        thread::sleep(std::time::Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let there = written();
    let store = Cut::new(&memory, u64::MAX);
    put(store.clone(), &dir.sink(BlobCheck::Size)).unwrap();
    let from = store.asked_from(&large(&memory).digest).unwrap();
    // The last write's sum may not have been written down any more.
    assert!(there >= GIVEN - BUFFER && from + BUFFER >= there, "{there} bytes were there, went on from {from}");
    assert!(fs::read(dir.blob(&large(&memory).digest)).unwrap() == memory.blobs[&large(&memory).digest]);
    assert_eq!(dir.top(), WHOLE);
}
