//! Archives that a cut copy leaves, and what the next one makes of them.

use crate::make::run;
use crate::memory::{Memory, layer};
use imgmv::internals::archive::{ArchiveSink, ResumeOptions, prune};
use imgmv::internals::source::Wrapper;
use imgmv::{Descriptor, Digest, Event, Options, Result, Selector, Source, Store, Watch};
use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;

/// Two images that share a layer; the first has the larger ones.
fn images() -> Memory {
    let mut memory = Memory::default();
    let one = [layer(1, 700_000), layer(2, 1_500_000), layer(3, 40_000)];
    let one = memory.image("linux/amd64", &one);
    memory.name("docker.io/library/app:1", &one);
    let two = memory.image("linux/amd64", &[layer(4, 300_000), layer(2, 1_500_000)]);
    memory.name("docker.io/library/app:2", &two);
    memory
}

/// A store that gives so many bytes and then breaks off, and what was asked of it.
struct Line {
    memory: Memory,
    left: AtomicU64,
    opened: Mutex<Vec<(Digest, u64)>>,
    given: AtomicU64,
}

impl Line {
    fn new(memory: Memory, left: u64) -> Arc<Line> {
        Arc::new(Line { memory, left: AtomicU64::new(left), opened: Mutex::default(), given: AtomicU64::new(0) })
    }
}

impl Wrapper for Line {
    fn wrapped(&self) -> &dyn Store {
        &self.memory
    }
    fn open_blob(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        self.opened.lock().unwrap().push((blob.digest, from));
        Ok(Box::new(Cut(self, self.memory.open(blob, from)?)))
    }
}

struct Cut<'l>(&'l Line, Box<dyn Read + Send + 'l>);

