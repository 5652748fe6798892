//! Text in messages: untrusted text that is safe to print, counts, and the start of what may be long.

/// The maximum length of a quoted text, in characters: a path of the usual length fits.
const MAX_CHARS: usize = 300;
/// The maximum number of names in a message.
const MAX_NAMED: usize = 8;

/// Replaces control characters (terminal escapes, bidirectional overrides), so that `text` is safe to print.
pub fn printable(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control() && c != '\n' && c != '\t'
            || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
            || matches!(c, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    text.chars().map(|c| if hidden(c) { '?' } else { c }).collect()
}

/// As [`printable`], and on one line: untrusted text cannot imitate a line of imgmv's output.
pub fn on_one_line(text: &str) -> String {
    printable(text).replace(['\n', '\t'], " ")
}

/// `count` of `what`: `1 blob`, `2 blobs`, `2 entries`.
pub fn counted(count: usize, what: &str) -> String {
    match (count, what.strip_suffix('y')) {
        (1, _) => format!("1 {what}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        (_, None) => format!("{count} {what}s"),
    }
}

/// The first characters of `text`, with an ellipsis if some are left out: a name in a hostile file may have megabytes.
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The first of `names`, and the number of the others.
pub fn some_of(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(MAX_NAMED).map(|name| shortened(name)).collect();
    match names.len().saturating_sub(MAX_NAMED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_quotes_the_start_of_a_long_text() {
        assert_eq!(shortened("short"), "short");
        let long = shortened(&"é".repeat(1000));
        assert_eq!((long.chars().count(), long.ends_with('…')), (MAX_CHARS + 1, true));
        let names: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        assert_eq!(some_of(&names[..3]), "0, 1, 2");
        assert_eq!(some_of(&names), "0, 1, 2, 3, 4, 5, 6, 7 and 2 more");
    }

    #[test]
    fn one_is_singular() {
        let texts = [counted(0, "blob"), counted(1, "entry"), counted(2, "entry")];
        assert_eq!(texts, ["0 blobs", "1 entry", "2 entries"]);
    }
}
