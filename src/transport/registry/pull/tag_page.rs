//! One page of a list of tags, parsed entry by entry: a tree of a long page would need many times its memory.

use crate::error::{Error, Result};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Calls `visit` for each entry of `page`; an array or object arrives empty. Returns the number of entries; `None` if
/// the page is not a list of tags. A repository without tags may have `tags` null or missing.
///
/// # Errors
/// The first error of `visit`.
pub fn visit(page: &[u8], visit: &mut dyn FnMut(Value) -> Result<()>) -> Result<Option<usize>> {
    let mut state = Page { visit, count: 0, is_list: false, stopped: None };
    let mut parser = serde_json::Deserializer::from_slice(page);
    let parsed = (&mut parser).deserialize_map(&mut state).and_then(|()| parser.end());
    match (state.stopped, parsed) {
        (Some(error), _) => Err(error),
        (None, Ok(())) if state.is_list => Ok(Some(state.count)),
        (None, _) => Ok(None),
    }
}

struct Page<'v> {
    visit: &'v mut dyn FnMut(Value) -> Result<()>,
    count: usize,
    /// Whether the page has the fields of a list of tags.
    is_list: bool,
    /// The error of `visit`.
    stopped: Option<Error>,
}

/// The page itself.
impl<'de> Visitor<'de> for &mut Page<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of tags")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "tags" => {
                    map.next_value_seed(Entries(&mut *self))?;
                    self.is_list = true;
                }
                "name" => {
                    map.next_value::<IgnoredAny>()?;
                    self.is_list = true;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// The array of tags, or null.
struct Entries<'p, 'v>(&'p mut Page<'v>);

impl<'de> DeserializeSeed<'de> for Entries<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of tags")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(entry) = entries.next_element_seed(Entry)? {
            self.0.count += 1;
            if let Err(error) = (self.0.visit)(entry) {
                self.0.stopped = Some(error);
                return Err(serde::de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

/// One entry, of any JSON type.
struct Entry;

impl<'de> DeserializeSeed<'de> for Entry {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Entry {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tag")
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::from(text))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Value, A::Error> {
        while values.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Array(Vec::new()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Object(Map::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(page: &str) -> Option<Vec<Value>> {
        let mut found = Vec::new();
        let count = visit(page.as_bytes(), &mut |entry| {
            found.push(entry);
            Ok(())
        });
        let count = count.unwrap()?;
        assert_eq!(count, found.len());
        Some(found)
    }

    #[test]
    fn each_entry_of_a_page_is_visited_in_its_order() {
        let page = r#"{"tags":["1","\u0061",null,7,-1,1.5,true,[[1]],{"a":{}}],"name":"app","more":[{}]}"#;
        let expected = serde_json::json!(["1", "a", null, 7, -1, 1.5, true, [], {}]);
        assert_eq!(Value::from(entries(page).unwrap()), expected);
        for empty in [r#"{"name":"app","tags":null}"#, r#"{"name":"app"}"#, r#"{"tags":[]}"#] {
            assert_eq!(entries(empty), Some(Vec::new()), "{empty}");
        }
    }

    #[test]
    fn a_page_that_is_cut_off_is_not_a_list() {
        let page = r#"{"name":"app","tags":["1","2"]}"#;
        (0..page.len()).for_each(|end| assert_eq!(entries(&page[..end]), None, "{end}"));
        for other in ["{}", "[]", r#"{"tags":"1"}"#, r#"{"tags":{}}"#, r#"{"tags":["1"]} <html>"#, r#"{"errors":[]}"#] {
            assert_eq!(entries(other), None, "{other}");
        }
    }

    #[test]
    fn a_deep_entry_is_skipped_without_recursion() {
        let deep = format!(r#"{{"tags":[{}1{}]}}"#, "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert_eq!(entries(&deep).unwrap(), [serde_json::json!([])]);
    }

    #[test]
    fn an_error_of_the_visitor_ends_the_page() {
        let mut count = 0;
        let stopped = visit(br#"{"tags":["1","2","3"]}"#, &mut |_| {
            count += 1;
            if count == 2 { Err(Error::interrupted()) } else { Ok(()) }
        });
        assert_eq!((stopped.unwrap_err().kind(), count), (crate::Kind::Interrupted, 2));
    }
}
