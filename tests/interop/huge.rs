//! A layer of more than 8 GiB, which a tar header of the usual kind cannot hold, through an archive into every loader.
//! Writes some tens of GB, one loader after the other: run by hand, with `--ignored --nocapture`.

use super::large::write_large;
use super::*;
use std::time::Instant;

const BYTES: u64 = (8 << 30) + (512 << 20);

/// Says what became of one loader, and whether it was right.
fn told(who: &str, started: Instant, outcome: Result<String, String>) -> bool {
    let seconds = started.elapsed().as_secs();
    match &outcome {
        Ok(how) => println!("| {who} | loads it | {how} | {seconds} s |"),
        Err(why) => println!("| {who} | refuses it | {} | {seconds} s |", why.lines().last().unwrap_or_default()),
    }
    outcome.is_ok()
}

fn tried(shell: &Shell, script: &str) -> Result<String, String> {
    let output = shell.attempt(script);
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().lines().last().unwrap_or_default().to_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

#[test]
#[ignore = "writes some tens of GB; run it by hand"]
fn a_layer_of_more_than_8_gib_goes_through_an_archive_into_every_loader() {
    let desk = Shell::new().patient();
    write_large(&desk, "large", BYTES);
    let source = format!("oci:{}:1", desk.at("large").display());
    let mut refused = Vec::new();
    for kind in Kind::ALL {
        let Some(peer) = Peer::start(kind) else { continue };
        let shell = Shell::with(&peer.environment).patient();
        let started = Instant::now();
        let outcome = tried(&shell, &format!("imgmv save -q {source} --as t/huge:1 | {}", load(kind)));
        let outcome = outcome.and_then(|_| peer.id("docker.io/t/huge:1").ok_or("no such image after it".to_owned()));
        if !told(&format!("{kind:?}"), started, outcome) {
            refused.push(format!("{kind:?}"));
        }
    }
    // Beside the layout: the registry's copy goes with it.
    let shell = desk;
    let started = Instant::now();
    shell.run(&format!("imgmv save -q {source} --as t/huge:1 -o huge.tar"));
    println!("| imgmv save | | {} bytes | {} s |", shell.run("stat -c %s huge.tar"), started.elapsed().as_secs());
    let registry = Registry::start(shell.path());
    for (who, script) in [
        ("imgmv", "imgmv verify -q huge.tar && imgmv digest huge.tar"),
        ("skopeo oci-archive", "skopeo --insecure-policy copy -q oci-archive:huge.tar oci:out:1"),
        ("skopeo-new oci-archive", "skopeo-new --insecure-policy copy -q oci-archive:huge.tar oci:out:1"),
        ("skopeo docker-archive", "skopeo --insecure-policy copy -q docker-archive:huge.tar dir:out"),
        ("skopeo-new docker-archive", "skopeo-new --insecure-policy copy -q docker-archive:huge.tar dir:out"),
        ("oras", "oras copy --from-oci-layout huge.tar:1 --to-oci-layout out:1"),
        ("crane", &format!("crane push huge.tar {}/t/huge:1", registry.address)),
        ("tar", "tar tf huge.tar"),
    ] {
        let program = script.split(' ').next().unwrap();
        if program != "imgmv" && peer(program).is_none() {
            continue;
        }
        let started = Instant::now();
        if !told(who, started, tried(&shell, script)) {
            refused.push(who.to_owned());
        }
        shell.run("rm -rf out");
    }
    assert!(refused.is_empty(), "refused by {}", refused.join(", "));
}
