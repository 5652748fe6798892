//! Archive files over a bad line: a copy that was cut or killed is gone on with by the next one.

use super::killed::{killed, moment};
use super::support::fault_proxy::{End, Fault, Ill};
use super::*;
use flate2::Crc;
use std::collections::HashMap;
use std::io::Read;

const MOMENTS: u64 = 50;
const LAYERS: [usize; 4] = [3_000_000, 2_000_000, 600_000, 1000];

/// How many bytes of each blob lie in the partial archive `part` and are right by their digest or by the sums.
fn verified(part: &Path) -> HashMap<String, u64> {
    let mut found = HashMap::new();
    let Ok(file) = std::fs::File::open(part) else { return found };
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries().unwrap() {
        let Ok(mut entry) = entry else { break };
        let hex = entry.path().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        let (size, mut bytes) = (entry.size(), Vec::new());
        let whole = entry.read_to_end(&mut bytes).is_ok() && bytes.len() as u64 == size;
        if whole {
            found.insert(hex, size);
            continue;
        }
        let sums = std::fs::read(part.with_extension("imgmv-sums")).unwrap_or_default();
        let mut right = 0;
        for record in sums.chunks_exact(12) {
            let end = u64::from_le_bytes(record[..8].try_into().unwrap()) as usize;
            let mut crc = Crc::new();
            let Some(stretch) = bytes.get(right..end) else { break };
            crc.update(stretch);
            if crc.sum().to_le_bytes() != record[8..] {
                break;
            }
            right = end;
        }
        found.insert(hex, right as u64);
    }
    found
}

#[test]
fn a_killed_pull_into_an_archive_asks_for_nothing_twice() {
    let layers: Vec<Vec<u8>> = LAYERS.iter().enumerate().map(|(nth, size)| noise(nth as u64 + 70, *size)).collect();
    let (double, dir) = (Double::start(), TempDir::new().unwrap());
    let image = double.image("app", "1", &layers.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let line = Proxy::start(&double.host());
    let (src, file) = (format!("{}/app:1", line.host()), dir.path().join("app.tar"));
    let args = ["copy", &src, file.to_str().unwrap(), "--as", "app:1", "-q"];
    good(imgmv(&args, None));
    let expected = std::fs::read(&file).unwrap();
    let mut went_on = 0;
    for nth in 0..MOMENTS {
        std::fs::remove_file(&file).unwrap();
        line.forget();
        killed(&line, moment(nth, LAYERS.iter().sum::<usize>() as u64), &args);
        let before = verified(&dir.path().join(".app.tar.imgmv-part"));
        line.forget();
        good(imgmv(&args, None));
        assert!(std::fs::read(&file).unwrap() == expected, "moment {nth}");
        assert_eq!(top(dir.path()), ["app.tar"], "moment {nth}");
        for blob in image.blobs() {
            let asked = line.seen("GET", &blob.digest.to_string());
            let verified = before.get(&blob.digest.hex()).copied().unwrap_or_default();
            assert_eq!(asked.is_empty(), verified == blob.size, "moment {nth}: {} {verified}", blob.digest);
            assert!(asked.iter().all(|seen| seen.from() >= verified), "moment {nth}: {verified} of {asked:?}");
            went_on += u64::from(verified > 0);
        }
    }
    assert!(went_on > MOMENTS / 4, "only {went_on} blobs were there: the moments are no test");
}

#[test]
fn a_run_that_gave_up_is_gone_on_with_under_another_tag() {
    let scene = Scene::new(9 << 20);
    let file = scene.dir.path().join("app.tar");
    let copy = |tag: &str, options: &[&str]| {
        let src = format!("{}/team/app:{tag}", scene.line.host());
        imgmv(&[&["copy", &src, file.to_str().unwrap()], options].concat(), None)
    };
    scene.double.image("team/app", "again", &[&noise(9 << 20, 9 << 20)]);
    let cut = Ill::Cut { after: 5 << 20, end: End::Fin };
    scene.line.does(Fault::once("GET", "/blobs/", cut).of(&scene.layer()));
    let out = copy("1", &["--retry", "0"]);
    assert_eq!(out.status.code(), Some(6), "{}", out.stderr);
    assert_eq!(top(scene.dir.path()), [".app.tar.imgmv-part", ".app.tar.imgmv-sums"]);
    scene.line.forget();
    let out = good(copy("again", &[]));
    assert!(out.stderr.contains("resumed"), "{}", out.stderr);
    assert_eq!(scene.asked().iter().map(Seen::from).collect::<Vec<_>>(), [5 << 20]);
    assert_eq!(top(scene.dir.path()), ["app.tar"]);
    good(imgmv(&["copy", file.to_str().unwrap(), &format!("oci:{}", scene.layout().display())], None));
    scene.is_there();
}

#[test]
fn what_the_line_altered_is_asked_for_once_more() {
    let scene = Scene::new(3 << 20);
    scene.line.does(Fault::once("GET", "/blobs/", Ill::Flip { at: 1 << 20 }).of(&scene.layer()));
    let file = scene.dir.path().join("app.tar");
    good(imgmv(&["copy", &format!("{}/team/app:1", scene.line.host()), file.to_str().unwrap()], None));
    assert_eq!(scene.asked().len(), 2);
    good(imgmv(&["copy", file.to_str().unwrap(), &format!("oci:{}", scene.layout().display())], None));
    scene.is_there();
}
