//! Archives that are written compressed as a whole.

use super::make::*;
use crate::support::noise::noise;
use crate::support::registry::Double;
use crate::support::shell::Shell;
use serde_json::json;
use std::fs;

/// A layout with a layer of some blocks of every kind: what compresses, and what does not.
fn layout(shell: &Shell) {
    let mut files = Files::default();
    let text: String = (0..300_000u32).map(|n| format!("{} ", n / 7)).collect();
    let one = files.image("linux/amd64", &text);
    let base64: String = noise(7, 1_500_000).iter().map(|byte| char::from(b'0' + byte % 64)).collect();
    let two = files.image("linux/amd64", &base64);
    let entries = json!([entry(&one, Some("docker.io/t/one:1"), None), entry(&two, Some("docker.io/t/two:2"), None)]);
    files.listed(entries).write(&shell.at("l"));
}

#[test]
fn an_archives_ending_says_how_it_is_compressed() {
    let shell = Shell::new();
    layout(&shell);
    good(&shell, "imgmv save oci:l -o plain.tar");
    let plain = fs::read(shell.at("plain.tar")).unwrap();
    for (name, magic, program) in [
        ("a.tar.gz", &[0x1f, 0x8b][..], "gzip"),
        ("a.tgz", &[0x1f, 0x8b], "gzip"),
        ("a.tar.zst", &[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
        ("a.tzst", &[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
    ] {
        good(&shell, &format!("imgmv save oci:l -o {name}"));
        let bytes = fs::read(shell.at(name)).unwrap();
        assert!(bytes.starts_with(magic) && bytes.len() < plain.len() * 4 / 5, "{name}: {} bytes", bytes.len());
        // The same by every way in, and on one core.
        for again in [
            format!("imgmv copy oci:l {name}"),
            format!("imgmv copy oci:l oci-archive:{name}"),
            format!("taskset -c 0 imgmv copy plain.tar {name}"),
        ] {
            fs::remove_file(shell.at(name)).unwrap();
            good(&shell, &again);
            assert!(fs::read(shell.at(name)).unwrap() == bytes, "{again}");
        }
        if shell.attempt(&format!("command -v {program}")).status.success() {
            good(&shell, &format!("{program} -t <{name} && {program} -dc <{name} | cmp - plain.tar"));
        }
        good(&shell, &format!("imgmv verify {name} && imgmv copy {name} back.tar && imgmv verify back.tar"));
        good(&shell, &format!("imgmv save oci:l -o - | imgmv copy - {name} && imgmv verify {name}"));
        let small = good(&shell, &format!("imgmv save oci:l -o small-{name} --level 9 && wc -c <small-{name}"));
        assert!(small.lines().last().unwrap().trim().parse::<usize>().unwrap() < bytes.len(), "{name}: {small}");
        // An archive of docker's first form passes as it came.
        good(&shell, &format!("cat $FIXTURES/hello-docker20.tar | imgmv copy - {name} && imgmv verify {name}"));
    }
    let left: Vec<_> = fs::read_dir(shell.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("imgmv-")), "{left:?}");
    let ran = run(&shell, "imgmv save oci:l -o a.tar.gz --level 19");
    assert_eq!(ran.status, 2, "{}", ran.said);
    assert!(run(&shell, "imgmv serve a.tar.gz --listen 127.0.0.1:0").said.contains("compressed as a whole"));
}

#[test]
fn a_copy_that_fails_leaves_the_file_before_it_and_nothing_else() {
    let (double, shell) = (Double::start(), Shell::new());
    double.image("app", "1", &[&noise(1, 3_000_000)]);
    double.faults().cut = Some((1_000_000, 99));
    fs::write(shell.at("a.tar.zst"), "before").unwrap();
    let copy = format!("imgmv copy {}/app:1 a.tar.zst --as app:1 --retry 0", double.host());
    assert_eq!(run(&shell, &copy).status, 6);
    assert_eq!(fs::read(shell.at("a.tar.zst")).unwrap(), b"before");
    assert_eq!(fs::read_dir(shell.path()).unwrap().count(), 1);
    double.faults().cut = None;
    good(&shell, &format!("{copy} && imgmv list a.tar.zst"));
    let full =
        run(&shell, &format!("ln -s /dev/full full.tar.gz; imgmv copy {}/app:1 full.tar.gz --as app:1", double.host()));
    assert_eq!(full.status, 8, "{}", full.said);
    good(&shell, "imgmv copy a.tar.zst plan.tar.gz --dry-run 2>&1 || true; test ! -e plan.tar.gz");
}
