//! The cache guarantees: it never returns a wrong digest, never fails a copy, and stays small.

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

fn insert(cache: &LayerCache, number: usize) {
    cache.insert(&digest(number), Coding::Gzip, None, &digest(format!("compressed {number}")), number as u64);
}

fn find(cache: &LayerCache, number: usize) -> Option<u64> {
    let (stored, size) = cache.find(&digest(number), Coding::Gzip, None)?;
    assert_eq!(stored, digest(format!("compressed {number}")));
    assert_eq!(cache.diff_id_of(&stored), Some(digest(number)));
    Some(size)
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn what_one_process_made_the_next_one_finds() {
    let (_parent, directory) = place();
    let cache = LayerCache::open(&directory);
    assert_eq!(find(&cache, 1), None);
    assert!(!directory.exists(), "asking makes nothing");
    insert(&cache, 1);
    assert_eq!(find(&cache, 1), Some(1));
    let later = LayerCache::open(&directory);
    assert_eq!(find(&later, 1), Some(1));
    assert_eq!((mode(&directory), mode(&directory.join("pairs"))), (0o700, 0o600));
    insert(&later, 1);
    assert_eq!(std::fs::read_to_string(directory.join("pairs")).unwrap().lines().count(), 1);
}

#[test]
fn another_coding_level_or_recipe_is_another_pair() {
    let (_parent, directory) = place();
    let (cache, raw) = (LayerCache::open(&directory), digest("raw"));
    cache.insert(&raw, Coding::Gzip, None, &digest("gzip"), 1);
    assert_eq!(cache.find(&raw, Coding::Zstd, None), None);
    assert_eq!(cache.find(&raw, Coding::Gzip, Some(9)), None);
    let default = Some(default_level(Coding::Gzip));
    assert_eq!(cache.find(&raw, Coding::Gzip, default), Some((digest("gzip"), 1)));
    let old = CacheKey { recipe: RECIPE_VERSION + 1, ..CacheKey::new(&digest("old"), Coding::Gzip, None) };
    append(&own_directory(&directory, IfMissing::Skip).unwrap(), &line(&old, &digest("old gzip"), 1));
    let cache = LayerCache::open(&directory);
    assert_eq!(cache.find(&digest("old"), Coding::Gzip, None), None);
    assert_eq!(cache.diff_id_of(&digest("old gzip")), Some(digest("old")), "still true of bytes that were made");
}

#[test]
fn the_newer_of_two_lines_counts() {
    let (_parent, directory) = place();
    let cache = LayerCache::open(&directory);
    cache.insert(&digest(1), Coding::Zstd, None, &digest("wrong"), 1);
    cache.insert(&digest(1), Coding::Zstd, None, &digest("right"), 2);
    for cache in [cache, LayerCache::open(&directory)] {
        assert_eq!(cache.find(&digest(1), Coding::Zstd, None), Some((digest("right"), 2)));
    }
}

#[test]
fn damage_costs_the_damaged_lines_only() {
    let (_parent, directory) = place();
    let cache = LayerCache::open(&directory);
    (0..5).for_each(|number| insert(&cache, number));
    let file = directory.join("pairs");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut lines: Vec<Vec<u8>> = text.lines().map(|line| line.as_bytes().to_vec()).collect();
    let one_digit_later = if lines[1][20] == b'0' { b'1' } else { b'0' };
    lines[1][20] = one_digit_later;
    lines[3].truncate(100);
    lines.insert(2, vec![0xff, 0, b'\x1b']);
    std::fs::write(&file, lines.join(&b'\n')).unwrap();
    let cache = LayerCache::open(&directory);
    let found: Vec<_> = (0..5).map(|number| find(&cache, number)).collect();
    assert_eq!(found, [Some(0), None, Some(2), None, Some(4)]);
}

#[test]
fn what_others_can_write_is_not_believed() {
    let (parent, directory) = place();
    insert(&LayerCache::open(&directory), 1);
    let file = directory.join("pairs");
    for (path, bad, good) in [(&file, 0o620, 0o600), (&file, 0o602, 0o600), (&directory, 0o777, 0o700)] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(bad)).unwrap();
        let cache = LayerCache::open(&directory);
        assert_eq!(find(&cache, 1), None, "{bad:o}");
        let before = std::fs::read(&file).unwrap();
        insert(&cache, 2);
        assert_eq!((find(&cache, 2), std::fs::read(&file).unwrap()), (Some(2), before));
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
        let cache = LayerCache::open(&directory);
        insert(&cache, 1);
        assert_eq!(find(&cache, 1), Some(1), "{}", directory.display());
    }
}

#[test]
fn only_the_newest_are_kept() {
    let (_parent, directory) = place();
    insert(&LayerCache::open(&directory), 0);
    let lines: String = (1..=PRUNE_LINES)
        .map(|n| line(&CacheKey::new(&digest(n), Coding::Gzip, None), &digest(format!("compressed {n}")), n as u64))
        .collect();
    append(&own_directory(&directory, IfMissing::Skip).unwrap(), &lines);
    insert(&LayerCache::open(&directory), PRUNE_LINES + 1);
    let cache = LayerCache::open(&directory);
    assert_eq!(std::fs::read_to_string(directory.join("pairs")).unwrap().lines().count(), MAX_ENTRIES);
    assert_eq!((find(&cache, 0), find(&cache, PRUNE_LINES + 1 - MAX_ENTRIES)), (None, None));
    assert_eq!(find(&cache, PRUNE_LINES + 2 - MAX_ENTRIES), Some((PRUNE_LINES + 2 - MAX_ENTRIES) as u64));
    assert_eq!(find(&cache, PRUNE_LINES + 1), Some(PRUNE_LINES as u64 + 1));
    assert_eq!(mode(&directory.join("pairs")), 0o600);
    assert!(!directory.join("pairs.new").exists());
}

#[test]
fn many_at_once_lose_nothing() {
    let (_parent, directory) = place();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let directory = &directory;
            // A `LayerCache` each, as in separate processes.
            scope.spawn(move || {
                let cache = LayerCache::open(directory);
                (0..50).for_each(|number| insert(&cache, writer * 1000 + number));
            });
        }
    });
    let cache = LayerCache::open(&directory);
    assert!((0..8).all(|writer| (0..50).all(|number| find(&cache, writer * 1000 + number).is_some())));
}

#[test]
fn a_file_of_rubbish_costs_little_and_heals() {
    let (_parent, directory) = place();
    insert(&LayerCache::open(&directory), 1);
    let file = std::fs::OpenOptions::new().write(true).open(directory.join("pairs")).unwrap();
    file.set_len(1 << 40).unwrap();
    let cache = LayerCache::open(&directory);
    assert_eq!(find(&cache, 1), None);
    insert(&cache, 2);
    assert_eq!(find(&cache, 2), Some(2));
    assert!(directory.join("pairs").metadata().unwrap().len() < 1000, "cut to what is good in it");
    insert(&cache, 3);
    assert_eq!(find(&LayerCache::open(&directory), 3), Some(3));
}
