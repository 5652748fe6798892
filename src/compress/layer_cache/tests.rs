//! What the cache of pairs promises: it never lies, never fails anybody, and stays small.

use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};

fn digest(of: impl std::fmt::Display) -> Digest {
    Digest::of(of.to_string().as_bytes())
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("cache/imgmv");
    (parent, directory)
}

fn remember(pairs: &LayerCache, number: usize) {
    pairs.remember(&digest(number), Coding::Gzip, None, &digest(format!("packed {number}")), number as u64);
}

fn find(pairs: &LayerCache, number: usize) -> Option<u64> {
    let (stored, size) = pairs.find(&digest(number), Coding::Gzip, None)?;
    assert_eq!(stored, digest(format!("packed {number}")));
    assert_eq!(pairs.raw_of(&stored), Some(digest(number)));
    Some(size)
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn what_one_process_made_the_next_one_finds() {
    let (_parent, directory) = place();
    let pairs = LayerCache::open(&directory);
    assert_eq!(find(&pairs, 1), None);
    assert!(!directory.exists(), "asking makes nothing");
    remember(&pairs, 1);
    assert_eq!(find(&pairs, 1), Some(1));
    let later = LayerCache::open(&directory);
    assert_eq!(find(&later, 1), Some(1));
    assert_eq!((mode(&directory), mode(&directory.join("pairs"))), (0o700, 0o600));
    remember(&later, 1);
    assert_eq!(std::fs::read_to_string(directory.join("pairs")).unwrap().lines().count(), 1);
}

#[test]
fn another_coding_level_or_recipe_is_another_pair() {
    let (_parent, directory) = place();
    let (pairs, raw) = (LayerCache::open(&directory), digest("raw"));
    pairs.remember(&raw, Coding::Gzip, None, &digest("gzip"), 1);
    assert_eq!(pairs.find(&raw, Coding::Zstd, None), None);
    assert_eq!(pairs.find(&raw, Coding::Gzip, Some(9)), None);
    let default = Some(default_level(Coding::Gzip));
    assert_eq!(pairs.find(&raw, Coding::Gzip, default), Some((digest("gzip"), 1)));
    let old = Key { recipe: RECIPE + 1, ..Key::new(&digest("old"), Coding::Gzip, None) };
    append(&own_directory(&directory, Missing::Leave).unwrap(), &line(&old, &digest("old gzip"), 1));
    let pairs = LayerCache::open(&directory);
    assert_eq!(pairs.find(&digest("old"), Coding::Gzip, None), None);
    assert_eq!(pairs.raw_of(&digest("old gzip")), Some(digest("old")), "still true of bytes that were made");
}

#[test]
fn the_newer_of_two_lines_counts() {
    let (_parent, directory) = place();
    let pairs = LayerCache::open(&directory);
    pairs.remember(&digest(1), Coding::Zstd, None, &digest("wrong"), 1);
    pairs.remember(&digest(1), Coding::Zstd, None, &digest("right"), 2);
    for pairs in [pairs, LayerCache::open(&directory)] {
        assert_eq!(pairs.find(&digest(1), Coding::Zstd, None), Some((digest("right"), 2)));
    }
}

#[test]
fn damage_costs_the_damaged_lines_only() {
    let (_parent, directory) = place();
    let pairs = LayerCache::open(&directory);
    (0..5).for_each(|number| remember(&pairs, number));
    let file = directory.join("pairs");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut lines: Vec<Vec<u8>> = text.lines().map(|line| line.as_bytes().to_vec()).collect();
    let one_digit_later = if lines[1][20] == b'0' { b'1' } else { b'0' };
    lines[1][20] = one_digit_later;
    lines[3].truncate(100);
    lines.insert(2, vec![0xff, 0, b'\x1b']);
    std::fs::write(&file, lines.join(&b'\n')).unwrap();
    let pairs = LayerCache::open(&directory);
    let found: Vec<_> = (0..5).map(|number| find(&pairs, number)).collect();
    assert_eq!(found, [Some(0), None, Some(2), None, Some(4)]);
}

#[test]
fn what_others_can_write_is_not_believed() {
    let (parent, directory) = place();
    remember(&LayerCache::open(&directory), 1);
    let file = directory.join("pairs");
    for (path, bad, good) in [(&file, 0o620, 0o600), (&file, 0o602, 0o600), (&directory, 0o777, 0o700)] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(bad)).unwrap();
        let pairs = LayerCache::open(&directory);
        assert_eq!(find(&pairs, 1), None, "{bad:o}");
        let before = std::fs::read(&file).unwrap();
        remember(&pairs, 2);
        assert_eq!((find(&pairs, 2), std::fs::read(&file).unwrap()), (Some(2), before));
        std::fs::set_permissions(path, PermissionsExt::from_mode(good)).unwrap();
    }
    assert_eq!(find(&LayerCache::open(&directory), 1), Some(1));
    let elsewhere = parent.path().join("elsewhere");
    std::fs::rename(&file, &elsewhere).unwrap();
    symlink(&elsewhere, &file).unwrap();
    assert_eq!(find(&LayerCache::open(&directory), 1), None, "a link");
}

