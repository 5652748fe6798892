//! The first lines of requests and answers, and the bodies behind them.

use std::io::{self, BufRead, Read};

/// A request's or an answer's first lines.
pub(super) struct Head {
    pub(super) first: String,
    pub(super) headers: Vec<(String, String)>,
    /// What is sent behind them, of an answer that is made here.
    pub(super) behind: String,
}

impl Head {
    /// `None` at the end of the connection, and for whoever speaks TLS.
    pub(super) fn read(from: &mut impl BufRead) -> io::Result<Option<Head>> {
        if from.fill_buf()?.first().is_none_or(|byte| !byte.is_ascii_graphic()) {
            return Ok(None);
        }
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if from.take(16 << 10).read_line(&mut line)? == 0 {
                return Ok(None);
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let mut lines = lines.into_iter();
        let first = lines.next().unwrap_or_default();
        let header = |line: String| line.split_once(':').map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned()));
        Ok(Some(Head { first, headers: lines.filter_map(header).collect(), behind: String::new() }))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn set(&mut self, name: &str, value: Option<String>) {
        self.headers.retain(|(own, _)| own != name);
        self.headers.extend(value.map(|value| (name.to_owned(), value)));
    }

    pub(super) fn word(&self, at: usize) -> &str {
        self.first.split(' ').nth(at).unwrap_or_default()
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let lines: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{}\r\n{lines}\r\n{}", self.first, self.behind).into_bytes()
    }

    /// Bytes of the body that follows; `None` where it comes in chunks.
    pub(super) fn length(&self) -> Option<u64> {
        let chunked = self.get("transfer-encoding").is_some_and(|coding| coding.contains("chunked"));
        (!chunked).then(|| self.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0))
    }
}

/// Hands on a body of `length` bytes, or one in chunks with what is between them.
pub(super) fn body(
    from: &mut (impl BufRead + ?Sized),
    length: Option<u64>,
    pass: &mut dyn FnMut(&mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    if let Some(length) = length {
        return counted(from, length, pass);
    }
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim().split(';').next().unwrap_or_default(), 16);
        let size = size.map_err(|_| io::ErrorKind::InvalidData)?;
        pass(&mut line.into_bytes())?;
        counted(from, size + 2, pass)?;
        if size == 0 {
            return Ok(());
        }
    }
}

pub(super) fn counted(
    from: &mut (impl BufRead + ?Sized),
    mut length: u64,
    pass: &mut dyn FnMut(&mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    while length > 0 {
        let most = (buffer.len() as u64).min(length) as usize;
        let n = from.read(&mut buffer[..most])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        pass(&mut buffer[..n])?;
        length -= n as u64;
    }
    Ok(())
}
