//! The configs of two images (image-spec, config.md): environment, command, labels and the other fields that a user sets.

use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Fields of the config itself, with their names for the user.
const TOP_FIELDS: [(&str, &str); 6] = [
    ("created", "created"),
    ("author", "author"),
    ("os", "os"),
    ("os.version", "os.version"),
    ("architecture", "architecture"),
    ("variant", "variant"),
];
/// Fields of its `config` with one value.
const VALUE_FIELDS: [(&str, &str); 9] = [
    ("User", "user"),
    ("WorkingDir", "workdir"),
    ("Entrypoint", "entrypoint"),
    ("Cmd", "cmd"),
    ("Shell", "shell"),
    ("OnBuild", "onbuild"),
    ("Healthcheck", "healthcheck"),
    ("StopSignal", "stopsignal"),
    ("ArgsEscaped", "argsescaped"),
];
/// Fields of its `config` with a value for each key.
const KEY_FIELDS: [(&str, &str); 4] =
    [("Env", "env"), ("Labels", "label"), ("ExposedPorts", "port"), ("Volumes", "volume")];

/// A field with another value.
#[derive(Debug, PartialEq, Serialize)]
pub struct ConfigDifference {
    pub field: &'static str,
    /// The variable, the label, the port or the volume.
    pub key: Option<String>,
    /// Null where the image does not have it.
    pub a: Option<String>,
    pub b: Option<String>,
}

/// Compares two configs; null is an artifact's.
pub fn differences(a: &Value, b: &Value) -> Vec<ConfigDifference> {
    let mut found = Vec::new();
    let mut compare = |field: &'static str, key: Option<&str>, a: Option<String>, b: Option<String>| {
        if a != b {
            found.push(ConfigDifference { field, key: key.map(str::to_owned), a, b });
        }
    };
    for (field, name) in TOP_FIELDS {
        compare(name, None, text(a.get(field)), text(b.get(field)));
    }
    let (a, b) = (a.get("config").unwrap_or(&Value::Null), b.get("config").unwrap_or(&Value::Null));
    for (field, name) in VALUE_FIELDS {
        compare(name, None, text(a.get(field)), text(b.get(field)));
    }
    for (field, name) in KEY_FIELDS {
        let (of_a, of_b) = (keyed(a.get(field)), keyed(b.get(field)));
        for key in of_a.keys().chain(of_b.keys().filter(|key| !of_a.contains_key(*key))) {
            compare(name, Some(key), of_a.get(key).cloned(), of_b.get(key).cloned());
        }
    }
    found
}

/// A value as text; `None` for an empty one, which means the same as a missing one.
fn text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::Null | Value::Bool(false) => None,
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Array(list) if list.is_empty() => None,
        Value::Object(object) if object.is_empty() => None,
        other => Some(other.to_string()),
    }
}

/// The keys and values of a map, or of a list of `KEY=VALUE`.
fn keyed(value: Option<&Value>) -> BTreeMap<String, String> {
    let of_map = |map: &Map<String, Value>| {
        map.iter().map(|(key, value)| (key.clone(), text(Some(value)).unwrap_or_default())).collect()
    };
    let of_list = |list: &[Value]| {
        let pairs = list.iter().filter_map(Value::as_str);
        let pair = |text: &str| {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            (key.to_owned(), value.to_owned())
        };
        pairs.map(pair).collect()
    };
    match value {
        Some(Value::Object(map)) => of_map(map),
        Some(Value::Array(list)) => of_list(list),
        _ => BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_compared_by_key_and_an_empty_one_is_a_missing_one() {
        let a = json!({ "created": "x", "config": { "Env": ["PATH=/bin", "A=1"], "Cmd": ["a"], "User": "",
                        "Labels": { "l": "1" }, "Volumes": { "/v": {} } } });
        let b = json!({ "created": "x", "config": { "Env": ["A=1", "PATH=/sbin"], "Cmd": ["a", "b"], "Entrypoint": null,
                        "Labels": { "l": "2", "m": "3" }, "ExposedPorts": { "80/tcp": {} } } });
        let lines: Vec<String> = differences(&a, &b)
            .iter()
            .map(|one| format!("{} {:?} {:?} {:?}", one.field, one.key.as_deref().unwrap_or("-"), one.a, one.b))
            .collect();
        assert_eq!(
            lines,
            [
                r#"cmd "-" Some("[\"a\"]") Some("[\"a\",\"b\"]")"#,
                r#"env "PATH" Some("/bin") Some("/sbin")"#,
                r#"label "l" Some("1") Some("2")"#,
                r#"label "m" None Some("3")"#,
                r#"port "80/tcp" None Some("")"#,
                r#"volume "/v" Some("") None"#,
            ]
        );
        assert!(differences(&b, &b).is_empty());
        assert!(differences(&Value::Null, &json!([1])).is_empty());
    }
}
