//! Detection of the engine on a host, in one round trip.

use super::kind::{DetectedEngine, Engine, ImageStore, Loader};
use crate::error::{Error, Result};
use crate::image::Platform;
use crate::remote::{Exit, Host, capture};

const BEGIN: &str = "imgmv-probe-begin";
const END: &str = "imgmv-probe-end";

/// Calls each engine of `$1` in turn, as the user and with sudo, and stops at the first that answers. The script is
/// POSIX sh, joined to one line without single quotes, backslashes and exclamation marks, so that other login shells
/// (csh, fish) pass it on unchanged. A program on the extra paths is called by its full path. ctr before 2 waits 10 s
/// for a missing socket, so the script checks that the socket exists.
const SCRIPT: &str = r#"
PATH=$PATH:/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin:/snap/bin:/opt/bin; export PATH;
echo; echo imgmv-probe-begin; echo "machine=$(uname -m)"; echo "namespace=$CONTAINERD_NAMESPACE"; echo "address=$CONTAINERD_ADDRESS";
t=; if command -v timeout >/dev/null 2>&1; then t="timeout 20"; fi;
s=; if test "$(id -u)" -gt 0 && command -v sudo >/dev/null 2>&1 && sudo -n true >/dev/null 2>&1 </dev/null; then s="sudo -n"; fi;
answer() {
  e=$1; shift;
  case $e in
    docker) $t "$@" version --format "{{.Server.Version}}" && $t "$@" info --format "{{.OSType}}/{{.Architecture}} {{.Driver}} {{.DriverStatus}}" ;;
    podman) $t "$@" info --format "{{.Version.Version}} {{.Host.Arch}}" ;;
    ctr) a=${CONTAINERD_ADDRESS:-/run/containerd/containerd.sock}; a=${a#unix://}; d=${a%/*}; x=;
      if test -d "$d"; then if test -x "$d"; then test -S "$a" || x=1; fi; else x=1; fi;
      if test -n "$x"; then echo "ctr: no such file: $a"; return 1; fi;
      $t "$@" --connect-timeout 3s version ;;
    *) $t "$@" version ;;
  esac;
};
try() {
  if o=$(answer "$@" 2>&1 </dev/null); then
    echo "engine=$1"; shift; echo "command=$*"; echo "$o" | head -n 30 | sed "s/^/said=/";
    case $e in nerdctl) echo namespaces=$("$@" namespace ls -q 2>/dev/null </dev/null) ;; ctr) echo namespaces=$("$@" namespaces ls -q 2>/dev/null </dev/null) ;; esac;
    return 0;
  fi;
  echo "dead=$1 $(echo "$o" | tail -n 1 | cut -c 1-300)"; return 1;
};
for e in $1; do
  p=$(command -v "$e" 2>/dev/null) || continue;
  try "$e" "$p" && break;
  if test -n "$s"; then try "$e" $s "$p" && break; fi;
done;
echo imgmv-probe-end
"#;

/// Finds the first engine of `wanted` that answers on `host`. `remote_command` replaces the engine.
///
/// `namespace` is containerd's; the default is the remote environment's, else kubelet's if it exists, else the
/// engine's. Fails with `RemoteHost` if no engine answers, with the reason for each; with `Usage` for an invalid
/// namespace.
pub fn detect(
    host: &dyn Host,
    wanted: &[Engine],
    namespace: Option<&str>,
    remote_command: Option<&str>,
) -> Result<DetectedEngine> {
    Ok(detect_with_address(host, wanted, namespace, remote_command)?.0)
}

