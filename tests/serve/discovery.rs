//! The specification's third category: content discovery.

use super::*;

fn tags(server: &Server, query: &str) -> (Vec<String>, Option<String>) {
    let reply = server.get(&format!("/v2/app/tags/list{query}"));
    assert_eq!(reply.status, 200, "{query}");
    assert_eq!(reply.json()["name"], "app");
    let tags = reply.json()["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect();
    (tags, reply.find("link").map(str::to_owned))
}

#[test]
fn tags_are_listed_in_order_and_page_by_page() {
    let server = Server::writable();
    server.push_blob("app", b"{}");
    assert_eq!(tags(&server, "").0, Vec::<String>::new());
    let image = manifest(b"{}", &[], Value::Null);
    for tag in ["v2", "V1", "latest", "10", "v10"] {
        assert_eq!(server.push_manifest("app", tag, &image).status, 201);
    }
    let all = ["10", "V1", "latest", "v10", "v2"];
    assert_eq!(tags(&server, ""), (all.map(str::to_owned).to_vec(), None));
    assert_eq!(tags(&server, "?n=0"), (Vec::new(), None));
    assert_eq!(tags(&server, "?n=100").0, all);
    assert_eq!(tags(&server, "?last=latest").0, ["v10", "v2"]);
    assert_eq!(tags(&server, "?n=1&last=latest").0, ["v10"]);
    assert_eq!(tags(&server, "?last=v2").0, Vec::<String>::new());
    // What was never there is a place in the order all the same.
    assert_eq!(tags(&server, "?n=1&last=m").0, ["v10"]);
    let (mut next, mut found) = (Some("</v2/app/tags/list?n=2>; rel=\"next\"".to_owned()), Vec::new());
    while let Some(link) = next {
        let path = link.strip_prefix("</v2/app/tags/list").unwrap().strip_suffix(">; rel=\"next\"").unwrap();
        let (page, more) = tags(&server, path);
        assert!(page.len() <= 2);
        found.extend(page);
        next = more;
    }
    assert_eq!(found, all);
    assert_eq!(server.get("/v2/app/tags/list?n=x").status, 400);
    assert_eq!(server.head("/v2/app/tags/list").status, 200);
}

#[test]
fn repositories_are_listed_too() {
    let server = Server::writable();
    for name in ["b", "a/x", "c/blobs"] {
        server.push_blob(name, b"{}");
    }
    assert_eq!(server.get("/v2/_catalog").json(), json!({ "repositories": ["a/x", "b", "c/blobs"] }));
    let page = server.get("/v2/_catalog?n=2");
    assert_eq!(page.json()["repositories"], json!(["a/x", "b"]));
    assert_eq!(page.header("link"), "</v2/_catalog?n=2&last=b>; rel=\"next\"");
    assert_eq!(server.get("/v2/_catalog?n=2&last=b").json()["repositories"], json!(["c/blobs"]));
}

#[test]
fn referrers_are_found_and_filtered() {
    let server = Server::writable();
    let [_, _, image] = server.push_image("app", "v1", 100);
    let subject = Descriptor::of(media_type::OCI_MANIFEST, &image);
    server.push_blob("app", b"{}");
    let refer = |more: Value| {
        let mut more = more;
        more["subject"] = json!(subject);
        let bytes = manifest(b"{}", &[], more);
        assert_eq!(server.push_manifest("app", &Digest::of(&bytes).to_string(), &bytes).status, 201);
        Digest::of(&bytes)
    };
    let list = |query: &str| {
        let reply = server.get(&format!("/v2/app/referrers/{}{query}", subject.digest));
        assert_eq!((reply.status, reply.header("content-type")), (200, media_type::OCI_INDEX));
        let manifests = reply.json()["manifests"].as_array().unwrap().clone();
        (manifests, reply.find("oci-filters-applied").map(str::to_owned))
    };
    assert!(list("").0.is_empty());
    let sbom = refer(json!({ "artifactType": "application/spdx", "annotations": { "by": "me" } }));
    let signature = refer(json!({ "artifactType": "application/sig" }));
    // Without an artifact type it is the config's.
    let plain = refer(json!({ "annotations": { "x": "y" } }));
    let (all, filters) = list("");
    assert_eq!((all.len(), filters), (3, None));
    let of = |digest: Digest| all.iter().find(|one| one["digest"] == digest.to_string()).unwrap();
    assert_eq!(of(sbom)["artifactType"], "application/spdx");
    assert_eq!(of(sbom)["annotations"], json!({ "by": "me" }));
    assert_eq!(of(signature)["mediaType"], media_type::OCI_MANIFEST);
    assert_eq!(of(plain)["artifactType"], media_type::OCI_CONFIG);
    let (some, filters) = list("?artifactType=application/sig");
    assert_eq!((some.len(), filters.as_deref()), (1, Some("artifactType")));
    assert_eq!(some[0]["digest"], signature.to_string());
    assert!(list("?artifactType=application/none").0.is_empty());
    // What an index says of itself counts as well.
    let mut about = serde_json::from_slice::<Value>(&index(&[])).unwrap();
    about["subject"] = json!(subject);
    about["artifactType"] = json!("application/index");
    assert_eq!(server.push_manifest("app", "about", about.to_string().as_bytes()).status, 201);
    assert_eq!(list("?artifactType=application%2Findex").0.len(), 1);
    // Of nothing there is nothing, and that is no 404.
    for path in [format!("/v2/app/referrers/{}", Digest::of(b"absent")), format!("/v2/no/referrers/{}", subject.digest)]
    {
        let reply = server.get(&path);
        assert_eq!((reply.status, reply.json()["manifests"].clone()), (200, json!([])));
    }
    assert_eq!(server.get("/v2/app/referrers/sha256:12").status, 400);
}

#[test]
fn writers_at_once_lose_no_referrer() {
    const WRITERS: usize = 8;
    const EACH: usize = 5;
    let server = Server::writable();
    let [_, _, image] = server.push_image("app", "v1", 100);
    server.push_blob("app", b"{}");
    let subject = Descriptor::of(media_type::OCI_MANIFEST, &image);
    let path = format!("/v2/app/referrers/{}", subject.digest);
    let (server, subject) = (&server, &subject);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                for n in 0..EACH {
                    let more = json!({ "subject": subject, "annotations": { "n": format!("{writer}-{n}") } });
                    let bytes = manifest(b"{}", &[], more);
                    let reply = server.push_manifest("app", &Digest::of(&bytes).to_string(), &bytes);
                    assert_eq!((reply.status, reply.header("oci-subject")), (201, &*subject.digest.to_string()));
                }
            });
        }
    });
    assert_eq!(server.get(&path).json()["manifests"].as_array().unwrap().len(), WRITERS * EACH);
}

