//! The start of an untrusted text, for messages: a name in a hostile file may have megabytes.

/// The maximum length of a quoted text, in characters: a path of the usual length fits.
const MAX_CHARS: usize = 300;

/// Returns the first characters of `text`, with an ellipsis where some are left out.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Returns the first of `names`, joined for a message, and the number of the others.
pub(crate) fn some_of(names: &[String]) -> String {
    const MAX_NAMED: usize = 8;
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
}