impl Read for Cut<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.0.left.load(Ordering::Relaxed);
        if left == 0 {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let wanted = buffer.len().min(left as usize);
        let n = self.1.read(&mut buffer[..wanted])?;
        self.0.left.fetch_sub(n as u64, Ordering::Relaxed);
        self.0.given.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

struct Scene {
    folder: TempDir,
    path: PathBuf,
}

impl Scene {
    fn new() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.tar");
        Scene { folder, path }
    }

    /// Copies from a line that breaks after so many bytes.
    fn copy(&self, selectors: &[&str], left: u64) -> (Result<()>, Arc<Line>) {
        self.copy_to(ArchiveSink::to_file(&self.path).unwrap(), selectors, left)
    }

    fn copy_to(&self, sink: ArchiveSink, selectors: &[&str], left: u64) -> (Result<()>, Arc<Line>) {
        let line = Line::new(images(), left);
        let selectors = selectors.iter().map(|name| Selector::Name(name.to_string())).collect();
        let options = Options { selectors, ..Options::default() };
        (run(Source::Store(line.clone()), &sink, &options).map(|_| ()), line)
    }

    fn left(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn part(&self) -> PathBuf {
        self.folder.path().join(".out.tar.imgmv-part")
    }
}

/// What a copy that nothing disturbs gives.
fn whole(selectors: &[&str]) -> Vec<u8> {
    let scene = Scene::new();
    scene.copy(selectors, u64::MAX).0.unwrap();
    assert_eq!(scene.left(), ["out.tar"]);
    fs::read(&scene.path).unwrap()
}

fn same(path: &Path, bytes: &[u8]) {
    assert!(fs::read(path).unwrap() == bytes, "{} bytes", fs::metadata(path).unwrap().len());
}

#[test]
fn a_copy_that_is_cut_goes_on_at_its_byte() {
    let selectors = ["app:1"];
    let expected = whole(&selectors);
    let all = Scene::new().copy(&selectors, u64::MAX).1.given.load(Ordering::Relaxed);
    for at in [1, 600, 5000, 400_000, 700_000, 700_600, 1_000_000, 2_000_000, 2_239_999, 2_245_000] {
        let scene = Scene::new();
        let (cut, before) = scene.copy(&selectors, at);
        cut.unwrap_err();
        assert!(!scene.path.exists() && scene.part().exists(), "{at}");
        let (done, after) = scene.copy(&selectors, u64::MAX);
        done.unwrap();
        same(&scene.path, &expected);
        assert_eq!(scene.left(), ["out.tar"], "{at}");
        let given = [before, after].map(|line| line.given.load(Ordering::Relaxed));
        assert!(given[0] == at && given.iter().sum::<u64>() == all, "{at}: {given:?}");
    }
}

#[test]
fn a_copy_that_is_cut_often_ends() {
    let (selectors, scene) = (["app:1", "app:2"], Scene::new());
    let tries = (1..).find(|_| scene.copy(&selectors, 200_000).0.is_ok()).unwrap();
    same(&scene.path, &whole(&selectors));
    assert!((12..=14).contains(&tries), "{tries}");
}

#[test]
fn damage_is_cut_away() {
    let selectors = ["app:1"];
    let expected = whole(&selectors);
    for at in [3, 600, 1100, 200_000, 702_000, 1_000_000, 1_200_000] {
        let scene = Scene::new();
        scene.copy(&selectors, 1_300_000).0.unwrap_err();
        let mut bytes = fs::read(scene.part()).unwrap();
        bytes[at] ^= 0x40;
        fs::write(scene.part(), bytes).unwrap();
        scene.copy(&selectors, u64::MAX).0.unwrap();
        same(&scene.path, &expected);
    }
}

#[derive(Default)]
struct Messages(Mutex<Vec<String>>);

impl Watch for Messages {
    fn event(&self, event: Event<'_>) {
        if let Event::Info(text) = event {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }
}

#[test]
fn damage_in_the_last_partial_blob_is_reported() {
    let damaged_blob = Digest::of(&layer(2, 1_500_000));
    let is_report = |text: &String| text.starts_with(&format!("the partial file of blob {damaged_blob} is damaged"));
    for (damage, reports) in [(Some(1_000_000), 1), (None, 0)] {
        let scene = Scene::new();
        scene.copy(&["app:1"], 1_300_000).0.unwrap_err();
        let mut bytes = fs::read(scene.part()).unwrap();
        damage.into_iter().for_each(|at: usize| bytes[at] ^= 0x40);
        fs::write(scene.part(), bytes).unwrap();
        let messages = Arc::new(Messages::default());
        let sink = ArchiveSink::to_file_after(&scene.path, &ResumeOptions::default(), messages.clone()).unwrap();
        scene.copy_to(sink, &["app:1"], u64::MAX).0.unwrap();
        let texts = messages.0.lock().unwrap();
        assert_eq!(texts.iter().filter(|text| is_report(text)).count(), reports, "{texts:?}");
    }
}

#[test]
fn what_was_begun_for_another_image_goes_and_what_both_have_stays() {
    let scene = Scene::new();
    // All of the first image's layers are there.
    scene.copy(&["app:1"], 2_245_000).0.unwrap_err();
    let (done, line) = scene.copy(&["app:2"], u64::MAX);
    done.unwrap();
    let shared = Digest::of(&layer(2, 1_500_000));
    assert!(line.opened.lock().unwrap().iter().all(|(digest, _)| *digest != shared));
    let archive = crate::make::store(fs::read(&scene.path).unwrap()).unwrap();
    assert_eq!(archive.roots(&[]).unwrap().len(), 1);
    assert!(archive.find(&Digest::of(&layer(1, 700_000))).unwrap().is_none());
    let size = fs::metadata(&scene.path).unwrap().len();
    assert_eq!(size, whole(&["app:2"]).len() as u64);
}

#[test]
fn several_images_leave_nothing_of_others_behind() {
    let scene = Scene::new();
    scene.copy(&["app:1", "app:2"], 2_400_000).0.unwrap_err();
    scene.copy(&["app:1", "app:2"], u64::MAX).0.unwrap();
    same(&scene.path, &whole(&["app:1", "app:2"]));
}

#[test]
fn a_stranger_in_the_partials_place_is_left_alone() {
    let expected = whole(&["app:1"]);
    let scene = Scene::new();
    let other = scene.folder.path().join("precious");
    fs::write(&other, b"precious").unwrap();
    std::os::unix::fs::symlink(&other, scene.part()).unwrap();
    scene.copy(&["app:1"], u64::MAX).0.unwrap();
    same(&scene.path, &expected);
    assert_eq!(fs::read(&other).unwrap(), b"precious");
    fs::remove_file(scene.part()).unwrap();
    // The same file under two names: what was found right in it could be changed under the other.
    fs::hard_link(&other, scene.part()).unwrap();
    scene.copy(&["app:1"], u64::MAX).0.unwrap();
    assert_eq!(fs::read(&other).unwrap(), b"precious");
    same(&scene.path, &expected);
}

#[test]
fn two_copies_to_one_file_do_not_disturb_each_other() {
    let (expected, scene) = (whole(&["app:1"]), Scene::new());
    scene.copy(&["app:1"], 900_000).0.unwrap_err();
    let first = ArchiveSink::to_file(&scene.path).unwrap();
    scene.copy(&["app:1"], u64::MAX).0.unwrap();
    same(&scene.path, &expected);
    run(Source::Store(Line::new(images(), u64::MAX)), &first, &Options::default()).unwrap();
    same(&scene.path, &whole(&["app:1", "app:2"]));
    assert_eq!(scene.left(), ["out.tar"]);
}

#[test]
fn what_nobody_takes_up_is_pruned() {
    let scene = Scene::new();
    scene.copy(&["app:1"], 900_000).0.unwrap_err();
    fs::write(scene.folder.path().join(".out.tar.imgmv-abc123"), b"a killed run's").unwrap();
    fs::write(scene.folder.path().join(".gone.tar.imgmv-sums"), b"").unwrap();
    fs::write(scene.folder.path().join("mine.imgmv-part"), b"not hidden, not ours").unwrap();
    assert_eq!(prune(scene.folder.path(), Duration::from_secs(3600)).unwrap(), 0);
    assert!(scene.part().exists());
    let living = ArchiveSink::to_file(&scene.path).unwrap();
    assert_eq!(prune(scene.folder.path(), Duration::ZERO).unwrap(), 1);
    assert!(scene.part().exists());
    drop(living);
    // It had taken up nothing, so nothing was kept.
    assert!(!scene.part().exists());
    scene.copy(&["app:1"], 900_000).0.unwrap_err();
    assert_eq!(prune(scene.folder.path(), Duration::ZERO).unwrap(), 1);
    assert_eq!(scene.left(), ["mine.imgmv-part"]);
}
