//! Self-signed certificates that are marked as authorities, and what is said of certificates that are refused (B3).

use super::*;
use crate::support::registry::Double;
use crate::support::web::Tls;
use std::path::PathBuf;

const KEY: &[u8] = include_bytes!("../../support/tls/self.key");
const SELF: (&[u8], &[u8]) = (include_bytes!("../../support/tls/self.crt"), KEY);
const TWIN: (&[u8], &[u8]) =
    (include_bytes!("../../support/tls/twin.crt"), include_bytes!("../../support/tls/twin.key"));
const ELSEWHERE: (&[u8], &[u8]) = (include_bytes!("../../support/tls/elsewhere.crt"), KEY);
const EXPIRED: (&[u8], &[u8]) = (include_bytes!("../../support/tls/expired.crt"), KEY);
const FUTURE: (&[u8], &[u8]) = (include_bytes!("../../support/tls/future.crt"), KEY);
const SIGNED: (&[u8], &[u8]) =
    (include_bytes!("../../support/tls/server.crt"), include_bytes!("../../support/tls/server.key"));

fn file(name: &str) -> String {
    format!("{}/tests/support/tls/{name}.crt", env!("CARGO_MANIFEST_DIR"))
}

/// Who names a certificate.
enum By {
    Nobody,
    Option(&'static str),
    CertsD(&'static str),
    System(&'static str),
}

/// Before: every one of the accepted was refused ("CaUsedAsEndEntity; name its authority with --src-ca or --dst-ca").
#[test]
fn a_certificate_is_believed_where_the_user_named_exactly_it() {
    for (number, (served, by, refused)) in [
        (SELF, By::Option("self"), None),
        (SELF, By::CertsD("self"), None),
        (SIGNED, By::Option("ca"), None),
        (SIGNED, By::System("ca"), None),
        (TWIN, By::Option("self"), Some("add exactly this certificate to that file")),
        (ELSEWHERE, By::Option("elsewhere"), Some("names other hosts")),
        (EXPIRED, By::Option("expired"), Some("has expired")),
        (FUTURE, By::Option("future"), Some("is not valid yet")),
        (SELF, By::System("self"), Some("is marked as an authority; to trust it, name exactly this")),
        (SELF, By::Nobody, Some("name exactly this certificate with --src-ca")),
        (SIGNED, By::Nobody, Some("name its authority with --src-ca")),
        (SIGNED, By::Option("self"), Some("add the authority that signed it to that file")),
    ]
    .into_iter()
    .enumerate()
    {
        let double = Double::start_tls(Tls::Own(served.0, served.1));
        double.image("team/app", "1", &[b"layer"]);
        let home = tempfile::tempdir().unwrap();
        let image = format!("{}/team/app:1", double.host());
        let mut program = program(&["digest", &image, "--retry", "0"]);
        program.env("XDG_CONFIG_HOME", home.path());
        match by {
            By::Nobody => {}
            By::Option(name) => drop(program.args(["--src-ca", &file(name)])),
            By::System(name) => drop(program.env("SSL_CERT_FILE", file(name))),
            By::CertsD(name) => {
                let dir: PathBuf = home.path().join("containers/certs.d").join(double.host());
                std::fs::create_dir_all(&dir).unwrap();
                std::fs::copy(file(name), dir.join("ca.crt")).unwrap();
            }
        }
        let done = run(&mut program);
        match refused {
            None => assert_eq!(done.0, 0, "{number}: {}", done.1),
            Some(words) => {
                ended(&done, 6, &[words, "the certificate of 127.0.0.1"]);
                // What the user did is not what is advised.
                let given = matches!(by, By::Option(_));
                assert!(!given || !done.1.contains("--src-ca"), "{number}: {}", done.1);
            }
        }
    }
}

/// The same at the other side, and at `login`.
#[test]
fn pushes_and_logins_believe_it_too() {
    let double = Double::start_tls(Tls::Own(SELF.0, SELF.1));
    let layout = format!("oci:{}/fixtures/layout:1", env!("CARGO_MANIFEST_DIR"));
    let done = run(&mut program(&["copy", &layout, &format!("{}/app:1", double.host()), "--dst-ca", &file("self")]));
    assert_eq!(done.0, 0, "{}", done.1);
    let auth = tempfile::tempdir().unwrap().path().join("auth.json");
    let auth = auth.display().to_string();
    let args = ["login", &double.host(), "-u", "me", "--ca", &file("self"), "--authfile", &auth];
    let done = run(program(&args).env("IMGMV_PASSWORD", "pw"));
    assert_eq!(done.0, 0, "{}", done.1);
}
