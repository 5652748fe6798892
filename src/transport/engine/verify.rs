//! What an engine has after a load. Its exit status proves nothing (docker's containerd store says 0 after `Error
//! unpacking image`, ctr after an import of nothing), so it is asked for what it holds under each name.

use super::kind::{Found, ImageStore, Loader};
use super::session;
use crate::error::{Error, Result};
use crate::image::{Digest, Name};
use crate::remote::{Answer, Host, ask};

/// Names in one question: a command line is bounded.
const AT_ONCE: usize = 40;

/// What a name is to point at.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    /// Spelled in full.
    pub name: Name,
    /// Of the manifest or index; none where the engine makes its own (an archive that passed in docker's old form).
    pub root: Option<Digest>,
    /// Of the image for the host's platform; none for what is no image.
    pub config: Option<Digest>,
}

/// By which digest the engine knows the image that `one` is to be; none where only it knows that.
pub(super) fn id(found: &Found, one: &Expected) -> Option<Digest> {
    match found.loader {
        Loader::Docker(ImageStore::Graph) | Loader::Podman => one.config,
        _ => one.root,
    }
}

/// Whether `answer`, which came before anything was sent, has the right image under `one`'s name, whole.
pub(super) fn is_there(found: &Found, one: &Expected, answer: &session::Answer) -> bool {
    if id(found, one).is_none() {
        return false;
    }
    match found.loader {
        Loader::Ctr | Loader::Nerdctl => checked(one, &answer.checked, "").is_ok(),
        _ => {
            let said = answer.named.iter().find(|(name, _)| name == one.name.as_str());
            said.is_some_and(|(_, said)| inspected(found.loader, one, said.trim()).is_ok())
        }
    }
}

/// Asks `found` on `host` for each of `expected`.
///
/// `RemoteHost` where a name is not there, is incomplete, or is something else, with what was found.
pub(super) fn verify(host: &dyn Host, found: &Found, expected: &[Expected]) -> Result<()> {
    let one_by_one = found.loader == Loader::Nerdctl;
    for some in expected.chunks(if one_by_one { 1 } else { AT_ONCE }) {
        let Some(question) = question(found, some) else {
            return Ok(());
        };
        let question: Vec<&str> = question.iter().map(String::as_str).collect();
        let answer = ask(host, &question)?;
        judge(found, some, &answer).map_err(|error| error.at(host.name()))?;
    }
    Ok(())
}

/// The command that says what is under the names of `some`; for nerdctl, of one.
fn question(found: &Found, some: &[Expected]) -> Option<Vec<String>> {
    let names = || some.iter().map(|one| one.name.as_str());
    let mut words = match found.loader {
        Loader::Docker(_) => found.command(&["image", "inspect", "--format", "{{.Id}} {{json .RootFS}}"]),
        Loader::Podman => found.command(&["image", "inspect", "--format", "{{.Id}}"]),
        Loader::Nerdctl => {
            found.command(&["image", "inspect", "--mode=native", "--format", "{{json .Image.Target.Digest}}"])
        }
        Loader::Ctr => {
            let mut words = found.command(&["images", "check"]);
            words.extend(names().map(|name| format!("name=={name:?}")));
            return Some(words);
        }
        Loader::Custom => return None,
    };
    words.extend(names().map(str::to_owned));
    Some(words)
}

fn judge(found: &Found, some: &[Expected], answer: &Answer) -> Result<()> {
    if let Loader::Ctr = found.loader {
        return some.iter().try_for_each(|one| checked(one, &answer.stdout, &answer.exit.describe()));
    }
    let first = some.first().map_or("", |one| one.name.as_str());
    if !answer.exit.success() {
        return Err(Error::remote_host(format!(
            "{first} was loaded but is not there: the engine's question for it {}",
            answer.exit.describe()
        )));
    }
    let lines: Vec<&str> = answer.stdout.lines().filter(|line| !line.trim().is_empty()).collect();
    if found.loader == Loader::Nerdctl {
        // One name can lead to several entries there (`sha256:…` beside it, in kubelet's namespace).
        let holds = |root: Digest| lines.iter().any(|line| line.trim().trim_matches('"') == root.to_string());
        let Some(one) = some.first() else { return Ok(()) };
        return match one.root {
            Some(root) if !holds(root) => Err(another(one, lines.first().copied().unwrap_or("nothing"), &root)),
            _ => Ok(()),
        };
    }
    if lines.len() != some.len() {
        return Err(Error::remote_host(format!(
            "{first} was loaded, but of {} names the engine knows {}",
            some.len(),
            lines.len()
        )));
    }
    some.iter().zip(lines).try_for_each(|(one, line)| inspected(found.loader, one, line))
}