/// As [`detect`], and the socket that `CONTAINERD_ADDRESS` names on the host.
pub fn detect_with_address(
    host: &dyn Host,
    wanted: &[Engine],
    namespace: Option<&str>,
    remote_command: Option<&str>,
) -> Result<(DetectedEngine, Option<String>)> {
    if let Some(namespace) = namespace
        && !is_namespace(namespace)
    {
        return Err(Error::usage(format!(
            "{namespace:?} is not a containerd namespace: expected letters and digits, separated by single . _ or -"
        )));
    }
    let engines: Vec<&str> = match remote_command {
        Some(_) => Vec::new(),
        None => wanted.iter().map(|engine| engine.name()).collect(),
    };
    let script = SCRIPT.trim().replace('\n', " ");
    let answer = capture(host, &["sh", "-c", &script, "imgmv", &engines.join(" ")])?;
    let Some(answer) = ProbeAnswer::parse(&answer.stdout) else {
        return Err(probe_failed(host.name(), &answer.exit));
    };
    let address = answer.environment_address.clone();
    Ok((answer.into_engine(host.name(), wanted, namespace, remote_command)?, address))
}

/// The error of a probe without an answer. An ssh client that cannot log in exits with status 255 and prints the
/// reason.
fn probe_failed(host: &str, exit: &Exit) -> Error {
    let end = exit.describe();
    let stderr = exit.stderr.to_lowercase();
    let any = |signs: &[&str]| exit.status == Some(255) && signs.iter().any(|sign| stderr.contains(sign));
    if any(&["host key verification failed", "remote host identification has changed"]) {
        let advice = "the host key is unknown or has changed; connect once with ssh and compare the key";
        return Error::denied(format!("{host}: ssh {end}; {advice}"));
    }
    if any(&["permission denied", "too many authentication failures"]) {
        return Error::denied(format!("{host}: ssh {end}; check that you can log in without a password"));
    }
    if exit.status == Some(255) {
        return Error::remote_host(format!("{host}: ssh {end}"));
    }
    Error::remote_host(format!("{host}: the remote shell did not run the probe, which {end}"))
}

/// Whether `text` is a containerd identifier (pkg/identifiers): letters and digits, separated by single `.`, `_` or
/// `-`.
fn is_namespace(text: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_alphanumeric();
    let parts = text.split(['.', '_', '-']);
    text.len() <= 76 && parts.into_iter().all(|part| !part.is_empty() && part.bytes().all(alnum))
}

/// The script's answer, not yet validated.
#[derive(Debug, Default, PartialEq, Eq)]
struct ProbeAnswer {
    machine: String,
    environment_namespace: Option<String>,
    environment_address: Option<String>,
    engine: Option<Engine>,
    command: Vec<String>,
    output: Vec<String>,
    namespaces: Vec<String>,
    failed: Vec<(String, String)>,
}

impl ProbeAnswer {
    /// Parses the lines between the markers; output of the login shell before and after is ignored.
    fn parse(text: &str) -> Option<ProbeAnswer> {
        let (_, after) = text.split_once(&format!("{BEGIN}\n"))?;
        let (lines, _) = after.split_once(&format!("{END}\n"))?;
        let mut answer = ProbeAnswer::default();
        for (key, value) in lines.lines().filter_map(|line| line.split_once('=')) {
            let words = || value.split_whitespace().map(str::to_owned).collect();
            match key {
                "machine" => answer.machine = value.to_owned(),
                "namespace" => answer.environment_namespace = Some(value.to_owned()).filter(|ns| is_namespace(ns)),
                "address" => answer.environment_address = Some(value.to_owned()).filter(|address| !address.is_empty()),
                "engine" => answer.engine = value.parse().ok(),
                "command" => answer.command = words(),
                "said" => answer.output.push(value.to_owned()),
                "namespaces" => answer.namespaces = words(),
                "dead" => {
                    let (engine, why) = value.split_once(' ').unwrap_or((value, ""));
                    answer.failed.push((engine.to_owned(), why.trim().to_owned()));
                }
                _ => {}
            }
        }
        Some(answer)
    }

