//! Credentials of a document: they go to the host at which they stand, and to no other.

use super::scene::Scene;
use crate::support::registry::Auth;

#[test]
fn a_login_of_a_document_reaches_only_its_host() {
    let scene = Scene::new();
    scene.image("app", "1", 11);
    scene.from.faults().auth = Auth::Basic { user: "ann".to_owned(), password: "secret-of-ann".to_owned() };
    let document = "version: 1\ncreds:\n  - registry: FROM\n    user: ann\n    pass: 'secret-of-ann'\nsync:\n  - source: FROM/app:1\n    target: TO/app:1\n    type: image\n";
    let document = scene.write("regsync.yml", document);
    let output = scene.synced(&[&document, "-v"]);
    assert!(scene.to.tag("app", "1").is_some());
    let sent = |requests: Vec<crate::support::web::Request>| {
        requests.iter().filter(|request| request.header("authorization").is_some()).count()
    };
    assert!(sent(scene.from.requests()) > 0);
    assert_eq!(sent(scene.to.requests()), 0);
    assert!(!format!("{}{}", output.stdout, output.stderr).contains("secret-of-ann"));
}
