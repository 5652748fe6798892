//! Untrusted JSON as a tree. A tree needs up to a hundred times the memory of its text, so the number of values is
//! limited too, not only the length.

use serde_json::Value;

/// Three for each image of the longest index that is accepted; about 640 bytes of memory each.
const MAX_OBJECTS: usize = 80_000;
/// About 32 bytes of memory each.
const MAX_VALUES: usize = 500_000;

/// Parses `text`. The error is the reason as the end of a sentence.
pub(crate) fn tree(text: &[u8]) -> Result<Value, String> {
    bounds(text)?;
    serde_json::from_slice(text).map_err(|e| format!("it is not JSON ({e})"))
}

/// Checks that `text` does not have too many values. The error is the reason as the end of a sentence.
pub(crate) fn bounds(text: &[u8]) -> Result<(), String> {
    let (mut objects, mut values) = (0, 0);
    for byte in text {
        // Characters in strings count too: this is only an upper bound.
        objects += usize::from(*byte == b'{');
        values += usize::from(matches!(byte, b'{' | b'[' | b','));
    }
    if objects > MAX_OBJECTS || values > MAX_VALUES {
        return Err(format!(
            "it has {objects} objects and {values} values; at most {MAX_OBJECTS} and {MAX_VALUES} are allowed"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_grow_a_hundredfold_is_refused() {
        assert_eq!(tree(br#"{"a":[1,"{"]}"#).unwrap()["a"][0], 1);
        for thing in ["{\"\":0}", "[]", "0"] {
            let text = format!("[{}]", vec![thing; MAX_VALUES + 1].join(","));
            assert!(tree(text.as_bytes()).unwrap_err().contains("are allowed"), "{thing}");
        }
        assert!(tree(b"{").unwrap_err().contains("not JSON"));
    }
}