    fn into_engine(
        self,
        host: &str,
        wanted: &[Engine],
        namespace: Option<&str>,
        remote_command: Option<&str>,
    ) -> Result<DetectedEngine> {
        let platform = Platform::new("linux", &self.machine, None);
        if let Some(command) = remote_command {
            let argv = vec!["sh".to_owned(), "-c".to_owned(), command.to_owned()];
            return Ok(DetectedEngine { loader: Loader::Custom, argv, namespace: None, platform, version: None });
        }
        let (Some(engine), false) = (self.engine, self.command.is_empty()) else {
            return Err(self.no_engine(host, wanted));
        };
        let version = self.version(engine);
        let (loader, platform) = match engine {
            Engine::Docker => self.docker(platform),
            Engine::Nerdctl => (Loader::Nerdctl, platform),
            Engine::Ctr => (Loader::Ctr, platform),
            Engine::Podman => (Loader::Podman, platform),
        };
        let kubelet = || self.namespaces.iter().find(|ns| *ns == "k8s.io").cloned();
        let namespace = match engine {
            Engine::Nerdctl | Engine::Ctr => {
                namespace.map(str::to_owned).or_else(|| self.environment_namespace.clone()).or_else(kubelet)
            }
            Engine::Docker | Engine::Podman => None,
        };
        Ok(DetectedEngine { loader, argv: self.command, namespace, platform, version })
    }

    /// Parses docker's second line: `linux/x86_64 overlay2 [[Backing Filesystem extfs] …]`. The platform is the
    /// daemon's, which may run on another host (`DOCKER_HOST`).
    fn docker(&self, machine: Platform) -> (Loader, Platform) {
        let line = self.output.iter().find(|line| line.starts_with("linux/") || line.starts_with("windows/"));
        let Some(line) = line else {
            return (Loader::Docker(ImageStore::Graph), machine);
        };
        let platform = line.split_whitespace().next().and_then(|platform| platform.split_once('/'));
        let platform = platform.map_or(machine, |(os, architecture)| Platform::new(os, architecture, None));
        let store = match line.contains("io.containerd.snapshotter") {
            true => ImageStore::Containerd,
            false => ImageStore::Graph,
        };
        (Loader::Docker(store), platform)
    }

    /// docker and podman print the version first; ctr and nerdctl print `Version: 1.6.20`, first the client's, then the
    /// server's.
    fn version(&self, engine: Engine) -> Option<String> {
        let version = |word: &str| {
            let word = word.trim_start_matches('v');
            let fits = |c: char| c.is_ascii_alphanumeric() || "._+~-".contains(c);
            (word.starts_with(|c: char| c.is_ascii_digit()) && word.chars().all(fits)).then(|| word.to_owned())
        };
        let first = |line: &String| version(line.split_whitespace().next()?);
        let labelled = |line: &String| version(line.trim().strip_prefix("Version:")?.trim());
        match engine {
            Engine::Docker | Engine::Podman => self.output.iter().find_map(first),
            Engine::Ctr | Engine::Nerdctl => self.output.iter().rev().find_map(labelled),
        }
    }

    fn no_engine(&self, host: &str, wanted: &[Engine]) -> Error {
        let names: Vec<&str> = wanted.iter().map(|engine| engine.name()).collect();
        let names = match names.split_last() {
            Some((last, [])) => (*last).to_owned(),
            Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
            None => "engine".to_owned(),
        };
        let mut failed: Vec<String> = Vec::new();
        for (engine, why) in &self.failed {
            let reason = describe_failure(engine, why);
            if !failed.contains(&reason) {
                failed.push(reason);
            }
        }
        let found = match failed.is_empty() {
            true => String::new(),
            false => format!(" ({})", failed.join("; ")),
        };
        Error::remote_host(format!(
            "{host}: no working engine found; tried {names}{found}; name one with --engine or --remote-command"
        ))
    }
}

