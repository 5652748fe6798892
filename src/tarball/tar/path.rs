//! Names of entries: untrusted until cleaned here. They are used as keys only and never become file system paths.

use crate::error::{Error, Result};
use crate::message::printable;

/// The maximum length of a name.
pub(crate) const MAX_NAME_BYTES: usize = 4096;

/// Removes `./` and double slashes from `name`; the empty string is the root.
///
/// Fails with `Invalid` if it points outside the archive (absolute, `..`) or is not UTF-8.
pub(crate) fn clean(name: &[u8]) -> Result<String> {
    let shown = || shown(&String::from_utf8_lossy(name));
    if name.len() > MAX_NAME_BYTES {
        return Err(Error::invalid(format!(
            "the entry {} is refused: its name has {} bytes, at most {MAX_NAME_BYTES} are allowed",
            shown(),
            name.len()
        )));
    }
    let Ok(text) = std::str::from_utf8(name) else {
        return Err(Error::invalid(format!("the entry {} is refused: its name is not UTF-8", shown())));
    };
    if text.starts_with('/') || text.split('/').any(|part| part == "..") || text.contains('\0') {
        return Err(Error::invalid(format!("the entry {} is refused: its name points outside the archive", shown())));
    }
    Ok(joined(text.split('/')))
}

/// Resolves `target` of the symbolic link `link` (cleaned); `None` if it is outside the archive.
pub(crate) fn follow(link: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = link.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Formats a name for messages: shortened, quoted, without control characters.
pub(crate) fn shown(name: &str) -> String {
    let short: String = name.chars().take(100).collect();
    format!("{:?}", printable(&short))
}

fn joined<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let kept: Vec<&str> = parts.filter(|part| !part.is_empty() && *part != ".").collect();
    kept.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned() {
        for (name, cleaned) in [("./a/b", "a/b"), ("a//b/", "a/b"), ("./", ""), ("sha256:ab", "sha256:ab")] {
            assert_eq!(clean(name.as_bytes()).unwrap(), cleaned);
        }
    }

    #[test]
    fn names_that_lead_out_are_refused() {
        let long = "a/".repeat(3000);
        for name in [&b"/etc/passwd"[..], b"../a", b"a/../../b", b"a/..", b"a\xff", long.as_bytes()] {
            assert!(clean(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn links_stay_inside() {
        assert_eq!(follow("a/layer.tar", "../b.tar"), Some("b.tar".into()));
        assert_eq!(follow("a/layer.tar", "./b.tar"), Some("a/b.tar".into()));
        for target in ["/etc/passwd", "../../etc/passwd", "../../../x"] {
            assert_eq!(follow("a/layer.tar", target), None, "{target}");
        }
    }
}
