//! One page of a list of tags, parsed entry by entry as its bytes arrive: the memory does not depend on its length.

use super::bounded_json::BoundedJson;
use crate::error::{Error, Result};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;
use std::io::{self, BufReader, Read};

const BUFFER_BYTES: usize = 64 << 10;

/// The end of one page.
#[derive(Debug)]
pub enum PageEnd {
    /// The page is a list with this number of entries.
    List(usize),
    /// The page is not a complete list of tags, or has a string or a depth that imgmv does not read.
    NotAList,
    /// `visit` failed.
    Stopped(Error),
}

/// Calls `visit` for each entry of `page`; an array or object arrives empty. A repository without tags may have `tags`
/// null or missing. Entries are visited before the end of the page is known.
///
/// # Errors
/// The [`Error`] that an error of `page` carries.
pub fn visit(page: impl Read, visit: &mut dyn FnMut(Value) -> Result<()>) -> Result<PageEnd> {
    let mut state = Page { visit, count: 0, is_list: false, stopped: None };
    let page = BufReader::with_capacity(BUFFER_BYTES, BoundedJson::new(page));
    let mut parser = serde_json::Deserializer::from_reader(page);
    let parsed = (&mut parser).deserialize_map(&mut state).and_then(|()| parser.end());
    match (state.stopped, parsed) {
        (Some(error), _) => Ok(PageEnd::Stopped(error)),
        (None, Ok(())) if state.is_list => Ok(PageEnd::List(state.count)),
        (None, Ok(())) => Ok(PageEnd::NotAList),
        (None, Err(error)) => Error::carried(io::Error::from(error)).map_or(Ok(PageEnd::NotAList), Err),
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
        let end = visit(page.as_bytes(), &mut |entry| {
            found.push(entry);
            Ok(())
        });
        match end.unwrap() {
            PageEnd::List(count) => {
                assert_eq!(count, found.len());
                Some(found)
            }
            PageEnd::NotAList => None,
            PageEnd::Stopped(error) => panic!("{error}"),
        }
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
        let end = visit(&br#"{"tags":["1","2","3"]}"#[..], &mut |_| {
            count += 1;
            if count == 2 { Err(Error::interrupted()) } else { Ok(()) }
        });
        let PageEnd::Stopped(error) = end.unwrap() else { panic!("the page did not end") };
        assert_eq!((error.kind(), count), (crate::Kind::Interrupted, 2));
    }

    #[test]
    fn an_error_of_the_reader_is_not_an_end_of_the_page() {
        /// Fails at its end, as a connection that breaks.
        struct Broken<'b>(&'b [u8]);
        impl Read for Broken<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                match self.0.read(buffer)? {
                    0 => Err(Error::network("the connection was closed").into()),
                    n => Ok(n),
                }
            }
        }
        // The last document is complete, and more bytes are promised.
        for page in [r#"{"tags":["1","2"#, r#"{"tags":["1","2"]"#, r#"{"tags":["1","2"]}"#] {
            let error = visit(Broken(page.as_bytes()), &mut |_| Ok(())).unwrap_err();
            assert_eq!(error.kind(), crate::Kind::Network, "{page}");
        }
    }

    #[test]
    fn a_page_of_one_long_string_is_not_buffered() {
        for (start, byte) in [(r#"{"tags":[""#, b'a'), (r#"{"tags":["#, b'['), (r#"{""#, b'a')] {
            let mut rest = io::repeat(byte).take(16 << 20);
            let end = visit(start.as_bytes().chain(&mut rest), &mut |_| Ok(()));
            assert!(matches!(end, Ok(PageEnd::NotAList)), "{start}");
            assert!(rest.limit() > 8 << 20, "{start}: {} bytes are unread", rest.limit());
        }
    }
}
