//! A real sshd on a loopback port, with keys of its own, and a user who may log in.
#![allow(dead_code)]

use super::engines::folder;
use super::program::{Daemon, free_port, listens, peer};
use imgmv::internals::remote::builtin::Builtin;
use imgmv::internals::remote::{Host, OpenSsh, SshTarget};
use imgmv::{Cancel, Result};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Stdio},
};

/// How the host is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Client,
    Builtin,
}

impl Way {
    pub const BOTH: [Way; 2] = [Way::Client, Way::Builtin];
}

pub struct Sshd {
    pub folder: tempfile::TempDir,
    pub port: u16,
    daemon: Option<Daemon>,
}

impl Sshd {
    /// With `more` in its configuration and `environment` for what it runs. `None` where there is no sshd.
    pub fn start(more: &str, environment: &[(String, String)]) -> Option<Sshd> {
        Sshd::start_by(|_| Vec::new(), more, environment)
    }

    /// One where root may log in by `password`, by the system's own modules (PAM). In a view of the files of its own, so
    /// that nothing of this host's changes. `None` where that cannot be had.
    pub fn start_with_password(more: &str, password: &str) -> Option<Sshd> {
        peer("unshare").and(peer("perl"))?;
        let crypt = "print crypt($ARGV[0], q($6$imgmv$))";
        let hash = Command::new("perl").args(["-e", crypt, password]).output().unwrap();
        let hash = String::from_utf8(hash.stdout).unwrap();
        let shadow = format!("root:{}:19000:0:99999:7:::\n", hash.trim());
        let pam = "auth required pam_unix.so\naccount required pam_permit.so\nsession required pam_permit.so\n";
        let can = Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success());
        if !can || !std::path::Path::new("/etc/pam.d/sshd").exists() {
            println!("skipped: no right to bind files, or no PAM");
            return None;
        }
        let by = |folder: &std::path::Path| {
            let at = |name: &str| folder.join(name).display().to_string();
            fs::write(at("shadow"), &shadow).unwrap();
            fs::set_permissions(at("shadow"), Permissions::from_mode(0o600)).unwrap();
            fs::write(at("pam"), pam).unwrap();
            let mount =
                format!("mount --bind {} /etc/shadow && mount --bind {} /etc/pam.d/sshd", at("shadow"), at("pam"));
            ["unshare", "-m", "sh", "-c", &format!("{mount} && exec \"$@\""), "sshd"].map(str::to_owned).to_vec()
        };
        let sshd = Sshd::start_by(by, &format!("PermitRootLogin yes\n{more}"), &[])?;
        let _ = fs::remove_file(sshd.at("home/.ssh/id_ed25519"));
        Some(sshd)
    }

    /// One where the user `nobody` may log in, with a shell. In a view of the files of its own. `None` where that cannot
    /// be had.
    pub fn start_for_nobody(environment: &[(String, String)]) -> Option<Sshd> {
        peer("unshare")?;
        let can = Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success());
        if !can {
            println!("skipped: no right to bind files");
            return None;
        }
        let users = fs::read_to_string("/etc/passwd").unwrap();
        let is_other = |line: &&str| !line.starts_with("nobody:");
        let mut users: Vec<&str> = users.lines().filter(is_other).collect();
        users.push("nobody:x:65534:65534::/:/bin/sh\n");
        let by = |folder: &std::path::Path| {
            let file = folder.join("passwd");
            fs::write(&file, users.join("\n")).unwrap();
            fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
            let mount = format!("mount --bind {} /etc/passwd && exec \"$@\"", file.display());
            ["unshare", "-m", "sh", "-c", &mount, "sshd"].map(str::to_owned).to_vec()
        };
        Sshd::start_by(by, "", environment)
    }

    /// `by`: what stands before the server's own words.
    fn start_by(
        by: impl Fn(&std::path::Path) -> Vec<String>,
        more: &str,
        environment: &[(String, String)],
    ) -> Option<Sshd> {
        let server = ["/usr/sbin/sshd", "/usr/lib/ssh/sshd"].map(PathBuf::from).into_iter().find(|path| path.exists());
        let server = server.or_else(|| peer("sshd"))?;
        peer("ssh")?;
        // sshd wants it and makes it only as a service.
        let _ = fs::create_dir_all("/run/sshd");
        let mut sshd = Sshd { folder: folder(), port: 0, daemon: None };
        sshd.key("host_key", "");
        fs::create_dir_all(sshd.at("home/.ssh")).unwrap();
        fs::set_permissions(sshd.at("home/.ssh"), Permissions::from_mode(0o700)).unwrap();
        sshd.key("home/.ssh/id_ed25519", "");
        fs::copy(sshd.at("home/.ssh/id_ed25519.pub"), sshd.at("authorized_keys")).unwrap();
        for _ in 0..5 {
            sshd.port = free_port();
            sshd.configure(more, environment);
            let words = [by(sshd.folder.path()), vec![server.display().to_string()]].concat();
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]);
            command.args(["-D", "-E", &sshd.at("log"), "-f", &sshd.at("sshd_config")]);
            let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            sshd.daemon = Some(Daemon(child));
            if listens(sshd.port) {
                sshd.record(&sshd.host_key());
                return Some(sshd);
            }
        }
        panic!("sshd did not come up: {}", sshd.log());
    }

    pub fn at(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.at("log")).unwrap_or_default()
    }

    pub fn key(&self, name: &str, passphrase: &str) {
        let _ = fs::remove_file(self.at(name));
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-C", "", "-N", passphrase, "-f", &self.at(name)])
            .status();
        assert!(made.unwrap().success());
    }

    /// `ssh-ed25519 AAAA…`
    pub fn host_key(&self) -> String {
        fs::read_to_string(self.at("host_key.pub")).unwrap().trim().to_owned()
    }

    /// Makes `key` the only one that the user knows of this host; empty: none.
    pub fn record(&self, key: &str) {
        let line = if key.is_empty() { String::new() } else { format!("[127.0.0.1]:{} {key}\n", self.port) };
        fs::write(self.known_hosts(), line).unwrap();
    }

    pub fn known_hosts(&self) -> String {
        self.at("home/.ssh/known_hosts")
    }

    fn configure(&self, more: &str, environment: &[(String, String)]) {
        let mut set = vec![format!("HOME={}", self.at("home"))];
        set.extend(environment.iter().filter(|(key, _)| key != "HOME").map(|(key, value)| format!("{key}={value}")));
        let config = format!(
            "{more}\nPort {}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\n\
             StrictModes no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nUseDNS no\nMaxStartups 100\nMaxSessions 100\nLogLevel VERBOSE\n\
             SetEnv {}\n",
            self.port,
            self.at("host_key"),
            self.at("authorized_keys"),
            set.join(" "),
        );
        fs::write(self.at("sshd_config"), config).unwrap();
    }

    /// What the user says in `~/.ssh/config`, `more` of it for this host.
    pub fn client_config(&self, more: &str) {
        let config = format!(
            "Host node1\n  HostName 127.0.0.1\n  Port {}\nHost *\n  User root\n  IdentityFile {}\n  IdentitiesOnly yes\n  \
             UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n{more}\n",
            self.port,
            self.at("home/.ssh/id_ed25519"),
            self.known_hosts(),
        );
        fs::write(self.at("home/.ssh/config"), config).unwrap();
    }

    /// The host, as the user reaches it.
    pub fn host(&self, way: Way) -> Result<Box<dyn Host>> {
        self.host_with(way, "", &Cancel::default())
    }

    pub fn host_with(&self, way: Way, client_config: &str, cancel: &Cancel) -> Result<Box<dyn Host>> {
        self.client_config(client_config);
        let (target, _) = SshTarget::parse("ssh://node1").unwrap();
        let home = self.folder.path().join("home");
        Ok(match way {
            // No terminal is asked here, also where one is about.
            Way::Client => {
                let words = ["ssh", "-F", &self.at("home/.ssh/config"), "-o", "BatchMode=yes"].map(str::to_owned);
                Box::new(OpenSsh::new(&target, words.to_vec(), cancel)?)
            }
            Way::Builtin => Box::new(Builtin::connect(&target, &home, cancel)?),
        })
    }
}
