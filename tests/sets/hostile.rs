//! Documents that are wrong, or made to do harm. Each is refused with the place, what was expected and what was found.

use crate::shown::{no_templates, plain};
use imgmv::Kind;
use imgmv::internals::sets::{MAX_DOCUMENT_BYTES, read};

/// Documents, and a part of the message.
const WRONG: &[(&str, &str)] = &[
    ("", "the plain list lists no images"),
    ("# nothing\n", "the plain list lists no images"),
    ("---\n", "the document is empty; expected a list of images"),
    ("alpine\na b c\n", "line 2: 3 words, expected SRC or SRC DST"),
    ("alpine\nsync:\n", "line 2: sync: is not an image; the document begins as a list"),
    ("alpine\na\0b\n", "line 2: \"a?b\" has control characters"),
    ("alpine\n${HUB}/a\n", "line 2: ${HUB}/a has a template; templates are expanded in credentials only"),
    ("a:1:/x/", "line 1: a:1:/x/: a pattern selects tags"),
    ("a:/(/", "line 1: the regular expression (:"),
    ("- alpine\n- busybox\n", "the document (line 1): expected a map, found a list; write `images:` above it"),
    ("kind: Pod\nspec: {}\n", "the document (line 1): the format is unknown; expected a list of images"),
    ("services: {web: {image: a}}\n", "the format is unknown"),
    ("images: []\n", "the imgmv file lists no images"),
    ("images:\n", "the imgmv file lists no images"),
    ("defaults: {to: a/}\nimages:\n", "the imgmv file lists no images"),
    ("version: 1\ncreds: []\nsync:\n", "the regsync file lists no images"),
    ("tasks:\n", "the dregsy file lists no images"),
    ("images:\n- from: [a]\n", "images[0].from (line 2): expected a text, found a list"),
    ("images:\n- to: a\n", "images[0] (line 2): from is missing; add it"),
    ("images:\n- [a]\n", "images[0] (line 2): expected a map, found a list"),
    ("images:\n- from: a\n  tags: {latest: 0}\n", "images[0].tags.latest (line 3): expected a whole number from 1"),
    ("images:\n- from: a\n  tags: {latest: five}\n", "expected a whole number, found a text"),
    ("images:\n- from: a\n  tags: {regex: '('}\n", "images[0].tags.regex (line 3): the regular expression (:"),
    ("images:\n- from: a\n  tags: {semver: '>>1'}\n", "images[0].tags.semver (line 3): the version range >>1:"),
    ("images:\n- from: a\n  tags: [x y]\n", "images[0].tags[0] (line 3): \"x y\" is not a tag or a digest"),
    ("images:\n- from: a:1\n  tags: [x]\n", "images[0] (line 2): both from and tags select tags"),
    ("images:\n- from: a\n  referrers: maybe\n", "images[0].referrers (line 3): expected true or false, found a text"),
    ("images:\n- from: a\n  platforms: a/b/c/d\n", "images[0].platforms (line 3): \"a/b/c/d\" is not a platform"),
    ("images:\n- from: '{{ .Ref }}'\n", "images[0]: {{ .Ref }} has a template"),
    ("images:\n- \"a\\eb\"\n", "images[0]: \"a?b\" has control characters"),
    ("images: [a]\nimages: [b]\n", "line 2: the key \"images\" is there twice; remove one"),
    ("{\"images\": [\"a\"], \"images\": []}", "line 1: the key \"images\" is there twice"),
    ("images: [a\n", "line 1: not YAML or JSON: unclosed bracket"),
    ("images: [*x]\n", "line 1: not YAML or JSON: while parsing node, found unknown anchor"),
    ("images: &x [*x]\n", "line 1: an alias is inside the value that it stands for"),
    ("images: [!exec a]\n", "line 1: the value has a tag (!)"),
    ("---\n? [a]\n: b\n", "line 2: a key is a list, a map or an alias, expected a text"),
    ("{[a]: b}\n", "line 1: a key is a list, a map or an alias, expected a text"),
    ("images: [a]\n---\nimages: [b]\n", "a imgmv file has one document"),
    ("version: 2\nsync: []\n", "version (line 1): expected 1"),
    ("sync:\n- {source: a, target: b}\n", "sync[0] (line 2): type is missing; add it"),
    ("sync:\n- {source: a, target: b, type: registry}\n", "sync[0].type (line 2): registry copies every repository"),
    ("sync:\n- {source: a, target: b, type: x}\n", "sync[0].type (line 2): expected image or repository"),
    ("sync:\n- {source: 'a:1', target: b, type: repository}\n", "sync[0] (line 2): source or target has a tag"),
    ("sync:\n- {source: '{{env \"X\"}}', target: b, type: image}\n", "sync[0]: {{env \"X\"}} has a template"),
    ("creds: [{user: a}]\nsync: []\n", "creds[0] (line 1): registry is missing"),
    ("creds: [{registry: a, user: b}]\nsync: []\n", "creds[0] (line 1): the password is missing"),
    ("creds: [{registry: -h, tls: disabled}]\nsync: []\n", "\"-h\" is not a registry; expected HOST[:PORT]"),
    ("a/b:1,2: c/d:1,2,3\n", "\"a/b:1,2\" (line 1): 3 tags for 2 tags of the source"),
    ("a/b: c/d:1\n", "the destination has a tag, but the source selects several"),
    ("a/b:1,.x: c/d\n", "\".x\" is not a tag or a digest"),
    ("registry.lan:\n  images: {a: tag}\n", "\"registry.lan\".images.a (line 2): expected a list, found a text"),
    ("registry.lan:\n  images: {a: []}\n  tls-verify: 2\n", "expected true or false"),
    ("images: [{<<: text, from: a}]\n", "images[0].\"<<\" (line 1): expected a map or a list of maps, found a text"),
    ("mappings: [{from: a, source: x}]\n", "mappings[0] (line 1): the registry \"x\" is not in registries"),
];

