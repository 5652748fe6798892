//! The page, and pages from elsewhere, in a real browser: Debian's chromium without a screen.

use super::support::program::{command, peer};
use super::support::web::{Answer, Body, Response, Web};
use super::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Nothing that takes longer is still at work.
const PATIENCE: Duration = Duration::from_secs(240);
/// The one name that leads anywhere, and it leads to loopback.
const NAMES: &str = "--host-resolver-rules=MAP elsewhere.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1";

/// Whether pages may run scripts: the setting that a user has for it.
#[derive(Clone, Copy)]
enum Scripts {
    Run,
    Off,
}

/// What a browser made of a page.
struct Shown {
    /// The elements as they were when all had loaded, written as HTML again.
    dom: String,
    /// What the page, and the browser about it, wrote on the console.
    console: Vec<String>,
}

fn shown(chromium: &Path, url: &str, scripts: Scripts) -> Shown {
    let home = tempfile::TempDir::new().unwrap();
    let profile = home.path().join("profile");
    std::fs::create_dir_all(profile.join("Default")).unwrap();
    let setting = match scripts {
        Scripts::Run => 1,
        Scripts::Off => 2,
    };
    let settings = json!({ "profile": { "default_content_setting_values": { "javascript": setting } } });
    std::fs::write(profile.join("Default/Preferences"), settings.to_string()).unwrap();
    let file = |name: &str| std::fs::File::create(home.path().join(name)).unwrap();
    let mut browser = command(chromium.to_str().unwrap())
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync", NAMES])
        .args(["--enable-logging=stderr", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(url)
        .env("HOME", home.path())
        .stdin(Stdio::null())
        .stdout(file("dom"))
        .stderr(file("said"))
        .spawn()
        .unwrap();
    let until = Instant::now() + PATIENCE;
    let ended = loop {
        match browser.try_wait().unwrap() {
            Some(status) => break status.success(),
            None if Instant::now() > until => {
                browser.kill().unwrap();
                browser.wait().unwrap();
                break false;
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let text = |name: &str| String::from_utf8_lossy(&std::fs::read(home.path().join(name)).unwrap()).into_owned();
    assert!(ended, "{url}: {}", text("said"));
    let console = text("said").lines().filter(|line| line.contains(":CONSOLE")).map(str::to_owned).collect();
    Shown { dom: text("dom"), console }
}

/// Everything below `dir`: folders, and files with the digest of what is in them.
fn files(dir: &Path) -> BTreeMap<PathBuf, Option<Digest>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.insert(path.clone(), None);
            all.append(&mut files(&path));
        } else {
            all.insert(path.clone(), Some(Digest::of(&std::fs::read(&path).unwrap())));
        }
    }
    all
}

#[test]
fn this_browser_runs_scripts_where_it_is_let() {
    let Some(chromium) = peer("chromium") else { return };
    let page = "<!doctype html><title>as sent</title><script>document.title = 'scripted'</script>";
    let answer: Answer =
        Arc::new(move |_, _| Some(Response::new(200).with("Content-Type", "text/html").body(Body::Bytes(page.into()))));
    let web = Web::start(None, answer);
    for (scripts, title) in [(Scripts::Run, "scripted"), (Scripts::Off, "as sent")] {
        let dom = shown(&chromium, &format!("http://{}/", web.address), scripts).dom;
        assert!(dom.contains(&format!("<title>{title}</title>")), "{dom}");
    }
}

#[test]
fn what_an_image_says_of_itself_stays_text_in_a_browser() {
    let Some(chromium) = peer("chromium") else { return };
    let (script, picture) =
        ("<script>document.title='owned'</script>", "\"><img src=x onerror=document.title='owned'>");
    let server = Server::writable();
    server.push_image("team/app", "v1", 3 << 20);
    let said = json!({ script: picture, "org.opencontainers.image.title": script });
    let config = json!({ "architecture": picture, "os": script, "config": { "Labels": said } }).to_string();
    server.push_blob("team/evil", config.as_bytes());
    let one = manifest(config.as_bytes(), &[], json!({ "annotations": said }));
    assert_eq!(server.push_manifest("team/evil", "one", &one).status, 201);
    let mut child = json!(Descriptor::of(media_type::OCI_MANIFEST, &one));
    child["platform"] = json!({ "os": "linux", "architecture": script, "variant": picture });
    child["annotations"] = said.clone();
    let all =
        json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [child], "annotations": said })
            .to_string();
    assert_eq!(server.push_manifest("team/evil", "all", all.as_bytes()).status, 201);

    // The same images in a layout in which somebody wrote names that no registry would take.
    let listing = server.dir.path().join("evil");
    std::fs::create_dir_all(listing.join("blobs/sha256")).unwrap();
    for bytes in [config.as_bytes(), &one, all.as_bytes()] {
        std::fs::write(listing.join("blobs/sha256").join(Digest::of(bytes).hex()), bytes).unwrap();
    }
    // A name may have no blanks; an element's attributes can do without.
    let blankless = picture.replace(' ', "/");
    let names = [("one", &one[..]), ("all", all.as_bytes()), (script, &one), (&blankless, &one)];
    let entries = names.map(|(name, bytes)| {
        let mut entry = json!(Descriptor::of(media_type::OCI_MANIFEST, bytes));
        if name == "all" {
            entry["mediaType"] = json!(media_type::OCI_INDEX);
        }
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name, script: picture });
        entry
    });
    let index = json!({ "schemaVersion": 2, "manifests": entries });
    std::fs::write(listing.join("index.json"), index.to_string()).unwrap();
    std::fs::write(listing.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
    let listed = Server::start(&[&format!("oci:{}", listing.display())]);

    let pulls = [&["team/app:v1", "team/evil:one", "team/evil:all"][..], &["evil:one", "evil:all"]];
    for (server, pulls) in [&server, &listed].into_iter().zip(pulls) {
        for scripts in [Scripts::Run, Scripts::Off] {
            let page = shown(&chromium, &format!("http://{}/", server.host), scripts);
            for element in ["<script", "<img", "onerror=\""] {
                assert!(!page.dom.contains(element), "{element}: {}", page.dom);
            }
            assert!(page.dom.contains("<title>Images</title>"), "{}", page.dom);
            assert!(page.dom.contains("&lt;script&gt;") && page.dom.contains("&lt;img src=x"), "{}", page.dom);
            for name in pulls {
                let repository = name.split(':').next().unwrap();
                assert!(page.dom.contains(&format!("<h2>{repository}</h2>")), "{repository}: {}", page.dom);
                let pull = format!("<code>docker pull {}/{name}</code>", server.host);
                assert!(page.dom.contains(&pull), "{pull}: {}", page.dom);
            }
            // Its own policy lets its own style through.
            assert!(page.console.is_empty(), "{:?}", page.console);
        }
    }
}

