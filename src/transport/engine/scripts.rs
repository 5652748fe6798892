//! The scripts that load images on a host. Each one sweeps what a killed run left, reports the layers that the engine
//! has, pins them, loads the archive, and removes the pin. They are POSIX sh without backslashes, `!` and line feeds,
//! so that other login shells pass them on unchanged (as with the probe). The query is read from standard input and is
//! never executed.

use super::kind::{DetectedEngine, ImageStore, Loader};
use crate::error::Result;
use crate::image::Digest;
use crate::remote::quote;

pub(super) const BEGIN: &str = "imgmv-answer-begin";
pub(super) const END: &str = "imgmv-answer-end";

/// The age at which a run's pins and temporary names are stale, even if a process with its ID runs.
const STALE_AFTER_SECONDS: u64 = 24 * 60 * 60;

/// The repository of temporary names, which are removed at the end of a copy. `.invalid` is never a registry (RFC
/// 2606).
pub(super) const LOADING: &str = "imgmv.invalid/loading";

/// The identity of this run in the pins and names that it creates on a host.
#[derive(Debug, Clone)]
pub(super) struct RunId {
    /// Seconds since 1970.
    pub now: u64,
    /// Hexadecimal and unique to this run.
    pub id: String,
}

impl RunId {
    pub fn new() -> RunId {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let seed = format!("{now:?} {} {:?}", std::process::id(), std::thread::current().id());
        RunId { now: now.as_secs(), id: Digest::of(seed.as_bytes()).hex()[..16].to_owned() }
    }

    /// The digest of the pin in containerd: a small blob whose labels refer to the pinned content.
    pub fn pin(&self) -> Digest {
        Digest::of(format!("imgmv pin {}\n", self.id).as_bytes())
    }
}

/// Reads the query up to its dot. `alive PID`: whether a process with this ID runs.
const READ_QUERY: &str = r#"
PATH=$PATH:/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin:/snap/bin:/opt/bin; export PATH; set -f;
q=$(while read -r l; do case $l in .) break ;; esac; echo "$l"; done);
asked() { echo "$q" | sed -n "s/^$1 //p"; };
alive() { test "$1" -gt 0 2>/dev/null && { test -d "/proc/$1" || ps -p "$1" >/dev/null 2>&1; }; };
fresh() { test "$1" -gt @OLD@ 2>/dev/null; };
echo; echo imgmv-answer-begin; new=; h=; w=;
"#;

/// Reads the archive's compression, then loads it. At the end of the input (nothing to send, or the copy failed)
/// nothing is loaded.
const LOAD: &str = r#"
for z in zstd gzip; do command -v $z >/dev/null 2>&1 && echo "undo=$z"; done;
echo imgmv-answer-end;
read -r z || exit 0;
case $z in zstd|gzip) $z -dc | @LOAD@ ;; *) @LOAD@ ;; esac; r=$?; test $r -eq 0 || keep=1; exit $r
"#;