#[test]
fn a_cache_that_cannot_be_written_still_serves_the_process() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    std::fs::write(&file, "").unwrap();
    std::fs::create_dir_all(parent.path().join("odd/pairs")).unwrap();
    for directory in [file.join("below"), file.clone(), parent.path().join("odd"), PathBuf::from("/proc/nothing")] {
        let pairs = LayerCache::open(&directory);
        remember(&pairs, 1);
        assert_eq!(find(&pairs, 1), Some(1), "{}", directory.display());
    }
}

#[test]
fn only_the_newest_are_kept() {
    let (_parent, directory) = place();
    remember(&LayerCache::open(&directory), 0);
    let lines: String = (1..=PRUNED_AT)
        .map(|n| line(&Key::new(&digest(n), Coding::Gzip, None), &digest(format!("packed {n}")), n as u64))
        .collect();
    append(&own_directory(&directory, Missing::Leave).unwrap(), &lines);
    remember(&LayerCache::open(&directory), PRUNED_AT + 1);
    let pairs = LayerCache::open(&directory);
    assert_eq!(std::fs::read_to_string(directory.join("pairs")).unwrap().lines().count(), KEPT);
    assert_eq!((find(&pairs, 0), find(&pairs, PRUNED_AT + 1 - KEPT)), (None, None));
    assert_eq!(find(&pairs, PRUNED_AT + 2 - KEPT), Some((PRUNED_AT + 2 - KEPT) as u64));
    assert_eq!(find(&pairs, PRUNED_AT + 1), Some(PRUNED_AT as u64 + 1));
    assert_eq!(mode(&directory.join("pairs")), 0o600);
    assert!(!directory.join("pairs.new").exists());
}

#[test]
fn many_at_once_lose_nothing() {
    let (_parent, directory) = place();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let directory = &directory;
            // A `LayerCache` each, as processes have.
            scope.spawn(move || {
                let pairs = LayerCache::open(directory);
                (0..50).for_each(|number| remember(&pairs, writer * 1000 + number));
            });
        }
    });
    let pairs = LayerCache::open(&directory);
    assert!((0..8).all(|writer| (0..50).all(|number| find(&pairs, writer * 1000 + number).is_some())));
}

#[test]
fn a_file_of_rubbish_costs_little_and_heals() {
    let (_parent, directory) = place();
    remember(&LayerCache::open(&directory), 1);
    let file = std::fs::OpenOptions::new().write(true).open(directory.join("pairs")).unwrap();
    file.set_len(1 << 40).unwrap();
    let pairs = LayerCache::open(&directory);
    assert_eq!(find(&pairs, 1), None);
    remember(&pairs, 2);
    assert_eq!(find(&pairs, 2), Some(2));
    assert!(directory.join("pairs").metadata().unwrap().len() < 1000, "cut to what is good in it");
    remember(&pairs, 3);
    assert_eq!(find(&LayerCache::open(&directory), 3), Some(3));
}