fn describe_failure(engine: &str, why: &str) -> String {
    let lower = why.to_lowercase();
    let any = |signs: &[&str]| signs.iter().any(|sign| lower.contains(sign));
    if any(&["permission denied", "must be root", "rootless"]) {
        format!("{engine}: permission denied, and sudo without a password is not available")
    } else if any(&["cannot connect", "connection refused", "no such file", "failed to dial", "is the docker daemon"]) {
        format!("{engine}: the daemon is not running")
    } else if why.is_empty() {
        format!("{engine}: no answer")
    } else {
        format!("{engine}: {}", why.trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn found(text: &str, namespace: Option<&str>) -> Result<DetectedEngine> {
        let text = format!("Welcome!\nengine=podman\n\n{BEGIN}\n{text}\n{END}\nbye\n");
        ProbeAnswer::parse(&text).unwrap().into_engine("web1", &Engine::ALL, namespace, None)
    }

    #[test]
    fn the_script_survives_shells_that_are_none() {
        let line = SCRIPT.trim().replace('\n', " ");
        assert!(!line.contains(['\'', '\\', '!', '\n', '`']), "{line}");
        assert!(line.len() < 4000);
    }

    #[test]
    fn docker_tells_version_platform_and_store() {
        let graph = "machine=x86_64\nengine=docker\ncommand=sudo -n /usr/bin/docker\nsaid=20.10.24+dfsg1\n\
                     said=linux/aarch64 overlay2 [[Backing Filesystem extfs]]";
        let docker = found(graph, Some("ignored")).unwrap();
        assert_eq!(docker.loader, Loader::Docker(ImageStore::Graph));
        assert_eq!(docker.argv, ["sudo", "-n", "/usr/bin/docker"]);
        assert_eq!((docker.platform.to_string().as_str(), docker.namespace.as_ref()), ("linux/arm64", None));
        assert_eq!(docker.version.as_deref(), Some("20.10.24+dfsg1"));
        let store = graph.replace("[[Backing", "[[driver-type io.containerd.snapshotter.v1] [Backing");
        assert_eq!(found(&store, None).unwrap().loader, Loader::Docker(ImageStore::Containerd));
    }

    #[test]
    fn kubelets_namespace_is_taken_where_nobody_says_otherwise() {
        let text = "machine=x86_64\nnamespace=\nengine=ctr\ncommand=/usr/bin/ctr\nsaid=Client:\nsaid=  Version:  1.7\n\
                    said=Server:\nsaid=  Version:  1.6.20~ds1\nnamespaces=default k8s.io moby";
        let ctr = found(text, None).unwrap();
        assert_eq!((ctr.namespace.as_deref(), ctr.version.as_deref()), (Some("k8s.io"), Some("1.6.20~ds1")));
        assert_eq!(found(text, Some("mine")).unwrap().namespace.as_deref(), Some("mine"));
        let set = text.replace("namespace=\n", "namespace=theirs\n");
        assert_eq!(found(&set, None).unwrap().namespace.as_deref(), Some("theirs"));
        assert_eq!(found(&text.replace("k8s.io ", ""), None).unwrap().namespace, None);
    }

    #[test]
    fn where_nothing_answers_the_dead_are_named() {
        let error = found("machine=x86_64", None).unwrap_err();
        assert_eq!(error.kind(), Kind::RemoteHost);
        assert_eq!(
            error.to_string(),
            "web1: no working engine found; tried nerdctl, docker, ctr and podman; name one with --engine or \
             --remote-command"
        );
        let text = "dead=docker Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?\n\
                    dead=docker Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?\n\
                    dead=ctr ctr: failed to dial: permission denied\ndead=podman";
        assert_eq!(
            found(text, None).unwrap_err().to_string(),
            "web1: no working engine found; tried nerdctl, docker, ctr and podman (docker: the daemon is not running; \
             ctr: permission denied, and sudo without a password is not available; podman: no answer); name one with \
             --engine or --remote-command"
        );
    }

    #[test]
    fn an_answer_without_its_marks_is_none() {
        assert_eq!(ProbeAnswer::parse("machine=x86_64\nengine=docker\n"), None);
        assert_eq!(ProbeAnswer::parse(&format!("{BEGIN}\nmachine=x86_64\n")), None);
    }

    #[test]
    fn a_namespace_is_never_an_option_or_a_path() {
        for text in ["-n", "a/b", "", "..", "a b", &"a".repeat(77)] {
            assert!(!is_namespace(text), "{text}");
        }
        assert!(is_namespace("k8s.io") && is_namespace("my-team_2"));
    }
}
