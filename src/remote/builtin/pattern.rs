//! ssh's patterns (ssh_config(5), PATTERNS): `*` and `?`, lists, and `!` for exclusion.

/// Whether one of `patterns` matches `text` and no pattern with `!` does. Case is ignored.
pub(super) fn matches<'a>(patterns: impl IntoIterator<Item = &'a str>, text: &str) -> bool {
    let text = text.to_lowercase();
    let mut matching = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(pattern) if glob(pattern.to_lowercase().as_bytes(), text.as_bytes()) => return false,
            Some(_) => {}
            None => matching |= glob(pattern.to_lowercase().as_bytes(), text.as_bytes()),
        }
    }
    matching
}

/// Matches in time proportional to the product of the lengths: only the last `*` is ever retried.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, from)) = star else {
                    return false;
                };
                star = Some((at, from + 1));
                p = at + 1;
                t = from + 1;
            }
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_ssh_means() {
        for (patterns, text, expected) in [
            (&["*"][..], "a", true),
            (&["web?"], "web1", true),
            (&["web?"], "web12", false),
            (&["*.lan"], "Node.LAN", true),
            (&["*.lan", "!db.lan"], "db.lan", false),
            (&["!db.lan"], "web.lan", false),
            (&["a*b*c"], "aXbXbc", true),
            (&["a*b*c"], "aXbXb", false),
            (&["[127.0.0.*]:22??"], "[127.0.0.1]:2222", true),
        ] {
            assert_eq!(matches(patterns.iter().copied(), text), expected, "{patterns:?} {text}");
        }
    }
}
