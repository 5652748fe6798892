//! Configuration files and variables, as users and other programs leave them. The first line names the kind.

#![no_main]

use imgmv::Reference;
use imgmv::internals::registry::configuration::{ConfigurationKind, Settings, read};
use imgmv::internals::remote::builtin::{algorithms_in, host_and_port_in};
use libfuzzer_sys::fuzz_target;

/// Addresses, since docker's networks make it look names up.
const HOSTS: [&str; 3] = ["10.1.2.3:5000", "[fd00::1]:5000", "10.1.2.3"];
const REPOSITORY: &str = "team/app";

fuzz_target!(|text: &str| {
    let Some((kind, text)) = text.split_once('\n') else { return };
    let kind = match kind {
        "config.json" | "auth.json" => ConfigurationKind::Credentials,
        "registries.conf" => ConfigurationKind::RegistriesConf,
        "hosts.toml" => ConfigurationKind::HostsToml,
        "daemon.json" => ConfigurationKind::DaemonJson,
        "proxy" => ConfigurationKind::Proxy,
        "ssh" => return ssh(text),
        "known_hosts" => return assert!(algorithms_in(text, "node1.lan").contains("ssh-ed25519")),
        _ => return,
    };
    for host in HOSTS {
        match read(kind, text, host, REPOSITORY) {
            Ok(settings) => check(&settings, text),
            // An error is one line, and shows nothing of a file that may hold a password.
            Err(error) => {
                let error = error.to_string();
                assert!(error.len() < 400 && !error.contains('\n'), "{error}");
                assert!(!(text.contains("s3cret") && error.contains("s3cret")), "{error}");
            }
        }
    }
});

fn check(settings: &Settings, text: &str) {
    for mirror in &settings.mirrors {
        let named = format!("{}/{}", mirror.host, mirror.repository).parse::<Reference>();
        assert!(named.is_ok() && mirror.repository.ends_with("app"), "{mirror:?}");
        assert!(mirror.root.bytes().all(|byte| byte.is_ascii_graphic()), "{mirror:?}");
        assert!(mirror.root.split('/').all(|part| part != ".."), "{mirror:?}");
    }
    assert!(settings.mirrors.len() <= text.len());
    assert!(settings.user.as_ref().is_none_or(|user| user.len() <= text.len()));
    // HOST:PORT and the variable, without what stands before the @.
    assert!(settings.proxy.as_ref().is_none_or(|proxy| !proxy.contains('@')), "{:?}", settings.proxy);
}

fn ssh(text: &str) {
    for host in ["node1", "10.1.2.3"] {
        if let Ok((name, _)) = host_and_port_in(text, host) {
            assert!(name.len() <= (text.len() + 1) * (host.len() + 1));
        }
    }
}
