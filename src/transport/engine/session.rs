//! The one command that runs on a host for a copy: asked what is held, it answers, pins it, and then takes the archive
//! on the same standard input. Two exchanges with the host before bytes flow: the probe, and this question.

use super::line_compression::LineCompression;
use super::load::{Input, Loading};
use super::scripts::{BEGIN, END};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::image::Digest;
use crate::remote::{Host, Running, plain};
use std::{
    io::{BufRead, BufReader, Read, Write},
    sync::Arc,
};

/// In bytes: a line for each thing asked is a hundredth of it.
const LARGEST_ANSWER: u64 = 4 << 20;

/// What a host said. Only what was asked for is in it; none of it is believed before the end.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Layers that are there, as they were asked for: by blob digest.
    pub held: Vec<Digest>,
    /// For each chain that was asked for, in order: how many layers from its bottom are there.
    pub prefixes: Vec<usize>,
    /// Chain IDs that are there unpacked.
    pub unpacked: Vec<Digest>,
    /// What ctr's check says of the names: rows of a table.
    pub checked: String,
    /// What another engine says of a name.
    pub named: Vec<(String, String)>,
    pub pinned: bool,
    /// Why it does not know what is held: a word of the script.
    pub why: Option<String>,
    /// How ctr is called for the containerd behind docker or nerdctl (`sudo -n PATH [--address SOCKET NAMESPACE]`).
    pub ctr: Vec<String>,
    /// What the host can unpack.
    pub undo: Vec<LineCompression>,
}

/// A script that has answered and waits for the archive.
pub(super) struct Session {
    running: Running,
    stdin: Box<dyn Write + Send>,
    stdout: BufReader<Box<dyn Read + Send>>,
}

impl Session {
    /// Runs `script` on `host` and asks it `question` (lines).
    ///
    /// `RemoteHost` where it ends before it has answered, or answers without end.
    pub fn open(host: &dyn Host, script: &str, question: &str) -> Result<(Session, Answer)> {
        let mut running = host.run(&["sh", "-c", script, "imgmv"])?;
        let (Some(mut stdin), Some(stdout)) = (running.stdin.take(), running.stdout.take()) else {
            return Err(Error::failed("a command was started without its streams"));
        };
        let asked = stdin.write_all(format!("{question}.\n").as_bytes()).and_then(|()| stdin.flush());
        let mut stdout = BufReader::new(stdout);
        let answer = asked.map_err(Error::from).and_then(|()| read(&mut stdout));
        match answer {
            Ok(Some(answer)) => Ok((Session { running, stdin, stdout }, answer)),
            Ok(None) | Err(_) => {
                drop((stdin, stdout));
                let end = running.wait()?.describe();
                Err(Error::remote_host(format!("{}: the question for what is there {end}", host.name())))
            }
        }
    }

    /// Lets it load what is written from now on, packed as `wire` says.
    pub fn load(mut self, wire: LineCompression, label: &str, cancel: &Cancel) -> Result<(Arc<Loading>, Input)> {
        let word = format!("{}\n", wire.name());
        let told = self.stdin.write_all(word.as_bytes()).and_then(|()| self.stdin.flush());
        let (loading, input) = Loading::of(self.running, self.stdin, self.stdout, label, cancel);
        match told {
            Ok(()) => Ok((loading, input)),
            Err(e) => Err(loading.end().err().unwrap_or_else(|| Error::remote_host(format!("{label}: {e}")))),
        }
    }

    /// Nothing is to be loaded: it takes its pins away and ends.
    pub fn close(self) {
        drop(self.stdin);
        // It only tidies up, and what it left the next run sweeps.
        let _ = self.running.wait();
    }
}

/// What stands between the marks; `None` where the last one never comes. Whatever a login prints before is passed over.
fn read(from: &mut dyn BufRead) -> Result<Option<Answer>> {
    let mut from = from.take(LARGEST_ANSWER);
    let mut answer = Answer::default();
    let mut begun = false;
    let mut line = Vec::new();
    loop {
        line.clear();
        if from.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let line = plain(&String::from_utf8_lossy(&line));
        let line = line.trim_end();
        match (begun, line) {
            (true, END) => return Ok(Some(answer)),
            (false, BEGIN) => begun = true,
            (true, line) => answer.take(line),
            (false, _) => {}
        }
    }
}

impl Answer {
    fn take(&mut self, line: &str) {
        let Some((key, value)) = line.split_once('=') else { return };
        let digest = || value.trim().parse::<Digest>().ok();
        match key {
            "held" => self.held.extend(digest()),
            "unpacked" => self.unpacked.extend(digest()),
            "prefix" => self.prefixes.push(value.trim().parse().unwrap_or(0)),
            "check" => {
                self.checked.push_str(value);
                self.checked.push('\n');
            }
            "is" => self.named.extend(value.split_once(' ').map(|(n, v)| (n.to_owned(), v.to_owned()))),
            "pinned" => self.pinned = true,
            "why" => self.why = Some(value.trim().to_owned()),
            "ctr" => self.ctr = value.split_whitespace().map(str::to_owned).collect(),
            "undo" => self.undo.extend(LineCompression::named(value.trim())),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_login_prints_is_no_answer() {
        let digest = Digest::of(b"x");
        let text =
            format!("Welcome\nheld={digest}\n\n{BEGIN}\nheld={digest}\nheld=../x\nprefix=3\nundo=rm\n{END}\nmore\n");
        let mut from = text.as_bytes();
        let answer = read(&mut from).unwrap().unwrap();
        assert_eq!((answer.held, answer.prefixes, answer.undo), (vec![digest], vec![3], vec![]));
        assert_eq!(from, b"more\n");
        assert!(read(&mut &text.as_bytes()[..text.len() - 30]).unwrap().is_none());
    }
}
