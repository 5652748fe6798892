//! A server under test, and a client that says exactly what a test wants it to say.

use super::support::program::command;
use imgmv::Digest;
use imgmv::internals::image::media_type;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// `imgmv serve` on a port of its own.
pub struct Server {
    pub host: String,
    pub dir: Arc<TempDir>,
    pub child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// One that takes pushes into an empty directory.
    pub fn writable() -> Server {
        Server::writable_in(Arc::new(TempDir::new().unwrap()), &[])
    }

    /// One that takes pushes into `dir`, with more `options`.
    pub fn writable_in(dir: Arc<TempDir>, options: &[&str]) -> Server {
        let store = format!("oci:{}", dir.path().join("store").display());
        let all = [&[store.as_str(), "--writable"], options].concat();
        Server::start_in(dir, &all)
    }

    pub fn start(args: &[&str]) -> Server {
        Server::start_in(Arc::new(TempDir::new().unwrap()), args)
    }

    pub fn start_in(dir: Arc<TempDir>, args: &[&str]) -> Server {
        Server::spawned(dir, command(env!("CARGO_BIN_EXE_imgmv")).arg("serve").args(args))
    }

    /// What `program` is to start, on any free port of loopback unless it says where.
    pub fn spawned(dir: Arc<TempDir>, program: &mut Command) -> Server {
        if !program.get_args().any(|arg| arg == "--listen") {
            program.args(["--listen", "127.0.0.1:0"]);
        }
        let mut child = program.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let host = loop {
            let mut line = String::new();
            if lines.read_line(&mut line).unwrap() == 0 {
                panic!("it did not start: {:?}", log.lock().unwrap());
            }
            log.lock().unwrap().push(line.trim_end().to_owned());
            if let Some(url) = line.trim_end().strip_prefix("listening on ") {
                break url.rsplit('/').next().unwrap().to_owned();
            }
        };
        let kept = log.clone();
        std::thread::spawn(move || keep(lines, &kept));
        Server { host, dir, child, log }
    }

    /// What it has said on standard error so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Waits for a line with `part` in it.
    pub fn says(&self, part: &str) -> String {
        let until = Instant::now() + Duration::from_secs(30);
        while Instant::now() < until {
            if let Some(line) = self.log().into_iter().find(|line| line.contains(part)) {
                return line;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no line with {part:?}: {:?}", self.log());
    }

    pub fn store(&self) -> std::path::PathBuf {
        self.dir.path().join("store")
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.host).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Sends exactly `bytes` and reads one answer.
    pub fn raw(&self, bytes: &[u8]) -> Reply {
        let mut stream = self.connect();
        // It may be refused before all of it is sent.
        let _ = stream.write_all(bytes);
        Reply::read(&mut stream, "GET").expect("an answer")
    }

    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut stream = self.connect();
        let _ = stream.write_all(&request(&self.host, method, path, headers, Some(body.len() as u64)));
        let _ = stream.write_all(body);
        Reply::read(&mut stream, method).expect("an answer")
    }

    pub fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[], b"")
    }

    pub fn head(&self, path: &str) -> Reply {
        self.ask("HEAD", path, &[], b"")
    }

    pub fn delete(&self, path: &str) -> Reply {
        self.ask("DELETE", path, &[], b"")
    }

    /// Pushes a blob in two requests.
    pub fn push_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let begun = self.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"");
        assert_eq!(begun.status, 202);
        let path = format!("{}?digest={digest}", begun.header("location"));
        let done = self.ask("PUT", &path, &[("Content-Type", media_type::OCTETS)], bytes);
        assert_eq!(done.status, 201, "{}", done.text());
        digest
    }

    pub fn push_manifest(&self, repository: &str, reference: &str, bytes: &[u8]) -> Reply {
        let document: Value = serde_json::from_slice(bytes).unwrap();
        let media_type = document["mediaType"].as_str().unwrap_or(media_type::OCI_MANIFEST).to_owned();
        let path = format!("/v2/{repository}/manifests/{reference}");
        self.ask("PUT", &path, &[("Content-Type", &media_type)], bytes)
    }

    /// Pushes an image of one layer of `size` bytes; config, layer and manifest.
    pub fn push_image(&self, repository: &str, tag: &str, size: usize) -> [Vec<u8>; 3] {
        let seed = tag.bytes().fold(7, |seed, b| seed * 31 + u64::from(b));
        let config = format!("{{\"architecture\":\"amd64\",\"os\":\"linux\",\"x\":{seed}}}").into_bytes();
        let layer = super::noise(seed, size);
        let manifest = super::manifest(&config, &[&layer], Value::Null);
        self.push_blob(repository, &config);
        self.push_blob(repository, &layer);
        assert_eq!(self.push_manifest(repository, tag, &manifest).status, 201);
        [config, layer, manifest]
    }

    /// In kilobytes, of memory that only this process has, and the most it ever had.
    pub fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let of = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        (of("VmRSS:"), of("VmHWM:"))
    }

    pub fn signal(&self, signal: &str) {
        Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
    }

    /// Ends it at once, as a power cut would end it.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn keep(lines: BufReader<ChildStderr>, log: &Mutex<Vec<String>>) {
    for line in lines.lines().map_while(Result::ok) {
        log.lock().unwrap().push(line);
    }
}

/// The head of a request; the connection is closed behind it.
pub fn request(host: &str, method: &str, path: &str, headers: &[(&str, &str)], length: Option<u64>) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if headers.iter().all(|(name, _)| *name != "Host") {
        head += &format!("Host: {host}\r\n");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if let Some(length) = length.filter(|length| *length > 0 || matches!(method, "POST" | "PUT" | "PATCH")) {
        head += &format!("Content-Length: {length}\r\n");
    }
    (head + "\r\n").into_bytes()
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    /// Reads one; nothing where the connection ends before its head does.
    pub fn read(stream: &mut impl Read, method: &str) -> Option<Reply> {
        let mut stream = BufReader::new(stream);
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).ok().filter(|n| *n > 0)?;
            let status: u16 = line.split(' ').nth(1)?.parse().ok()?;
            let mut headers = Vec::new();
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).ok().filter(|n| *n > 0)?;
                let Some((name, value)) = line.trim_end().split_once(": ") else { break };
                headers.push((name.to_ascii_lowercase(), value.to_owned()));
            }
            if status == 100 {
                continue;
            }
            let mut reply = Reply { status, headers, body: Vec::new() };
            if method != "HEAD" && status != 204 && status != 304 {
                match reply.find("content-length").map(|length| length.parse::<u64>().unwrap()) {
                    Some(length) => drop((&mut stream).take(length).read_to_end(&mut reply.body)),
                    None => drop(stream.read_to_end(&mut reply.body)),
                }
            }
            return Some(reply);
        }
    }

    pub fn find(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| &**value)
    }

    pub fn header(&self, name: &str) -> &str {
        self.find(name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    /// The code of the first error.
    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/json");
        let errors = self.json()["errors"].clone();
        assert!(errors[0]["message"].is_string());
        errors[0]["code"].as_str().unwrap().to_owned()
    }
}

/// What lies below `dir` in files, by their paths from there.
pub fn files(dir: &Path) -> Vec<String> {
    let found = walkdir::WalkDir::new(dir).into_iter().flatten().filter(|entry| entry.file_type().is_file());
    let mut names: Vec<String> =
        found.map(|entry| entry.path().strip_prefix(dir).unwrap().display().to_string()).collect();
    names.sort();
    names
}