#[test]
fn a_page_from_elsewhere_changes_nothing_on_loopback_and_reads_nothing() {
    let Some(chromium) = peer("chromium") else { return };
    let server = Server::writable_in(tempfile::TempDir::new().unwrap().into(), &["--log", "json"]);
    let [_, layer, _] = server.push_image("team/app", "v1", 1000);
    let page = include_str!("elsewhere.html")
        .replace("SERVER", &server.host)
        .replace("FORM", &Digest::of(b"a=b\r\n").to_string())
        .replace("TEXT", &Digest::of(b"text").to_string())
        .replace("LAYER", &Digest::of(&layer).to_string());
    let done: Arc<(Mutex<Vec<String>>, Condvar)> = Arc::default();
    let heard = done.clone();
    let answer: Answer = Arc::new(move |request, _| {
        let (told, waiting) = &*heard;
        let html = |text: &str| Response::new(200).with("Content-Type", "text/html").body(Body::Bytes(text.into()));
        Some(match request.path.as_str() {
            "/" => html(&page),
            "/done" => {
                told.lock().unwrap().push(request.query.clone());
                waiting.notify_all();
                Response::new(204)
            }
            // The browser goes when all has loaded: not before the page has tried everything.
            "/held" => {
                drop(waiting.wait_timeout_while(told.lock().unwrap(), PATIENCE / 2, |told| told.is_empty()));
                Response::new(204)
            }
            _ => Response::new(404),
        })
    });
    let elsewhere = Web::start(None, answer);
    let port = elsewhere.address.port();
    let before = files(&server.store());
    let catalog = server.get("/v2/_catalog").json();
    // Another site, and the same one by another port.
    for host in ["elsewhere.test", "127.0.0.1"] {
        done.0.lock().unwrap().clear();
        let from = server.log().len();
        let page = shown(&chromium, &format!("http://{host}:{port}/"), Scripts::Run);
        assert_eq!(*done.0.lock().unwrap(), ["tried=11&read=0"], "{host}: {:?}", page.console);
        assert!(page.dom.contains("<title>tried</title>"), "{}", page.dom);
        assert_eq!(files(&server.store()), before, "{host}");
        assert_eq!(server.get("/v2/_catalog").json(), catalog, "{host}");
        // All of it arrived, and was refused.
        for repository in ["begun", "whole", "mounted", "form", "sandboxed", "beacon", "put", "team/app"] {
            let path = format!("/v2/{repository}/");
            let is_met = || writes(&server, from).iter().any(|(target, _)| target.starts_with(&path));
            assert!(happens(is_met), "{host}: no {path} in {:?}", writes(&server, from));
        }
        let met = writes(&server, from);
        assert!(met.iter().all(|(_, status)| *status == 403), "{host}: {met:?}");
    }
}

/// What asked `server` for more than a reading, behind the first `from` lines of its log: targets and statuses.
fn writes(server: &Server, from: usize) -> Vec<(String, u64)> {
    let lines = server.log().split_off(from);
    let asked = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let writes = asked.filter(|line| line["method"] != "GET");
    writes.map(|line| (line["uri"].as_str().unwrap().to_owned(), line["status"].as_u64().unwrap())).collect()
}

fn happens(what: impl Fn() -> bool) -> bool {
    let until = Instant::now() + PATIENCE;
    while !what() {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

#[test]
fn a_name_that_was_made_to_mean_loopback_shows_nothing() {
    let Some(chromium) = peer("chromium") else { return };
    let server = Server::writable();
    server.push_image("team/app", "v1", 1000);
    let port = server.host.rsplit(':').next().unwrap();
    for path in ["", "v2/_catalog"] {
        let own = shown(&chromium, &format!("http://127.0.0.1:{port}/{path}"), Scripts::Run);
        assert!(own.dom.contains("team/app"), "{}", own.dom);
        let rebound = shown(&chromium, &format!("http://elsewhere.test:{port}/{path}"), Scripts::Run);
        assert!(!rebound.dom.contains("team/app") && rebound.dom.contains("--allow-host"), "{}", rebound.dom);
    }
}
