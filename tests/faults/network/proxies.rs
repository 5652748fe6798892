//! Proxies: SOCKS, plain HTTP without tunnels, those that are dead or want credentials (B1, B2).

use super::*;
use crate::support::program::free_port;
use crate::support::proxy::{Proxy, Rules};
use crate::support::registry::Double;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

/// `me:s@fe`, as a header.
const BASIC: &str = "Basic bWU6c0BmZQ==";

fn registry() -> Double {
    let double = Double::start();
    double.image("team/app", "1", &[b"layer"]);
    double
}

/// Asks a registry that has no TLS, by way of the proxy in `variable`.
fn digest(variable: &str, proxy: &str, more: &[&str]) -> (i32, String) {
    let args = [&["digest", "registry.invalid:5000/team/app:1", "--timeout", "5"], more].concat();
    run(program(&args).env(variable, proxy))
}

/// Before: tunnels alone, so 403 from a proxy that has squid's default rules.
#[test]
fn plain_http_goes_through_a_proxy_without_a_tunnel() {
    let double = registry();
    let proxy = Proxy::start(double.host(), Rules { only_443: true, wants: Some((BASIC, "Basic realm=x")) });
    let address = format!("http://me:s%40fe@{}", proxy.address);
    let done = run(program(&["digest", "registry.invalid:5000/team/app:1", "--src-insecure"])
        .env("HTTP_PROXY", &address)
        .env("HTTPS_PROXY", &address));
    assert_eq!(done.0, 0, "{}", done.1);
    let lines = proxy.lines();
    let plain = |line: &String| line.contains(" http://registry.invalid:5000/v2/team/app/manifests/1 HTTP/1.1");
    assert!(lines[0].starts_with("CONNECT ") && lines[1..].iter().all(plain) && lines.len() > 1, "{lines:?}");
    // Bodies go the same way.
    let dir = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}:1", dir.path().display());
    for (from, to) in
        [("registry.invalid:5000/team/app:1", layout.as_str()), (layout.as_str(), "registry.invalid:5000/team/new:1")]
    {
        let args = ["copy", from, to, "--src-insecure", "--dst-insecure", "--retry", "0"];
        let done = run(program(&args).env("HTTP_PROXY", &address));
        assert_eq!(done.0, 0, "{}", done.1);
    }
    assert!(double.tag("team/new", "1").is_some());
    // The registry never saw the proxy's credentials.
    let requests = double.requests();
    assert!(!requests.is_empty() && requests.iter().all(|request| request.header("proxy-authorization").is_none()));
}

/// Before: "the proxy does not let us through", six times over, or the connection "was refused" by the registry.
#[test]
fn a_proxy_that_fails_is_named_and_one_that_wants_credentials_is_asked_once() {
    let double = registry();
    let dead = format!("http://me:s%40fe@127.0.0.1:{}", free_port());
    for more in [&[][..], &["--src-insecure"]] {
        for variable in ["ALL_PROXY", "all_proxy"] {
            let done = digest(variable, &dead, &[more, &["--retry", "0"]].concat());
            ended(&done, 6, &["the proxy 127.0.0.1:", variable, "refused"]);
            assert!(!done.1.contains("s@fe") && !done.1.contains("s%40fe"), "{}", done.1);
        }
    }
    let wants = |challenge| Rules { wants: Some((BASIC, challenge)), ..Rules::default() };
    for (challenge, user, words) in [
        ("Basic realm=x", "", "requires credentials; write USER:PASSWORD@"),
        ("Basic realm=x", "me:wr0ng@", "refused the user and password"),
        ("Negotiate", "", "requires an authentication scheme that imgmv does not support: Negotiate"),
    ] {
        for more in [&[][..], &["--src-insecure"]] {
            let proxy = Proxy::start(double.host(), wants(challenge));
            let done = digest("ALL_PROXY", &format!("http://{user}{}", proxy.address), more);
            ended(&done, 4, &[words, "ALL_PROXY", &proxy.address.to_string()]);
            assert!(!done.1.contains("wr0ng"), "{}", done.1);
            // One that is for TLS, or to find out whether the registry speaks it, and no more.
            assert!(proxy.lines().len() <= 2);
        }
    }
    // Of an answer to plain HTTP it cannot be told whose it is.
    double.faults().stumbles.push(crate::support::registry::Stumble::new("GET", "/manifests/", 403, 1));
    let proxy = Proxy::start(double.host(), Rules::default());
    let done = digest("ALL_PROXY", &proxy.address.to_string(), &["--src-insecure"]);
    ended(
        &done,
        4,
        &["registry.invalid", &format!("the proxy {} (ALL_PROXY), which may have refused it itself", proxy.address)],
    );
    // A proxy that refuses the tunnel is not asked again.
    let proxy = Proxy::start(double.host(), Rules { only_443: true, ..Rules::default() });
    let done = digest("HTTPS_PROXY", &proxy.address.to_string(), &[]);
    ended(&done, 6, &["refused a tunnel to registry.invalid (status 403)", "HTTPS_PROXY"]);
    assert_eq!(proxy.lines().len(), 1);
}