/// A line of docker's or podman's `image inspect`.
fn inspected(loader: Loader, one: &Expected, line: &str) -> Result<()> {
    let (id, rootfs) = line.split_once(' ').unwrap_or((line, ""));
    let id = if id.contains(':') { id.to_owned() } else { format!("sha256:{id}") };
    let expected = match loader {
        Loader::Docker(ImageStore::Containerd) => one.root,
        _ => one.config,
    };
    if rootfs.contains(r#""Type":"""#) {
        return Err(Error::remote_host(format!(
            "{} was loaded but is broken there: the engine knows none of its layers; remove it there and copy again",
            one.name
        )));
    }
    match expected {
        Some(expected) if id != expected.to_string() => Err(another(one, &id, &expected)),
        _ => Ok(()),
    }
}

/// The line of `ctr images check` for one name: REF TYPE DIGEST STATUS (n/m) SIZE UNPACKED.
fn checked(one: &Expected, table: &str, end: &str) -> Result<()> {
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<&str>>());
    let row = rows.into_iter().find(|row| row.first() == Some(&one.name.as_str()));
    let Some([_, _, digest, status, rest @ ..]) = row.as_deref() else {
        return Err(Error::remote_host(format!("{} was imported but is not there: the check {end}", one.name)));
    };
    if *status != "complete" {
        let how_much = rest.first().unwrap_or(&"");
        return Err(Error::remote_host(format!(
            "{} was imported but is {status} {how_much}; remove it there and copy again",
            one.name
        )));
    }
    match one.root {
        Some(root) if *digest != root.to_string() => Err(another(one, digest, &root)),
        _ => Ok(()),
    }
}

fn another(one: &Expected, found: &str, expected: &Digest) -> Error {
    Error::remote_host(format!(
        "{} was loaded but is another image there: expected {expected}, found {found}; did somebody else load it too?",
        one.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Platform;
    use crate::remote::Exit;

    fn one() -> Expected {
        Expected {
            name: Name::new("docker.io/t/app:2").unwrap(),
            root: Some(Digest::of(b"root")),
            config: Some(Digest::of(b"config")),
        }
    }

    fn judged(loader: Loader, stdout: &str, status: i32) -> Result<()> {
        let platform = Platform::new("linux", "amd64", None);
        let found = Found { loader, words: vec!["e".into()], namespace: None, platform, version: None };
        let exit = Exit { status: Some(status), ..Exit::default() };
        judge(&found, &[one()], &Answer { stdout: stdout.into(), exit })
    }

    #[test]
    fn the_right_image_passes_everywhere() {
        let (root, config) = (Digest::of(b"root"), Digest::of(b"config"));
        let rootfs = r#"{"Type":"layers","Layers":["sha256:1"]}"#;
        judged(Loader::Docker(ImageStore::Graph), &format!("{config} {rootfs}\n"), 0).unwrap();
        judged(Loader::Docker(ImageStore::Containerd), &format!("{root} {rootfs}\n"), 0).unwrap();
        judged(Loader::Podman, &format!("{}\n", config.hex()), 0).unwrap();
        judged(Loader::Nerdctl, &format!("\"sha256:else\"\n\"{root}\"\n"), 0).unwrap();
        let table =
            format!("REF TYPE DIGEST STATUS SIZE UNPACKED\ndocker.io/t/app:2 type {root} complete (3/3) 1 B true\n");
        judged(Loader::Ctr, &table, 0).unwrap();
        judged(Loader::Custom, "", 0).unwrap_err();
    }

    #[test]
    fn an_exit_status_of_0_is_not_believed() {
        let root = Digest::of(b"root");
        let row = |status: &str| format!("docker.io/t/app:2 type {root} {status} (2/4) 1 B true\n");
        for (loader, stdout, said) in [
            (Loader::Docker(ImageStore::Containerd), format!("{root} {{\"Type\":\"\"}}"), "broken"),
            (Loader::Docker(ImageStore::Graph), format!("{root} {{}}"), "another image"),
            (Loader::Docker(ImageStore::Graph), String::new(), "knows 0"),
            (Loader::Podman, root.hex(), "another image"),
            (Loader::Nerdctl, "\"sha256:else\"".into(), "another image"),
            (Loader::Ctr, String::new(), "not there"),
            (Loader::Ctr, row("incomplete"), "incomplete (2/4)"),
            (Loader::Ctr, row("complete").replace(&root.to_string(), "sha256:else"), "another image"),
        ] {
            let error = judged(loader, &stdout, 0).unwrap_err();
            assert!(error.to_string().contains(said), "{loader:?}: {error}");
            assert_eq!(error.kind(), crate::Kind::RemoteHost);
        }
        assert!(judged(Loader::Podman, "", 125).unwrap_err().to_string().contains("status 125"));
    }
}
