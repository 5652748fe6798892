//! The one remote command of a copy. It reads a query, answers which layers the host has, pins them, and then loads the
//! archive from the same standard input. So two exchanges precede the archive: the probe and this query.

use super::load::{LoadCommand, LoadInput};
use super::scripts::{BEGIN, END};
use super::wire_compression::WireCompression;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::image::Digest;
use crate::remote::{Host, Running, sanitize};
use std::{
    io::{BufRead, BufReader, Read, Write},
    sync::Arc,
};

/// A hundred times the size of an answer to a large query.
const MAX_ANSWER_BYTES: u64 = 4 << 20;

/// The host's answer to a query. It is used only if it is complete.
#[derive(Debug, Default)]
pub(super) struct ScriptAnswer {
    /// Layers that the host has, by blob digest.
    pub present: Vec<Digest>,
    /// For each queried chain, in order: the number of layers from its bottom that the host has.
    pub prefixes: Vec<usize>,
    /// Chain IDs of the snapshots that the host has.
    pub snapshots: Vec<Digest>,
    /// The table of ctr's check of the names.
    pub checked: String,
    /// The answers of other engines, by name.
    pub named: Vec<(String, String)>,
    pub pinned: bool,
    /// The reason if the layers are not known: a keyword of the script.
    pub why: Option<String>,
    /// The command of ctr for docker's or nerdctl's containerd (`sudo -n PATH [--address SOCKET NAMESPACE]`).
    pub ctr: Vec<String>,
    /// The formats that the host can decompress.
    pub decompressors: Vec<WireCompression>,
}

/// A script that has answered its query and waits for the archive.
pub(super) struct ScriptSession {
    running: Running,
    stdin: Box<dyn Write + Send>,
    stdout: BufReader<Box<dyn Read + Send>>,
}

impl ScriptSession {
    /// Runs `script` on `host` and sends it the lines of `query`.
    ///
    /// Fails with `RemoteHost` if the script ends without a complete answer.
    pub fn open(host: &dyn Host, script: &str, query: &str) -> Result<(ScriptSession, ScriptAnswer)> {
        let mut running = host.run(&["sh", "-c", script, "imgmv"])?;
        let (Some(mut stdin), Some(stdout)) = (running.stdin.take(), running.stdout.take()) else {
            return Err(Error::failed("internal error: a command was started without its streams"));
        };
        let sent = stdin.write_all(format!("{query}.\n").as_bytes()).and_then(|()| stdin.flush());
        let mut stdout = BufReader::new(stdout);
        let answer = sent.map_err(Error::from).and_then(|()| read(&mut stdout));
        match answer {
            Ok(Some(answer)) => Ok((ScriptSession { running, stdin, stdout }, answer)),
            Ok(None) | Err(_) => {
                drop((stdin, stdout));
                let end = running.wait()?.describe();
                Err(Error::remote_host(format!(
                    "{}: could not list the engine's layers: the script {end}",
                    host.name()
                )))
            }
        }
    }

    /// Starts the load of the archive that is written next, compressed with `compression`.
    pub fn load(
        mut self,
        compression: WireCompression,
        label: &str,
        cancel: &Cancel,
    ) -> Result<(Arc<LoadCommand>, LoadInput)> {
        let line = format!("{}\n", compression.name());
        let sent = self.stdin.write_all(line.as_bytes()).and_then(|()| self.stdin.flush());
        let (command, input) = LoadCommand::attach(self.running, self.stdin, self.stdout, label, cancel);
        match sent {
            Ok(()) => Ok((command, input)),
            Err(e) => Err(command.wait().err().unwrap_or_else(|| Error::remote_host(format!("{label}: {e}")))),
        }
    }

    /// Ends the script without a load; it removes its pins.
    pub fn close(self) {
        drop(self.stdin);
        // A failure is harmless: the next run sweeps what remains.
        let _ = self.running.wait();
    }
}

/// Reads the answer between the markers; `None` if it is incomplete. Output of the login shell before it is ignored.
fn read(from: &mut dyn BufRead) -> Result<Option<ScriptAnswer>> {
    let mut from = from.take(MAX_ANSWER_BYTES);
    let mut answer = ScriptAnswer::default();
    let mut started = false;
    let mut line = Vec::new();
    loop {
        line.clear();
        if from.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let line = sanitize(&String::from_utf8_lossy(&line));
        let line = line.trim_end();
        match (started, line) {
            (true, END) => return Ok(Some(answer)),
            (false, BEGIN) => started = true,
            (true, line) => answer.add_line(line),
            (false, _) => {}
        }
    }
}

impl ScriptAnswer {
    fn add_line(&mut self, line: &str) {
        let Some((key, value)) = line.split_once('=') else { return };
        let digest = || value.trim().parse::<Digest>().ok();
        match key {
            "held" => self.present.extend(digest()),
            "unpacked" => self.snapshots.extend(digest()),
            "prefix" => self.prefixes.push(value.trim().parse().unwrap_or(0)),
            "check" => {
                self.checked.push_str(value);
                self.checked.push('\n');
            }
            "is" => self.named.extend(value.split_once(' ').map(|(n, v)| (n.to_owned(), v.to_owned()))),
            "pinned" => self.pinned = true,
            "why" => self.why = Some(value.trim().to_owned()),
            "ctr" => self.ctr = value.split_whitespace().map(str::to_owned).collect(),
            "undo" => self.decompressors.extend(WireCompression::by_name(value.trim())),
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
        assert_eq!((answer.present, answer.prefixes, answer.decompressors), (vec![digest], vec![3], vec![]));
        assert_eq!(from, b"more\n");
        assert!(read(&mut &text.as_bytes()[..text.len() - 30]).unwrap().is_none());
    }
}