#[test]
fn a_referrer_is_found_after_its_tag_has_moved_or_gone() {
    let server = Server::writable();
    let [_, _, image] = server.push_image("app", "v1", 100);
    server.push_blob("app", b"{}");
    let subject = Descriptor::of(media_type::OCI_MANIFEST, &image);
    let signature = |n: u32| manifest(b"{}", &[], json!({ "subject": subject, "annotations": { "n": n.to_string() } }));
    for n in [1, 2] {
        assert_eq!(server.push_manifest("app", "sig", &signature(n)).status, 201);
    }
    assert_eq!(server.delete("/v2/app/manifests/sig").status, 202);
    let listed = server.get(&format!("/v2/app/referrers/{}", subject.digest)).json();
    assert_eq!(listed["manifests"].as_array().unwrap().len(), 2);
    // And not any more once it is deleted itself.
    assert_eq!(server.delete(&format!("/v2/app/manifests/{}", Digest::of(&signature(1)))).status, 202);
    let listed = server.get(&format!("/v2/app/referrers/{}", subject.digest)).json();
    assert_eq!(listed["manifests"].as_array().unwrap().len(), 1);
}

#[test]
fn many_referrers_come_page_by_page() {
    let server = Server::writable();
    server.push_blob("app", b"{}");
    let subject = Descriptor::of(media_type::OCI_MANIFEST, b"subject");
    let long = "x".repeat(900_000);
    for n in 0..5 {
        let more = json!({ "subject": subject, "artifactType": "application/a", "annotations": { "n": format!("{n}{long}") } });
        let bytes = manifest(b"{}", &[], more);
        assert_eq!(server.push_manifest("app", &Digest::of(&bytes).to_string(), &bytes).status, 201);
    }
    let mut path = format!("/v2/app/referrers/{}?artifactType=application/a", subject.digest);
    let (mut found, mut pages) = (0, 0);
    loop {
        let reply = server.get(&path);
        found += reply.json()["manifests"].as_array().unwrap().len();
        pages += 1;
        assert!(reply.body.len() < 4 << 20);
        match reply.find("link") {
            Some(link) => path = link.strip_prefix('<').unwrap().split('>').next().unwrap().to_owned(),
            None => break,
        }
    }
    assert_eq!((found, pages), (5, 3));
}
