//! JSON of strangers as a tree. A tree takes up to a hundred times the memory of its text, so it is bounded by what is
//! in it and not only by its length.

use serde_json::Value;

/// Three for each image of the longest index that is read; some 640 bytes each.
const MAX_OBJECTS: usize = 80_000;
/// Some 32 bytes each.
const MAX_VALUES: usize = 500_000;

/// The tree of `text`, or what is wrong with it.
pub(crate) fn tree(text: &[u8]) -> Result<Value, String> {
    let (mut objects, mut values) = (0, 0);
    for byte in text {
        // Those inside strings count too: it is a bound.
        objects += usize::from(*byte == b'{');
        values += usize::from(matches!(byte, b'{' | b'[' | b','));
    }
    if objects > MAX_OBJECTS || values > MAX_VALUES {
        return Err(format!(
            "it has {objects} objects and {values} values; {MAX_OBJECTS} and {MAX_VALUES} are the most allowed"
        ));
    }
    serde_json::from_slice(text).map_err(|e| format!("it is not JSON ({e})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_grow_a_hundredfold_is_refused() {
        assert_eq!(tree(br#"{"a":[1,"{"]}"#).unwrap()["a"][0], 1);
        for thing in ["{\"\":0}", "[]", "0"] {
            let text = format!("[{}]", vec![thing; MAX_VALUES + 1].join(","));
            assert!(tree(text.as_bytes()).unwrap_err().contains("the most allowed"), "{thing}");
        }
        assert!(tree(b"{").unwrap_err().contains("not JSON"));
    }
}
