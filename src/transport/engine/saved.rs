//! Images of an engine as a source: what its save command writes, taken in as it passes.

use super::kind::{Found, Loader};
use crate::error::{Error, Result};
use crate::image::{Digest, Name, Reference};
use crate::remote::{Exit, Host, Running, ask};
use crate::tarball::UnopenedArchive;
use std::{
    io::{self, Read},
    sync::Arc,
};

/// The images `references` of the engine that was found on `host`. Several share their layers.
///
/// `Usage` for a reference that is none. That the engine does not have an image shows when the tape is read
/// (`NotFound`).
pub fn saved(host: Arc<dyn Host>, found: &Found, references: &[String]) -> Result<UnopenedArchive> {
    if references.is_empty() {
        return Err(Error::usage(format!(
            "{}: which of the images? name it behind the engine's place (docker-daemon:REF, ssh://HOST/REF); imgmv \
             list shows the names",
            host.name()
        )));
    }
    if let Some(wrong) = references.iter().find(|text| !is_image(text)) {
        return Err(Error::usage(format!("{wrong:?} is neither an image's name nor its id")));
    }
    let expected_diff_ids = match found.loader {
        Loader::Docker(_) => layers(&*host, found, references),
        _ => Vec::new(),
    };
    let (engine, mut command) = match found.loader {
        Loader::Docker(_) => ("docker save", found.command(&["save"])),
        Loader::Nerdctl => ("nerdctl save", found.command(&["save"])),
        // Its other form is packed by it, into a file of its own first.
        Loader::Podman => ("podman save", found.command(&["save", "--format", "docker-archive"])),
        Loader::Ctr => ("ctr images export", found.command(&["images", "export", "-"])),
        Loader::Custom => {
            return Err(Error::usage("--remote-command loads an archive; to read from a host, name its --src-engine"));
        }
    };
    if matches!(found.loader, Loader::Podman) && references.len() > 1 {
        command.push("--multi-image-archive".to_owned());
    }
    command.extend(references.iter().cloned());
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let mut running = host.run(&words)?;
    running.stdin = None;
    let label = format!("{}: {engine} {}", host.name(), references.join(" "));
    let stdout = running.stdout.take();
    let output = Output { stdout, running: Some(running), label: label.clone(), _host: host };
    Ok(UnopenedArchive { bytes: Box::new(output), label, expected_diff_ids })
}

/// The layers of each image, where docker says so; that it has one of them not shows soon enough.
fn layers(host: &dyn Host, found: &Found, references: &[String]) -> Vec<Vec<Digest>> {
    let mut command = found.command(&["image", "inspect", "--format", "{{json .RootFS.Layers}}"]);
    command.extend(references.iter().cloned());
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let Ok(answer) = ask(host, &words) else { return Vec::new() };
    answer.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The names that the engine found on `host` gives to images.
pub fn names(host: &dyn Host, found: &Found) -> Result<Vec<Name>> {
    let command = found.command(&["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]);
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let answer = ask(host, &words)?;
    if !answer.exit.success() {
        return Err(Error::remote_host(format!("{}: {found} {}", host.name(), answer.exit.describe())));
    }
    // `<none>` is no name.
    let named = answer.stdout.lines().map(str::trim).filter_map(|line| line.parse::<Reference>().ok());
    let mut names: Vec<Name> = named.map(|reference| Name::from(&reference)).collect();
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    Ok(names)
}

/// A name, or an id (hexadecimal, whole or its beginning). Never begins with `-`.
fn is_image(text: &str) -> bool {
    let id = text.strip_prefix("sha256:").unwrap_or(text);
    let is_id = (4..=64).contains(&id.len()) && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    is_id || text.parse::<Reference>().is_ok()
}

/// A save command's output; its end is believed only when the command ended well.
struct Output {
    stdout: Option<Box<dyn Read + Send>>,
    running: Option<Running>,
    label: String,
    /// Its connection lasts as long as what runs on it.
    _host: Arc<dyn Host>,
}

impl Output {
    fn end(&mut self) -> Result<()> {
        self.stdout = None;
        match self.running.take() {
            Some(running) => judge(&self.label, &running.wait()?),
            None => Ok(()),
        }
    }
}

fn judge(label: &str, exit: &Exit) -> Result<()> {
    if exit.success() {
        return Ok(());
    }
    let words = exit.stderr.to_lowercase();
    let absent = ["no such image", "reference does not exist", "image not known", "not found: ", ": not found"]
        .iter()
        .any(|sign| words.contains(sign));
    let sentence = format!("{label} {}", exit.describe());
    Err(match absent {
        true => Error::not_found(format!("{sentence}; imgmv list shows what there is")),
        false => Error::remote_host(sentence),
    })
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = match &mut self.stdout {
            Some(stdout) => stdout.read(buffer)?,
            None => 0,
        };
        if n == 0 && !buffer.is_empty() {
            self.end()?;
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
            assert_eq!(is_image(text), expected, "{text}");
        }
    }

    #[test]
    fn an_image_that_is_not_there_is_told_from_a_failure() {
        let exit = |stderr: &str| Exit { status: Some(1), signal: None, stderr: stderr.into() };
        let absent = judge("here", &exit("Error response from daemon: reference does not exist")).unwrap_err();
        assert_eq!(absent.kind(), Kind::NotFound);
        assert_eq!(judge("here", &exit("disk on fire")).unwrap_err().kind(), Kind::RemoteHost);
        judge("here", &Exit { status: Some(0), ..Exit::default() }).unwrap();
    }
}
