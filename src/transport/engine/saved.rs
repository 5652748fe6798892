//! Images of an engine as a source: what its save command writes, taken in as it passes.

use super::found::{Found, Loader};
use crate::{
    archive::Tape,
    error::{Error, Result},
    image::{Digest, Reference},
    remote::{Exit, Host, Running, ask},
};
use std::io::{self, Read};

/// The images `references` of the docker that was found on `host`. Several share their layers.
///
/// `Usage` for a reference that is none, and for other engines. That docker does not have an image shows when the
/// stream is read (`NotFound`).
pub fn saved(host: &dyn Host, found: &Found, references: &[String]) -> Result<Tape> {
    let Loader::Docker(_) = found.loader else {
        return Err(Error::usage(format!("{}: {found} is not a source yet; only docker is", host.name())));
    };
    if references.is_empty() {
        return Err(Error::usage("which image of docker's? write docker-daemon:REF"));
    }
    if let Some(wrong) = references.iter().find(|text| !is_image(text)) {
        return Err(Error::usage(format!("{wrong:?} is neither an image's name nor its id")));
    }
    let foreseen = layers(host, found, references);
    let mut command = found.command(&["save"]);
    command.extend(references.iter().cloned());
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let mut running = host.run(&words)?;
    running.stdin = None;
    let label = format!("{}: docker save {}", host.name(), references.join(" "));
    let stdout = running.stdout.take();
    let output = Output { stdout, running: Some(running), label: label.clone() };
    Ok(Tape { bytes: Box::new(output), label, foreseen })
}

/// The layers of each image, where docker says so; that it has one of them not shows soon enough.
fn layers(host: &dyn Host, found: &Found, references: &[String]) -> Vec<Vec<Digest>> {
    let mut command = found.command(&["image", "inspect", "--format", "{{json .RootFS.Layers}}"]);
    command.extend(references.iter().cloned());
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let Ok(answer) = ask(host, &words) else { return Vec::new() };
    answer.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
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
    let absent = ["no such image", "reference does not exist", "not found: "].iter().any(|sign| words.contains(sign));
    let sentence = format!("{label} {}", exit.describe());
    Err(match absent {
        true => Error::not_found(format!("{sentence}; docker images lists what there is")),
        false => Error::far_side(sentence),
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
        assert_eq!(judge("here", &exit("disk on fire")).unwrap_err().kind(), Kind::FarSide);
        judge("here", &Exit { status: Some(0), ..Exit::default() }).unwrap();
    }
}
