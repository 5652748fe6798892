//! `kill -9` at the n-th request: the run after it ends right and moves nothing twice.
//!
//! `IMGMV_KILLS` is the number of points: 10 without it, 50 in the long form.

use super::scene::Scene;
use crate::support::noise::noise;
use crate::support::program::command;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

const IMAGES: u64 = 12;

/// Images of which each shares layers with others.
fn scene() -> (Scene, String) {
    let scene = Scene::new();
    let layers: Vec<Vec<u8>> = (0..8).map(|nth| noise(nth + 1, 20_000 + nth as usize)).collect();
    for nth in 0..IMAGES as usize {
        let [a, b] = [&layers[nth % 8], &layers[(nth * 3 + 1) % 8]];
        let own = noise(100 + nth as u64, 4000);
        scene.from.image(&format!("team/app{}", nth % 4), &format!("v{nth}"), &[a, b, &own]);
    }
    let lines: String = (0..IMAGES).map(|nth| format!("FROM/team/app{}:v{nth}\n", nth % 4)).collect();
    let list = scene.write("images.txt", &lines);
    (scene, list)
}

fn start(list: &str, to: &str) -> Child {
    let words = ["sync", list, to, "-q", "--parallel", "4"];
    command(env!("CARGO_BIN_EXE_imgmv"))
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The blobs in all repositories of the destination.
fn blobs(scene: &Scene, prefix: &str) -> usize {
    (0..4).map(|nth| scene.to.contents(&format!("{prefix}/team/app{nth}")).0.len()).sum()
}

#[test]
fn a_killed_sync_is_completed_by_the_next_and_moves_nothing_twice() {
    let points: u64 = std::env::var("IMGMV_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let (scene, list) = scene();
    let whole = format!("{}/whole/", scene.to.host());
    assert!(start(&list, &whole).wait().unwrap().success());
    let (requests, expected) = (scene.to.requests().len() as u64, blobs(&scene, "whole"));
    let mut killed = 0;
    for nth in 0..points {
        let draw = u64::from_le_bytes(noise(nth + 7, 8).try_into().unwrap());
        let at = 1 + draw % (requests - 1);
        let prefix = format!("run{nth}");
        scene.to.forget_requests();
        let child = Arc::new(Mutex::new(None::<Child>));
        let victim = child.clone();
        scene.to.after_requests(at as usize, move || {
            let mut child = victim.lock().unwrap();
            child.as_mut().unwrap().kill().unwrap();
        });
        let mut guard = child.lock().unwrap();
        *guard = Some(start(&list, &format!("{}/{prefix}/", scene.to.host())));
        drop(guard);
        let status = loop {
            if let Some(status) = child.lock().unwrap().as_mut().unwrap().try_wait().unwrap() {
                break status;
            }
            std::thread::yield_now();
        };
        killed += u64::from(!status.success());
        for image in 0..IMAGES {
            let (repository, tag) = (format!("{prefix}/team/app{}", image % 4), format!("v{image}"));
            let Some(digest) = scene.to.tag(&repository, &tag) else { continue };
            assert!(scene.to.manifest(&repository, &digest).is_some(), "point {nth}: {repository}:{tag}");
        }
        scene.to.after_requests(usize::MAX, || {});
        assert!(start(&list, &format!("{}/{prefix}/", scene.to.host())).wait().unwrap().success(), "point {nth}");
        for image in 0..IMAGES {
            let (repository, tag) = (format!("team/app{}", image % 4), format!("v{image}"));
            assert_eq!(scene.to.tag(&format!("{prefix}/{repository}"), &tag), scene.from.tag(&repository, &tag));
        }
        assert_eq!(blobs(&scene, &prefix), expected, "point {nth}");
        let finished = scene.to.requests();
        let puts = finished
            .iter()
            .filter(|one| one.method == "PUT" && one.path.contains("/blobs/uploads/") && one.status == 201);
        let mut stored: Vec<&str> = puts.filter_map(|one| one.path.split("digest=").nth(1)).collect();
        let all = stored.len();
        stored.sort_unstable();
        stored.dedup();
        assert_eq!(stored.len(), all, "point {nth}: a blob was sent twice");
    }
    assert!(killed * 2 > points, "{killed} of {points} runs were killed");
}
