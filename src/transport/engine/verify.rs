//! Verification after a load. Exit statuses are unreliable (docker's containerd store exits 0 after `Error unpacking
//! image`, ctr after importing nothing), so the engine is queried for the image under each name.

use super::kind::{DetectedEngine, ImageStore, Loader};
use super::session;
use crate::error::{Error, Result};
use crate::image::{Digest, Name};
use crate::remote::{CapturedOutput, Host, capture};

/// Names per command, since the length of a command line is limited.
const NAMES_PER_COMMAND: usize = 40;

/// The image that a name must point at.
#[derive(Debug, Clone)]
pub(super) struct ExpectedImage {
    /// The canonical name.
    pub name: Name,
    /// The digest of the manifest or index; `None` if the engine creates its own (a relayed docker archive).
    pub root: Option<Digest>,
    /// The config digest of the image for the host's platform; `None` for an artifact.
    pub config: Option<Digest>,
}

/// The digest by which the engine identifies the image; `None` if it is not known here.
pub(super) fn engine_id(found: &DetectedEngine, image: &ExpectedImage) -> Option<Digest> {
    match found.loader {
        Loader::Docker(ImageStore::Graph) | Loader::Podman => image.config,
        _ => image.root,
    }
}

/// Whether `answer`, received before anything was sent, reports the right and complete image under `one`'s name.
pub(super) fn is_present(found: &DetectedEngine, image: &ExpectedImage, answer: &session::ScriptAnswer) -> bool {
    if engine_id(found, image).is_none() {
        return false;
    }
    match found.loader {
        Loader::Ctr | Loader::Nerdctl => check_table_row(image, &answer.checked, "").is_ok(),
        _ => {
            let said = answer.named.iter().find(|(name, _)| name == image.name.as_str());
            said.is_some_and(|(_, said)| check_inspect_line(found.loader, image, said.trim()).is_ok())
        }
    }
}

/// Checks that `found` on `host` has each of `expected`.
///
/// Fails with `RemoteHost` if a name is missing, incomplete, or another image; the message has the image that was found.
pub(super) fn verify(host: &dyn Host, found: &DetectedEngine, expected: &[ExpectedImage]) -> Result<()> {
    let one_by_one = found.loader == Loader::Nerdctl;
    for images in expected.chunks(if one_by_one { 1 } else { NAMES_PER_COMMAND }) {
        let Some(command) = inspect_command(found, images) else {
            return Ok(());
        };
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let answer = capture(host, &command)?;
        check_output(found, images, &answer).map_err(|error| error.at(host.name()))?;
    }
    Ok(())
}

/// The command that inspects the names of `some`; for nerdctl, of one.
fn inspect_command(found: &DetectedEngine, images: &[ExpectedImage]) -> Option<Vec<String>> {
    let names = || images.iter().map(|image| image.name.as_str());
    let mut argv = match found.loader {
        Loader::Docker(_) => found.command(&["image", "inspect", "--format", "{{.Id}} {{json .RootFS}}"]),
        Loader::Podman => found.command(&["image", "inspect", "--format", "{{.Id}}"]),
        Loader::Nerdctl => {
            found.command(&["image", "inspect", "--mode=native", "--format", "{{json .Image.Target.Digest}}"])
        }
        Loader::Ctr => {
            let mut argv = found.command(&["images", "check"]);
            argv.extend(names().map(|name| format!("name=={name:?}")));
            return Some(argv);
        }
        Loader::Custom => return None,
    };
    argv.extend(names().map(str::to_owned));
    Some(argv)
}

fn check_output(found: &DetectedEngine, images: &[ExpectedImage], answer: &CapturedOutput) -> Result<()> {
    if let Loader::Ctr = found.loader {
        return images.iter().try_for_each(|image| check_table_row(image, &answer.stdout, &answer.exit.describe()));
    }
    let first = images.first().map_or("", |image| image.name.as_str());
    if !answer.exit.success() {
        return Err(Error::remote_host(format!(
            "{first}: the engine does not have the image after the load: image inspect {}",
            answer.exit.describe()
        )));
    }
    let lines: Vec<&str> = answer.stdout.lines().filter(|line| !line.trim().is_empty()).collect();
    if found.loader == Loader::Nerdctl {
        // nerdctl may print several entries for one name (also `sha256:…`, in kubelet's namespace).
        let holds = |root: Digest| lines.iter().any(|line| line.trim().trim_matches('"') == root.to_string());
        let Some(image) = images.first() else { return Ok(()) };
        return match image.root {
            Some(root) if !holds(root) => Err(wrong_image(image, lines.first().copied().unwrap_or("nothing"), &root)),
            _ => Ok(()),
        };
    }
    if lines.len() != images.len() {
        return Err(Error::remote_host(format!(
            "{first}: the load is incomplete: expected {} names, the engine has {}",
            images.len(),
            lines.len()
        )));
    }
    images.iter().zip(lines).try_for_each(|(image, line)| check_inspect_line(found.loader, image, line))
}