/// `c` is ctr for the engine's containerd; `$w` is the reason if it cannot be queried. The pin is one small blob whose
/// garbage-collection labels refer to all queried blobs, present and expected (docs/garbage-collection.md). It is
/// removed after a successful load. After an interrupted load it keeps the arrived blobs until the next run, which sets
/// its own pin first. A collection between the blob and its label deletes the blob, so the pin is then set again.
const CONTAINERD: &str = r#"
l=; if test -z "$w"; then l=$(c content ls 2>/dev/null) || w=denied; fi;
if test -n "$w"; then echo "why=$w"; else
  held() { { echo "$1" | sed "s/[^0-9a-z:].*//" | sort -u; asked blob | sort -u; } | sort | uniq -d; };
  sweep() {
    test -z "$y" || test -n "$keep" || c content rm @PIN@ >/dev/null 2>&1;
    test -z "$y" || l=$(c content ls 2>/dev/null);
    echo "$l" | grep containerd.io/gc.root=imgmv- | while read -r b x; do
      v=${x##*gc.root=imgmv-}; v=${v%%,*}; alive "${v##*-}" && fresh "${v%%-*}" || c content rm "$b" >/dev/null 2>&1 </dev/null;
    done;
  };
  keep=; y=; trap sweep EXIT; trap "exit 1" HUP INT TERM PIPE;
  pin() { echo "imgmv pin @ID@" | i content ingest --expected-digest @PIN@ "imgmv-@ID@" >/dev/null 2>&1 && c content label @PIN@ "$@" >/dev/null 2>&1; };
  h=$(held "$l"); b=$(asked blob);
  if test -n "$b" && test -n "$new"; then
    y=1; i=0; set -- "containerd.io/gc.root=imgmv-@NOW@-$$";
    for b in $b; do set -- "$@" "containerd.io/gc.ref.content.$i=$b"; i=$((i+1)); done;
    if pin "$@" || pin "$@"; then
      echo pinned=; h=$(held "$(c content ls -q 2>/dev/null)");
    fi;
  fi;
  test -z "$h" || echo "$h" | sed "s/^/held=/";
  test -z "$b" || { c snapshots ls 2>/dev/null | sed "s/[^0-9a-z:].*//" | sort -u; asked snapshot | sort -u; } | sort | uniq -d | sed "s/^/unpacked=/";
fi;
"#;

/// ctr's names: `check=` and a row of its table for each existing name.
const CTR_NAMES: &str = r#"
c images ls -q "name~=^imgmv.invalid/loading:" 2>/dev/null | while read -r b; do
  v=${b##*:}; fresh "${v%%-*}" || c images rm "$b" >/dev/null 2>&1 </dev/null;
done;
set --; for n in $(asked name | sed "s/ .*//"); do set -- "$@" 'name=="'"$n"'"'; done;
if test $# -gt 0; then k=$(c images check "$@" 2>/dev/null); echo "$k" | sed "s/^/check=/"; fi;
new=$(asked name | while read -r n i; do echo "$k" | grep -F "$n" | grep -F "$i" | grep -v incomplete | grep -q "complete (" || echo new; done);
test -n "$(asked name)" || new=1;
"#;

/// docker's and podman's names: `is=NAME` and the engine's answer for it.
const NAMES: &str = r#"
is=$(asked name | while read -r n i; do echo "$n $(d image inspect --format "@FORMAT@" "$n" 2>/dev/null </dev/null)"; done);
echo "$is" | sed "s/^/is=/";
new=$(asked name | while read -r n i; do echo "$is" | grep -F "$n $i" >/dev/null || echo new; done);
test -n "$(asked name)" || new=1;
"#;

/// docker's containerd, if docker reports which one it uses and the user may query it.
const DOCKERS_CTR: &str = r#"
d image ls --format "{{.Tag}}" imgmv.invalid/loading 2>/dev/null | while read -r v; do
  fresh "${v%%-*}" || d rmi "imgmv.invalid/loading:$v" >/dev/null 2>&1 </dev/null;
done;
a=$(d info --format "{{.Containerd.Address}} {{.Containerd.Namespaces.Containers}}" 2>/dev/null);
p=$(command -v ctr); s=; test -w "${a% *}" || s="sudo -n";
case $(d context inspect --format "{{.Endpoints.docker.Host}}" 2>/dev/null) in unix:*) ;; *) w=elsewhere ;; esac;
case $a in /*" "*) ;; *) w=untold ;; esac;
test -n "$p" || w=no-ctr;
test -n "$w" || echo "ctr=$s $p --address $a";
c() { $s "$p" --address "${a% *}" --namespace "${a##* }" "$@" </dev/null; };
i() { $s "$p" --address "${a% *}" --namespace "${a##* }" "$@"; };
"#;

/// Finds for each chain of diff IDs (`chain D…`) the image that shares most of it from the bottom: the number of
/// layers, its ID, and the number of its names. A named image is pinned by a second name, since docker deletes an image
/// with its last name.
const DOCKER: &str = r#"
tags() { d image ls --format "{{.Tag}}" imgmv.invalid/pin 2>/dev/null; };
tags | while read -r v; do u=${v#*-}; alive "${u%%-*}" && fresh "${v%%-*}" || d rmi "imgmv.invalid/pin:$v" >/dev/null 2>&1 </dev/null; done;
if command -v awk >/dev/null 2>&1; then
  ids=$(d image ls -aq --no-trunc 2>/dev/null | sort -u);
  h=$({ asked chain | sed "s/^/chain /"; echo ==; test -z "$ids" || echo "$ids" | xargs @DOCKER@ image inspect --format "{{.Id}} {{len .RepoTags}} {{range .RootFS.Layers}}{{.}} {{end}}" 2>/dev/null; } |
    awk '$1=="==" {f=1; next} f==0 {m++; n[m]=NF-1; for(i=2;i<=NF;i++) w[m,i-1]=$i; next}
      {for(k=1;k<=m;k++) {i=0; while(i<n[k] && $(i+3)==w[k,i+1]) i++; if(i>b[k] || i==b[k] && i>0 && t[k]==0) {b[k]=i; id[k]=$1; t[k]=$2}}}
      END {for(k=1;k<=m;k++) print b[k]+0, (id[k]=="" ? "-" : id[k]), t[k]+0}');
  if test -n "$new"; then
    trap 'tags | grep "^@NOW@-$$-" | while read -r v; do d rmi "imgmv.invalid/pin:$v" >/dev/null 2>&1 </dev/null; done' EXIT; trap "exit 1" HUP INT TERM PIPE;
  fi;
  j=0; test -z "$h" || echo "$h" | while read -r k i t; do
    j=$((j+1));
    if test -n "$new" && test "$t" -gt 0 2>/dev/null; then if d tag "$i" "imgmv.invalid/pin:@NOW@-$$-$j" >/dev/null 2>&1 </dev/null; then echo pinned=; else k=0; fi; fi;
    echo "prefix=$k";
  done;
else echo why=no-awk; fi;
"#;

/// podman's list of layers has the digest of every compression in which it knows a layer.
const PODMAN: &str = r#"
k=$(d info --format "{{.Store.GraphRoot}}/{{.Store.GraphDriverName}}-layers {{.Host.ServiceIsRemote}}" 2>/dev/null); f=${k% *}/layers.json;
command -v awk >/dev/null 2>&1 || w=no-awk;
case $k in /*" false") ;; *) w=elsewhere ;; esac;
if test -z "$w" && @SUDO@ test -e "$f"; then @SUDO@ test -r "$f" || w=denied; fi;
if test -n "$w"; then echo "why=$w"; else
  { asked blob | sed "s/$/,/"; echo "==,"; @SUDO@ test -e "$f" && @SUDO@ cat "$f"; } |
    awk 'BEGIN {RS=","} f==0 && index($0,"==") {f=1; next}
      match($0,/sha256:[0-9a-f]+/) {v=substr($0,RSTART,RLENGTH); if(f==0) w[v]=1; else if(index($0,"diff-digest") && v in w) print "held=" v}' | sort -u;
fi;
"#;

/// The script for `found`; `None` for a custom command, which only receives the archive.
pub(super) fn script(found: &DetectedEngine, run_id: &RunId) -> Result<Option<String>> {
    let argv: Vec<&str> = found.argv.iter().map(String::as_str).collect();
    let engine = quote(&argv)?;
    let load = found.load_command();
    let load = quote(&load.iter().map(String::as_str).collect::<Vec<_>>())?;
    let sudo = if found.argv.first().is_some_and(|word| word == "sudo") { "sudo -n" } else { "" };
    // Only the load command may read standard input, which has the query and the archive.
    let d = format!("d() {{ {engine} \"$@\" </dev/null; }};");
    let parts = match found.loader {
        Loader::Custom => return Ok(None),
        Loader::Ctr => {
            vec![define_ctr(&found.command(&[]))?, CTR_NAMES.into(), CONTAINERD.into()]
        }
        Loader::Nerdctl => {
            let mut ctr = found.command(&[]);
            let at = found.argv.len() - 1;
            ctr[at] = "ctr".to_owned();
            let find = "p=$(command -v ctr); test -n \"$p\" && echo \"ctr=@SUDO@ $p\" || w=no-ctr;".to_owned();
            vec![find, define_ctr(&ctr)?, CTR_NAMES.into(), CONTAINERD.into()]
        }
        Loader::Docker(ImageStore::Containerd) => {
            vec![d, NAMES.replace("@FORMAT@", "{{.Id}} {{json .RootFS}}"), DOCKERS_CTR.into(), CONTAINERD.into()]
        }
        Loader::Docker(ImageStore::Graph) => {
            vec![d, NAMES.replace("@FORMAT@", "{{.Id}}"), DOCKER.replace("@DOCKER@", &engine)]
        }
        Loader::Podman => vec![d, NAMES.replace("@FORMAT@", "sha256:{{.Id}}"), PODMAN.into()],
    };
    let text = format!("{READ_QUERY}{}{LOAD}", parts.concat());
    let text = text
        .replace("@LOAD@", &load)
        .replace("@SUDO@", sudo)
        .replace("@PIN@", &run_id.pin().to_string())
        .replace("@ID@", &run_id.id)
        .replace("@NOW@", &run_id.now.to_string())
        .replace("@OLD@", &run_id.now.saturating_sub(STALE_AFTER_SECONDS).to_string());
    Ok(Some(text.lines().map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned()))
}

fn define_ctr(argv: &[String]) -> Result<String> {
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    let argv = quote(&argv)?;
    Ok(format!("c() {{ {argv} \"$@\" </dev/null; }}; i() {{ {argv} \"$@\"; }};"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Platform;

    #[test]
    fn every_script_is_one_line_of_posix_sh_that_other_login_shells_hand_on() {
        let docker = |store| Loader::Docker(store);
        for loader in
            [Loader::Ctr, Loader::Nerdctl, Loader::Podman, docker(ImageStore::Graph), docker(ImageStore::Containerd)]
        {
            let argv = ["sudo", "-n", "/usr/bin/e"].map(str::to_owned).to_vec();
            let platform = Platform::new("linux", "amd64", None);
            let found = DetectedEngine { loader, argv, namespace: Some("k8s.io".into()), platform, version: None };
            let script = script(&found, &RunId::new()).unwrap().unwrap();
            assert!(!script.contains(['\\', '!', '\n', '`']), "{loader:?}: {script}");
            assert_eq!(script.matches('@').count(), script.matches("$@").count(), "{loader:?}: {script}");
            assert!(script.len() < 8000, "{loader:?}: {}", script.len());
            let checked = std::process::Command::new("sh").args(["-n", "-c", &script]).output().unwrap();
            assert!(checked.status.success(), "{loader:?}: {}", String::from_utf8_lossy(&checked.stderr));
        }
    }

    #[test]
    fn every_run_leaves_another_mark() {
        assert_ne!(RunId::new().id, RunId::new().id);
    }
}
