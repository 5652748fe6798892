//! Which engine answers on a host: one question, one round trip.

use super::kind::{Engine, Found, ImageStore, Loader};
use crate::error::{Error, Result};
use crate::image::Platform;
use crate::remote::{Exit, Host, ask};

const BEGIN: &str = "imgmv-probe-begin";
const END: &str = "imgmv-probe-end";

/// Asks each engine of `$1` in turn whether it answers, as the user and by sudo, and stops at the first that does.
/// Plain POSIX sh; joined to one line, without quotes, backslashes and exclamation marks, so that a login shell which
/// is none (csh, fish) hands it on unharmed. What is found on extra paths is called by its full path. ctr before 2 waits
/// 10 s for a socket that is not there, so it is looked whether there is one.
const SCRIPT: &str = r#"
PATH=$PATH:/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin:/snap/bin:/opt/bin; export PATH;
echo; echo imgmv-probe-begin; echo "machine=$(uname -m)"; echo "namespace=$CONTAINERD_NAMESPACE";
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

/// The first of `wanted` that answers on `host`; with `remote_command`, that command and no engine.
///
/// `namespace` is containerd's; without it that of the environment there, kubelet's where it exists, or the engine's
/// own default. `RemoteHost` where nothing answers, with what was found dead; `Usage` for a namespace that is none.
pub fn find(
    host: &dyn Host,
    wanted: &[Engine],
    namespace: Option<&str>,
    remote_command: Option<&str>,
) -> Result<Found> {
    if let Some(namespace) = namespace
        && !is_namespace(namespace)
    {
        return Err(Error::usage(format!(
            "{namespace:?} is not a containerd namespace: expected letters, digits and . _ - between"
        )));
    }
    let engines: Vec<&str> = match remote_command {
        Some(_) => Vec::new(),
        None => wanted.iter().map(|engine| engine.name()).collect(),
    };
    let script = SCRIPT.trim().replace('\n', " ");
    let answer = ask(host, &["sh", "-c", &script, "imgmv", &engines.join(" ")])?;
    let Some(said) = Said::read(&answer.stdout) else {
        return Err(no_answer(host.name(), &answer.exit));
    };
    said.found(host.name(), wanted, namespace, remote_command)
}

/// An ssh client says with status 255 that it could not get in, and why in words of its own.
fn no_answer(host: &str, exit: &Exit) -> Error {
    let end = exit.describe();
    let words = exit.stderr.to_lowercase();
    let any = |signs: &[&str]| exit.status == Some(255) && signs.iter().any(|sign| words.contains(sign));
    if any(&["host key verification failed", "remote host identification has changed"]) {
        let advice = "its host key is not the known one; connect by hand once, and compare the key, to make it known";
        return Error::denied(format!("{host}: ssh {end}; {advice}"));
    }
    if any(&["permission denied", "too many authentication failures"]) {
        return Error::denied(format!("{host}: ssh {end}; may you log in there without a password?"));
    }
    if exit.status == Some(255) {
        return Error::remote_host(format!("{host}: ssh {end}"));
    }
    Error::remote_host(format!("{host}: no shell answers there: the command {end}"))
}

/// containerd's identifiers (pkg/identifiers): parts of letters and digits, parted by one `.`, `_` or `-`.
fn is_namespace(text: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_alphanumeric();
    let parts = text.split(['.', '_', '-']);
    text.len() <= 76 && parts.into_iter().all(|part| !part.is_empty() && part.bytes().all(alnum))
}

/// The script's answer, nothing in it believed yet.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    machine: String,
    environment_namespace: Option<String>,
    engine: Option<Engine>,
    command: Vec<String>,
    words: Vec<String>,
    namespaces: Vec<String>,
    dead: Vec<(String, String)>,
}

impl Said {
    /// What stands between the marks; whatever a login prints before and after is passed over.
    fn read(text: &str) -> Option<Said> {
        let (_, after) = text.split_once(&format!("{BEGIN}\n"))?;
        let (lines, _) = after.split_once(&format!("{END}\n"))?;
        let mut said = Said::default();
        for (key, value) in lines.lines().filter_map(|line| line.split_once('=')) {
            let words = || value.split_whitespace().map(str::to_owned).collect();
            match key {
                "machine" => said.machine = value.to_owned(),
                "namespace" => said.environment_namespace = Some(value.to_owned()).filter(|ns| is_namespace(ns)),
                "engine" => said.engine = value.parse().ok(),
                "command" => said.command = words(),
                "said" => said.words.push(value.to_owned()),
                "namespaces" => said.namespaces = words(),
                "dead" => {
                    let (engine, why) = value.split_once(' ').unwrap_or((value, ""));
                    said.dead.push((engine.to_owned(), why.trim().to_owned()));
                }
                _ => {}
            }
        }
        Some(said)
    }

