//! `--limit-rate`. A copy may take longer than these say, never less long: a busy machine changes nothing.

use super::*;
use std::time::{Duration, Instant};

/// How long a copy with `--limit-rate 1M` takes.
fn slowly(args: &[&str], stdin: Option<&Path>) -> Duration {
    let began = Instant::now();
    good(imgmv(&[&["copy", "--limit-rate", "1M", "--compress", "keep"], args].concat(), stdin));
    began.elapsed()
}

#[test]
fn the_rate_is_for_both_directions_and_all_connections_together() {
    let scene = Scene::new(1 << 20);
    let to = Double::start();
    let layout = format!("oci:{}", scene.layout().display());
    let image = format!("{}/team/app:1", scene.double.host());
    let second = Duration::from_millis(990);
    assert!(slowly(&[&image, &layout], None) >= second);
    scene.is_there();
    // A source on this host costs nothing, each registry as much as it is sent.
    let one = format!("{}/app:1", to.host());
    assert!(slowly(&[&layout, &one], None) >= second);
    let elsewhere = format!("{}/other:1", to.host());
    assert!(slowly(&[&image, &elsewhere], None) >= 2 * second);
    assert_eq!((to.tag("app", "1"), to.tag("other", "1")), (Some(scene.image.digest()), Some(scene.image.digest())));
}

#[test]
fn where_nothing_goes_over_the_network_the_source_is_read_slowly() {
    let scene = Scene::new(1 << 20);
    good(scene.pull(&[]));
    let layout = format!("oci:{}", scene.layout().display());
    let file = scene.dir.path().join("out.tar");
    assert!(slowly(&[&layout, file.to_str().unwrap()], None) >= Duration::from_millis(990));
    let again = format!("oci:{}", scene.dir.path().join("again").display());
    assert!(slowly(&["-", &again], Some(&file)) >= Duration::from_millis(990));
}