/// A SOCKS5 proxy for one host, which it sends to `to`.
fn socks(to: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let to = to.clone();
            std::thread::spawn(move || {
                let mut greeting = [0; 3];
                client.read_exact(&mut greeting)?;
                client.write_all(&[5, 0])?;
                let mut asked = vec![0; 7 + "registry.invalid".len()];
                client.read_exact(&mut asked)?;
                assert_eq!(&asked[5..21], b"registry.invalid");
                let far = TcpStream::connect(to)?;
                client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
                let (mut from, mut back) = (far.try_clone()?, client.try_clone()?);
                std::thread::spawn(move || std::io::copy(&mut from, &mut back));
                std::io::copy(&mut client, &mut &far)?;
                far.shutdown(std::net::Shutdown::Write)
            });
        }
    });
    address.to_string()
}

/// Before: a panic (exit status 101).
#[test]
fn socks_proxies_are_gone_through_and_dead_ones_are_named() {
    let double = registry();
    let proxy = format!("socks5h://{}", socks(double.host()));
    let done = digest("ALL_PROXY", &proxy, &["--src-insecure"]);
    assert_eq!(done.0, 0, "{}", done.1);
    for scheme in ["socks5h", "socks5", "socks4", "socks4a", "socks"] {
        let address = format!("127.0.0.1:{}", free_port());
        let target = "127.0.0.2:5000/team/app:1";
        // Loopback never goes through a proxy; a literal address elsewhere needs no lookup here.
        let target = if scheme.ends_with(['h', 'a']) { "registry.invalid:5000/a:1" } else { target };
        let target = target.replace("127.0.0.2", "192.0.2.1");
        let done = run(program(&["digest", &target, "--retry", "0"]).env("ALL_PROXY", format!("{scheme}://{address}")));
        ended(&done, 6, &["the proxy", &address, "ALL_PROXY", "refused"]);
    }
    // An HTTP server is not a SOCKS proxy.
    let done = digest("ALL_PROXY", &format!("socks5h://{}", double.host()), &["--retry", "0"]);
    ended(&done, 6, &["the proxy"]);
}

/// Before: taken for HTTP proxies, or a panic.
#[test]
fn what_is_not_a_proxy_is_a_usage_error_that_names_its_variable() {
    for text in ["ftp://me:s3cret@host", "http://:80", "http://host:99999", "http://", "a b", "socks6://h"] {
        for variable in ["ALL_PROXY", "HTTPS_PROXY", "https_proxy"] {
            let done = digest(variable, text, &[]);
            ended(&done, 2, &[&format!("the proxy in {variable} is invalid")]);
            assert!(!done.1.contains("s3cret"), "{}", done.1);
        }
    }
}

/// Before: the variable did not count, and the registry was asked directly.
#[test]
fn a_proxy_that_is_not_utf_8_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    for variable in ["HTTPS_PROXY", "ALL_PROXY", "https_proxy"] {
        let value = std::ffi::OsStr::from_bytes(b"http://me:p\xe9ss@127.0.0.1:9");
        let done = run(program(&["digest", "registry.invalid/team/app:1", "--retry", "0"]).env(variable, value));
        ended(&done, 2, &[variable, "is not UTF-8"]);
    }
}

/// Before: the advice was to do without TLS.
#[test]
fn an_answer_of_a_proxy_in_place_of_tls_names_the_proxy() {
    let portal = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(portal.local_addr().unwrap().to_string(), Rules::default());
    std::thread::spawn(move || {
        for mut client in portal.incoming().flatten() {
            let _ = client.read(&mut [0; 1024]).and_then(|_| client.write_all(b"<html>log in</html>"));
        }
    });
    let done = digest("HTTPS_PROXY", &format!("http://{}", proxy.address), &["--retry", "0"]);
    ended(&done, 6, &["through the proxy", &proxy.address.to_string(), "is not TLS"]);
    assert!(!done.1.contains("insecure"), "{}", done.1);
}
