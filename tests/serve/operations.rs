//! What an operator sees: start, stop, health, figures, the log, the page.

use super::*;
use client::request;
use std::io::Write;
use std::time::Duration;

#[test]
fn sigterm_lets_what_is_under_way_end_and_nothing_else_in() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut server = Server::writable_in(dir.into(), &["--stop-timeout", "120"]);
    let bytes = noise(30, 400_000);
    let begun = server.ask("POST", "/v2/app/blobs/uploads/", &[], b"");
    let path = format!("{}?digest={}", begun.header("location"), Digest::of(&bytes));
    let mut stream = server.connect();
    stream.write_all(&request(&server.host, "PUT", &path, &[("Expect", "100-continue")], Some(400_000))).unwrap();
    std::io::Read::read_exact(&mut stream, &mut [0; 25]).unwrap();
    server.signal("-TERM");
    while std::net::TcpStream::connect(&server.host).is_ok() {
        std::thread::sleep(Duration::from_millis(10));
    }
    stream.write_all(&bytes).unwrap();
    assert_eq!(Reply::read(&mut stream, "PUT").unwrap().status, 201);
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    let file = server.store().join("app/blobs/sha256").join(Digest::of(&bytes).hex());
    assert_eq!(std::fs::read(file).unwrap(), bytes);
}

#[test]
fn who_does_not_end_is_not_waited_for_for_ever() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut server = Server::writable_in(dir.into(), &["--stop-timeout", "1"]);
    let begun = server.ask("POST", "/v2/app/blobs/uploads/", &[], b"");
    let mut stream = server.connect();
    let headers = [("Expect", "100-continue")];
    stream.write_all(&request(&server.host, "PATCH", begun.header("location"), &headers, Some(400_000))).unwrap();
    std::io::Read::read_exact(&mut stream, &mut [0; 25]).unwrap();
    server.signal("-INT");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    server.says("stopped before all requests had finished");
}

#[test]
fn health_and_figures_are_told() {
    let server = Server::writable();
    assert_eq!((server.get("/healthz").status, server.get("/healthz").text().as_str()), (200, "ok\n"));
    let [_, layer, _] = server.push_image("app", "v1", 50_000);
    server.get(&format!("/v2/app/blobs/{}", Digest::of(&layer)));
    server.get("/v2/absent/tags/list");
    let metrics = server.get("/metrics");
    assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));
    let text = metrics.text();
    let figure = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("imgmv_{name} ")));
        line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
    };
    assert_eq!((figure("blobs_pushed_total"), figure("manifests_pushed_total")), (2, 1));
    assert!(figure("http_sent_bytes_total") >= 50_000 && figure("http_received_bytes_total") >= 50_000);
    assert_eq!(figure("http_requests_total{class=\"4xx\"}"), 1);
    assert_eq!(figure("http_requests_in_flight"), 1);
    for line in text.lines() {
        assert!(line.starts_with("# HELP imgmv_") || line.starts_with("# TYPE imgmv_") || line.starts_with("imgmv_"));
    }
}

#[test]
fn each_request_is_a_line_of_the_log() {
    let dir = tempfile::TempDir::new().unwrap();
    let server = Server::writable_in(dir.into(), &["--log", "json"]);
    server.ask("GET", "/v2/absent/tags/list?x=\u{1b}", &[("User-Agent", "me \u{9b}2J")], b"");
    server.ask("GET", "/v2/absent/tags/list?y=1", &[("User-Agent", "me/1")], b"");
    let line: Value = serde_json::from_str(&server.says("y=1")).unwrap();
    assert_eq!(line["status"], 404);
    assert_eq!((&line["method"], &line["uri"]), (&json!("GET"), &json!("/v2/absent/tags/list?y=1")));
    assert_eq!((&line["remote_addr"], &line["user_agent"]), (&json!("127.0.0.1"), &json!("me/1")));
    assert!(line["sent_bytes"].as_u64().unwrap() > 0 && line["time_ms"].as_u64().unwrap() > 1_600_000_000_000);
    assert!(server.log().iter().all(|line| !line.contains(['\u{1b}', '\u{9b}'])));
    let quiet = Server::writable_in(server.dir.clone(), &["--log", "none"]);
    quiet.get("/v2/");
    quiet.get("/v2/");
    assert_eq!(quiet.log().len(), 1);
}

#[test]
fn uploads_that_nobody_goes_on_with_expire() {
    let dir = std::sync::Arc::new(tempfile::TempDir::new().unwrap());
    let at = {
        let server = Server::writable_in(dir.clone(), &[]);
        let begun = server.ask("POST", "/v2/app/blobs/uploads/", &[], b"");
        assert_eq!(server.ask("PATCH", begun.header("location"), &[], b"some").status, 202);
        begun.header("location").to_owned()
    };
    let server = Server::writable_in(dir.clone(), &[]);
    assert_eq!(server.get(&at).header("range"), "0-3");
    drop(server);
    let server = Server::writable_in(dir, &["--upload-life", "0"]);
    server.says("removed 1 expired uploads");
    assert_eq!(server.get(&at).status, 404);
}

#[test]
fn browsers_get_a_page_and_nobody_else() {
    let server = Server::writable();
    server.push_image("team/app", "v1", 3 << 20);
    let page = |path: &str| server.ask("GET", path, &[("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")], b"");
    let whole = page("/");
    assert_eq!((whole.status, whole.header("content-type")), (200, "text/html; charset=utf-8"));
    for part in ["<h2>team/app</h2>", "linux/amd64, 3.0 MiB", &format!("docker pull {}/team/app:v1", server.host)] {
        assert!(whole.text().contains(part), "{part}: {}", whole.text());
    }
    assert!(whole.header("content-security-policy").starts_with("default-src 'none'; style-src 'sha256-"));
    assert!(!whole.text().contains("<script"));
    assert_eq!(page("/?repository=team/app").status, 200);
    for absent in ["/?repository=absent", "/?repository=../x", "/?repository=%3Cscript%3E"] {
        let reply = page(absent);
        assert!(reply.status == 404 && !reply.text().contains("script"), "{absent}");
    }
    let reply = server.ask("GET", "/", &[("Accept", "*/*")], b"");
    assert_eq!((reply.status, reply.code().as_str()), (404, "UNSUPPORTED"));
    assert_eq!(server.ask("POST", "/", &[("Accept", "text/html")], b"").status, 405);
}

#[test]
fn what_an_image_says_of_itself_is_only_text_on_the_page() {
    let server = Server::writable();
    let evil = "<img src=x onerror=alert(1)>\u{202e}";
    let config = json!({ "architecture": evil, "os": "\"><script>" }).to_string();
    server.push_blob("app", config.as_bytes());
    server.push_manifest("app", "v1", &manifest(config.as_bytes(), &[], Value::Null));
    let one = manifest(config.as_bytes(), &[], json!({ "annotations": { "n": "1" } }));
    server.push_manifest("app", "one", &one);
    let mut child = json!(Descriptor::of(media_type::OCI_MANIFEST, &one));
    child["platform"] = json!({ "architecture": evil, "os": "</table>" });
    let all = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [child] });
    assert_eq!(server.push_manifest("app", "all", all.to_string().as_bytes()).status, 201);
    let page = server.ask("GET", "/", &[("Accept", "text/html")], b"").text();
    for part in ["<img", "<script", "</table>/", "\u{202e}"] {
        assert!(!page.contains(part), "{part}: {page}");
    }
    assert!(page.contains("&lt;img"), "{page}");
}
