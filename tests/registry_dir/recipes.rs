//! The recipes of the README, with the program itself.

use super::*;
use support::shell::Shell;

#[test]
fn a_mirrors_disk_is_seeded_and_a_registrys_disk_goes_into_an_archive() {
    let (dir, shell) = (Dir::new(), Shell::new());
    let tree = dir.address("");
    shell.run(&format!(
        "imgmv copy -q $FIXTURES/hello-docker28c.tar {tree}
         imgmv copy -q oci:$FIXTURES/multi:1 {tree}:quay.io/org/multi:1
         imgmv copy -q {tree} all.tar
         imgmv copy -q all.tar {tree}-again"
    ));
    assert_eq!(dir.tree.resolves(), 2);
    assert_eq!(dir.tree.repositories().into_iter().collect::<Vec<_>>(), ["library/hello-imgmv", "quay.io/org/multi"]);
    let again = RegistryTree::at(&dir.at("registry-again"));
    assert_eq!(again.resolves(), 2);
    assert_eq!(again.repositories(), dir.tree.repositories());
    let (status, told) = shell.fails(&format!("imgmv copy -q oci:$FIXTURES/layout:1 {tree}:App:1"));
    assert!(status == 2 && told.contains("expected REPO:TAG"), "{told}");
    let (status, told) = shell.fails(&format!("imgmv copy -q {tree}:library/absent:1 x.tar"));
    assert!(status == 3 && told.contains("localhost/library/hello-imgmv:1"), "{told}");
    let (status, told) = shell.fails(&format!("imgmv copy -q oci:$FIXTURES/layout:1 {tree}:t/a:1 {tree}:t/a:1"));
    assert!(status == 2 && told.contains("twice"), "{told}");
}