    fn found(
        self,
        host: &str,
        wanted: &[Engine],
        namespace: Option<&str>,
        remote_command: Option<&str>,
    ) -> Result<Found> {
        let platform = Platform::new("linux", &self.machine, None);
        if let Some(command) = remote_command {
            let words = vec!["sh".to_owned(), "-c".to_owned(), command.to_owned()];
            return Ok(Found { loader: Loader::Custom, words, namespace: None, platform, version: None });
        }
        let (Some(engine), false) = (self.engine, self.command.is_empty()) else {
            return Err(self.nothing(host, wanted));
        };
        let version = self.version(engine);
        let (loader, platform) = match engine {
            Engine::Docker => self.docker(platform),
            Engine::Nerdctl => (Loader::Nerdctl, platform),
            Engine::Ctr => (Loader::Ctr, platform),
            Engine::Podman => (Loader::Podman, platform),
        };
        let kubelets = || self.namespaces.iter().find(|ns| *ns == "k8s.io").cloned();
        let namespace = match engine {
            Engine::Nerdctl | Engine::Ctr => {
                namespace.map(str::to_owned).or_else(|| self.environment_namespace.clone()).or_else(kubelets)
            }
            Engine::Docker | Engine::Podman => None,
        };
        Ok(Found { loader, words: self.command, namespace, platform, version })
    }

    /// Its second line: `linux/x86_64 overlay2 [[Backing Filesystem extfs] …]`. The daemon may be on another host yet
    /// (`DOCKER_HOST`), so its own word on the platform counts.
    fn docker(&self, machine: Platform) -> (Loader, Platform) {
        let line = self.words.iter().find(|line| line.starts_with("linux/") || line.starts_with("windows/"));
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

    /// docker and podman say it first; ctr and nerdctl say `Version: 1.6.20`, the client's before the server's.
    fn version(&self, engine: Engine) -> Option<String> {
        let version = |word: &str| {
            let word = word.trim_start_matches('v');
            let fits = |c: char| c.is_ascii_alphanumeric() || "._+~-".contains(c);
            (word.starts_with(|c: char| c.is_ascii_digit()) && word.chars().all(fits)).then(|| word.to_owned())
        };
        let first = |line: &String| version(line.split_whitespace().next()?);
        let labelled = |line: &String| version(line.trim().strip_prefix("Version:")?.trim());
        match engine {
            Engine::Docker | Engine::Podman => self.words.iter().find_map(first),
            Engine::Ctr | Engine::Nerdctl => self.words.iter().rev().find_map(labelled),
        }
    }

    fn nothing(&self, host: &str, wanted: &[Engine]) -> Error {
        let names: Vec<&str> = wanted.iter().map(|engine| engine.name()).collect();
        let names = match names.split_last() {
            Some((last, [])) => (*last).to_owned(),
            Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
            None => "engine".to_owned(),
        };
        let mut dead: Vec<String> = Vec::new();
        for (engine, why) in &self.dead {
            let told = ailment(engine, why);
            if !dead.contains(&told) {
                dead.push(told);
            }
        }
        let found = match dead.is_empty() {
            true => String::new(),
            false => format!(" (found: {})", dead.join("; ")),
        };
        Error::remote_host(format!(
            "{host}: no {names} answers there{found}; name one with --engine or --remote-command"
        ))
    }
}

fn ailment(engine: &str, why: &str) -> String {
    let lower = why.to_lowercase();
    let any = |signs: &[&str]| signs.iter().any(|sign| lower.contains(sign));
    if any(&["permission denied", "must be root", "rootless"]) {
        format!("{engine} without the right to use it, nor sudo without a password")
    } else if any(&["cannot connect", "connection refused", "no such file", "failed to dial", "is the docker daemon"]) {
        format!("{engine} without a daemon")
    } else if why.is_empty() {
        format!("{engine}, which does not answer")
    } else {
        format!("{engine}, which says: {}", why.trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn found(text: &str, namespace: Option<&str>) -> Result<Found> {
        let text = format!("Welcome!\nengine=podman\n\n{BEGIN}\n{text}\n{END}\nbye\n");
        Said::read(&text).unwrap().found("web1", &Engine::ALL, namespace, None)
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
        assert_eq!(docker.words, ["sudo", "-n", "/usr/bin/docker"]);
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
            "web1: no nerdctl, docker, ctr or podman answers there; name one with --engine or --remote-command"
        );
        let text = "dead=docker Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?\n\
                    dead=docker Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?\n\
                    dead=ctr ctr: failed to dial: permission denied\ndead=podman";
        assert_eq!(
            found(text, None).unwrap_err().to_string(),
            "web1: no nerdctl, docker, ctr or podman answers there (found: docker without a daemon; ctr without the \
             right to use it, nor sudo without a password; podman, which does not answer); name one with --engine or \
             --remote-command"
        );
    }

    #[test]
    fn an_answer_without_its_marks_is_none() {
        assert_eq!(Said::read("machine=x86_64\nengine=docker\n"), None);
        assert_eq!(Said::read(&format!("{BEGIN}\nmachine=x86_64\n")), None);
    }

    #[test]
    fn a_namespace_is_never_an_option_or_a_path() {
        for text in ["-n", "a/b", "", "..", "a b", &"a".repeat(77)] {
            assert!(!is_namespace(text), "{text}");
        }
        assert!(is_namespace("k8s.io") && is_namespace("my-team_2"));
    }
}