/// Checks a line of docker's or podman's `image inspect`.
fn check_inspect_line(loader: Loader, image: &ExpectedImage, line: &str) -> Result<()> {
    let (id, rootfs) = line.split_once(' ').unwrap_or((line, ""));
    let id = if id.contains(':') { id.to_owned() } else { format!("sha256:{id}") };
    let expected = match loader {
        Loader::Docker(ImageStore::Containerd) => image.root,
        _ => image.config,
    };
    if rootfs.contains(r#""Type":"""#) {
        return Err(Error::remote_host(format!(
            "{}: the loaded image is broken: the engine has none of its layers; remove it on the host and copy again",
            image.name
        )));
    }
    match expected {
        Some(expected) if id != expected.to_string() => Err(wrong_image(image, &id, &expected)),
        _ => Ok(()),
    }
}

/// Checks the row of `ctr images check` for one name: REF TYPE DIGEST STATUS (n/m) SIZE UNPACKED.
fn check_table_row(image: &ExpectedImage, table: &str, end: &str) -> Result<()> {
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<&str>>());
    let row = rows.into_iter().find(|row| row.first() == Some(&image.name.as_str()));
    let Some([_, _, digest, status, rest @ ..]) = row.as_deref() else {
        return Err(Error::remote_host(format!(
            "{}: containerd does not have the image after the import: the check {end}",
            image.name
        )));
    };
    if *status != "complete" {
        let how_much = rest.first().unwrap_or(&"");
        return Err(Error::remote_host(format!(
            "{}: the imported image is {status} {how_much}; remove it on the host and copy again",
            image.name
        )));
    }
    match image.root {
        Some(root) if *digest != root.to_string() => Err(wrong_image(image, digest, &root)),
        _ => Ok(()),
    }
}

fn wrong_image(image: &ExpectedImage, found: &str, expected: &Digest) -> Error {
    Error::remote_host(format!(
        "{}: the engine has a different image: expected {expected}, found {found}; another program may have loaded the \
         same name",
        image.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Platform;
    use crate::remote::Exit;

    fn one() -> ExpectedImage {
        ExpectedImage {
            name: Name::new("docker.io/t/app:2").unwrap(),
            root: Some(Digest::of(b"root")),
            config: Some(Digest::of(b"config")),
        }
    }

    fn checked(loader: Loader, stdout: &str, status: i32) -> Result<()> {
        let platform = Platform::new("linux", "amd64", None);
        let found = DetectedEngine { loader, argv: vec!["e".into()], namespace: None, platform, version: None };
        let exit = Exit { status: Some(status), ..Exit::default() };
        check_output(&found, &[one()], &CapturedOutput { stdout: stdout.into(), exit })
    }

    #[test]
    fn the_right_image_passes_everywhere() {
        let (root, config) = (Digest::of(b"root"), Digest::of(b"config"));
        let rootfs = r#"{"Type":"layers","Layers":["sha256:1"]}"#;
        checked(Loader::Docker(ImageStore::Graph), &format!("{config} {rootfs}\n"), 0).unwrap();
        checked(Loader::Docker(ImageStore::Containerd), &format!("{root} {rootfs}\n"), 0).unwrap();
        checked(Loader::Podman, &format!("{}\n", config.hex()), 0).unwrap();
        checked(Loader::Nerdctl, &format!("\"sha256:else\"\n\"{root}\"\n"), 0).unwrap();
        let table =
            format!("REF TYPE DIGEST STATUS SIZE UNPACKED\ndocker.io/t/app:2 type {root} complete (3/3) 1 B true\n");
        checked(Loader::Ctr, &table, 0).unwrap();
        checked(Loader::Custom, "", 0).unwrap_err();
    }

    #[test]
    fn an_exit_status_of_0_is_not_believed() {
        let root = Digest::of(b"root");
        let row = |status: &str| format!("docker.io/t/app:2 type {root} {status} (2/4) 1 B true\n");
        for (loader, stdout, said) in [
            (Loader::Docker(ImageStore::Containerd), format!("{root} {{\"Type\":\"\"}}"), "broken"),
            (Loader::Docker(ImageStore::Graph), format!("{root} {{}}"), "a different image"),
            (Loader::Docker(ImageStore::Graph), String::new(), "the engine has 0"),
            (Loader::Podman, root.hex(), "a different image"),
            (Loader::Nerdctl, "\"sha256:else\"".into(), "a different image"),
            (Loader::Ctr, String::new(), "does not have the image"),
            (Loader::Ctr, row("incomplete"), "incomplete (2/4)"),
            (Loader::Ctr, row("complete").replace(&root.to_string(), "sha256:else"), "a different image"),
        ] {
            let error = checked(loader, &stdout, 0).unwrap_err();
            assert!(error.to_string().contains(said), "{loader:?}: {error}");
            assert_eq!(error.kind(), crate::Kind::RemoteHost);
        }
        assert!(checked(Loader::Podman, "", 125).unwrap_err().to_string().contains("status 125"));
    }
}
