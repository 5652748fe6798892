//! An engine as a source: the archive of its save command, streamed.

use super::kind::{DetectedEngine, Loader};
use crate::error::{Error, Result};
use crate::image::{Digest, Name, Reference};
use crate::remote::{Exit, Host, Running, capture};
use crate::tarball::UnopenedArchive;
use std::{
    io::{self, Read},
    sync::Arc,
};

/// Saves the images `references` of the engine `found` on `host`. Several images share their layers.
///
/// Fails with `Usage` for an invalid reference. A missing image is reported by the stream (`NotFound`).
pub fn save(host: Arc<dyn Host>, found: &DetectedEngine, references: &[String]) -> Result<UnopenedArchive> {
    if references.is_empty() {
        return Err(Error::usage(format!(
            "{}: the image is not named; append it to the address (docker-daemon:REF, ssh://HOST/REF); imgmv list \
             prints the names",
            host.name()
        )));
    }
    if let Some(wrong) = references.iter().find(|text| !is_image_reference(text)) {
        return Err(Error::usage(format!("{wrong:?} is not an image name or ID")));
    }
    let expected_diff_ids = match found.loader {
        Loader::Docker(_) => inspect_diff_ids(&*host, found, references),
        _ => Vec::new(),
    };
    let (engine, mut command) = match found.loader {
        Loader::Docker(_) => ("docker save", found.command(&["save"])),
        Loader::Nerdctl => ("nerdctl save", found.command(&["save"])),
        // podman writes its other format to a temporary file first, and compresses it.
        Loader::Podman => ("podman save", found.command(&["save", "--format", "docker-archive"])),
        Loader::Ctr => ("ctr images export", found.command(&["images", "export", "-"])),
        Loader::Custom => {
            return Err(Error::usage(
                "--remote-command only loads; to read from a host, name its engine with --src-engine",
            ));
        }
    };
    if matches!(found.loader, Loader::Podman) && references.len() > 1 {
        command.push("--multi-image-archive".to_owned());
    }
    command.extend(references.iter().cloned());
    let argv: Vec<&str> = command.iter().map(String::as_str).collect();
    let mut running = host.run(&argv)?;
    running.stdin = None;
    let label = format!("{}: {engine} {}", host.name(), references.join(" "));
    let stdout = running.stdout.take();
    let output = SaveOutput { stdout, running: Some(running), label: label.clone(), _host: host };
    Ok(UnopenedArchive { bytes: Box::new(output), label, expected_diff_ids, file: None })
}

/// The diff IDs of each image, if docker reports them. The save command reports a missing image.
fn inspect_diff_ids(host: &dyn Host, found: &DetectedEngine, references: &[String]) -> Vec<Vec<Digest>> {
    let mut command = found.command(&["image", "inspect", "--format", "{{json .RootFS.Layers}}"]);
    command.extend(references.iter().cloned());
    let argv: Vec<&str> = command.iter().map(String::as_str).collect();
    let Ok(answer) = capture(host, &argv) else { return Vec::new() };
    answer.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Lists the image names of the engine on `host`.
pub fn list_names(host: &dyn Host, found: &DetectedEngine) -> Result<Vec<Name>> {
    let command = found.command(&["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]);
    let argv: Vec<&str> = command.iter().map(String::as_str).collect();
    let answer = capture(host, &argv)?;
    if !answer.exit.success() {
        return Err(Error::remote_host(format!("{}: {found} {}", host.name(), answer.exit.describe())));
    }
    // `<none>` is not a name.
    let named = answer.stdout.lines().map(str::trim).filter_map(|line| line.parse::<Reference>().ok());
    let mut names: Vec<Name> = named.map(|reference| Name::from(&reference)).collect();
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    Ok(names)
}

/// Whether `text` is an image name, or a complete or abbreviated hexadecimal ID. It then never starts with `-`.
fn is_image_reference(text: &str) -> bool {
    let id = text.strip_prefix("sha256:").unwrap_or(text);
    let is_id = (4..=64).contains(&id.len()) && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    is_id || text.parse::<Reference>().is_ok()
}

/// The output of a save command. Its end is accepted only if the command succeeded.
struct SaveOutput {
    stdout: Option<Box<dyn Read + Send>>,
    running: Option<Running>,
    label: String,
    /// Keeps the connection open while the command runs.
    _host: Arc<dyn Host>,
}

impl SaveOutput {
    fn finish(&mut self) -> Result<()> {
        self.stdout = None;
        match self.running.take() {
            Some(running) => check_exit(&self.label, &running.wait()?),
            None => Ok(()),
        }
    }
}

fn check_exit(label: &str, exit: &Exit) -> Result<()> {
    if exit.success() {
        return Ok(());
    }
    let stderr = exit.stderr.to_lowercase();
    let not_found = ["no such image", "reference does not exist", "image not known", "not found: ", ": not found"]
        .iter()
        .any(|sign| stderr.contains(sign));
    let sentence = format!("{label} {}", exit.describe());
    Err(match not_found {
        true => Error::not_found(format!("{sentence}; imgmv list prints the available images")),
        false => Error::remote_host(sentence),
    })
}

impl Read for SaveOutput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = match &mut self.stdout {
            Some(stdout) => stdout.read(buffer)?,
            None => 0,
        };
        if n == 0 && !buffer.is_empty() {
            self.finish()?;
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn an_option_is_no_image() {
        for (text, expected) in
            [("app:2", true), ("sha256:0123abcd", true), ("0123abcd", true), ("-o", false), ("", false)]
        {
            assert_eq!(is_image_reference(text), expected, "{text}");
        }
    }

    #[test]
    fn an_image_that_is_not_there_is_told_from_a_failure() {
        let exit = |stderr: &str| Exit { status: Some(1), signal: None, stderr: stderr.into() };
        let not_found = check_exit("here", &exit("Error response from daemon: reference does not exist")).unwrap_err();
        assert_eq!(not_found.kind(), Kind::NotFound);
        assert_eq!(check_exit("here", &exit("disk on fire")).unwrap_err().kind(), Kind::RemoteHost);
        check_exit("here", &Exit { status: Some(0), ..Exit::default() }).unwrap();
    }
}