#[test]
fn a_wrong_document_is_refused_with_place_and_reason() {
    for (document, reason) in WRONG {
        let error = plain(document).expect_err(document);
        assert_eq!(error.kind(), Kind::Invalid, "{document}: {error}");
        assert!(error.to_string().contains(reason), "{document}\n{error}\n{reason}");
    }
}

#[test]
fn bytes_that_are_not_utf8_and_long_documents_are_refused() {
    let utf16: Vec<u8> = "\u{feff}alpine\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let error = read(&utf16, &no_templates()).unwrap_err();
    assert_eq!(error.to_string(), "line 1: the document is not UTF-8 text; save it as UTF-8");
    let error = read(&vec![b'\n'; MAX_DOCUMENT_BYTES + 1], &no_templates()).unwrap_err();
    assert!(error.to_string().contains("at most 16777216 are allowed"), "{error}");
}

#[test]
fn nesting_is_bounded_with_aliases_too() {
    let deep = |depth: usize| format!("images: [a]\nx: {}{}\n", "[".repeat(depth), "]".repeat(depth));
    assert!(plain(&deep(63)).is_ok());
    for document in [deep(64), deep(100_000), format!("images: [a]\nx:\n{}a\n", nested_block(64))] {
        let error = plain(&document).unwrap_err();
        assert!(
            error.to_string().contains("nested more than 64") || error.to_string().contains("recursion"),
            "{error}"
        );
    }
    let chain: String = (1..70).map(|nth| format!("x{nth}: &x{nth} [*x{}]\n", nth - 1)).collect();
    let error = plain(&format!("images: [a]\nx0: &x0 []\n{chain}")).unwrap_err();
    assert!(error.to_string().contains("nested more than 64 deep"), "{error}");
}

fn nested_block(depth: usize) -> String {
    (1..=depth).map(|level| format!("{}-\n", " ".repeat(level))).collect::<String>() + &" ".repeat(depth + 1)
}

#[test]
fn aliases_expand_to_ten_times_the_document_at_most() {
    let mut bomb = "x0: &x0 [aaaaaaaaaa, aaaaaaaaaa]\n".to_owned();
    for nth in 1..20 {
        let before = format!("*x{}, ", nth - 1);
        bomb += &format!("x{nth}: &x{nth} [{}]\n", before.repeat(9));
    }
    let error = plain(&format!("{bomb}images: [a]\n")).unwrap_err();
    assert!(error.to_string().contains("aliases expand to more than 65536 bytes"), "{error}");
    let merges: String = (1..200).map(|nth| format!("x{nth}: &x{nth} {{<<: *x{}, k{nth}: v}}\n", nth - 1)).collect();
    assert!(plain(&format!("x0: &x0 {{}}\n{merges}images: [a]\n")).is_err());
    let honest = format!(
        "x: &x {{to: registry.lan/, platforms: [linux/amd64]}}\nimages:\n{}",
        "- {<<: *x, from: a}\n".repeat(500)
    );
    assert_eq!(plain(&honest).unwrap().entries.len(), 500);
}

#[test]
fn merged_fields_give_way_to_those_of_the_entry() {
    let document = "x: &x {to: a/, referrers: true}\ny: &y {to: b/, platforms: [linux/arm64]}\nimages:\n\
                    - {<<: [*x, *y], from: app, referrers: false}\n";
    let set = plain(document).unwrap();
    assert_eq!(crate::shown::lines(&set)[1], "images[0]: app > a/ linux/arm64 no-referrers");
}

#[test]
fn a_message_is_one_short_line() {
    let long = "k".repeat(1 << 20);
    for document in [
        format!("{long}\u{1b}[2J\n"),
        format!("alpine\n{long} {long} {long}\n"),
        format!("images:\n- {{\"{long}\": 1, from: [a]}}\n"),
        format!("images: [\"{long}\"]\n"),
        format!("images: [a, {{from: a, tags: [\"{long}\"]}}]\n"),
        format!("images: [a, {{from: a, tags: {{regex: \"{long}\"}}}}]\n"),
        format!("images: [a, {{from: a, tags: {{semver: \"{long}\"}}}}]\n"),
        format!("images: [a, {{from: a, platforms: \"{long}\"}}]\n"),
        format!("creds: [{{registry: \"{long}\"}}]\nsync: []\n"),
        format!("mappings: [{{from: a, source: \"{long}\"}}]\n"),
        "images: [a, {from: b, \"x\\n\\e[2Jy\": 1, tags: 5 5}]\n".to_owned(),
    ] {
        let error = plain(&document).unwrap_err().to_string();
        assert!(error.chars().count() < 1000 && !error.contains(['\n', '\x1b']), "{} {error:.300}", error.len());
    }
}
