//! The wording rule of CONTRIBUTING.md: no forbidden phrase in comments, help, messages, README or ARCHITECTURE.

use std::fs;
use std::path::Path;

/// Phrases without a named subject, or with a plainer word in the field. Compared word by word, in lower case.
const FORBIDDEN: &[&str] = &[
    "is no",
    "are no",
    "was no",
    "were no",
    "anew",
    "go on",
    "goes on",
    "going on",
    "gone on",
    "went on",
    "whoever",
    "whomever",
    "nobody",
    "somebody",
    "anybody",
    "everybody",
    "no one",
    "someone",
    "lie",
    "lies",
    "lain",
    "pass once",
    "passes once",
    "of its own",
    "of their own",
    "pack",
    "packs",
    "packed",
    "packing",
    "unpack",
    "unpacks",
    "unpacked",
    "unpacking",
    "beside",
    "besides",
    "take up",
    "takes up",
    "taken up",
    "hear",
    "hears",
    "heard",
    "begun",
    "lack",
    "lacks",
    "lacking",
    "what is there",
    "over there",
    "so many",
    "so much",
    "whence",
    "wherein",
    "thereof",
    "thereby",
];

/// A doc comment that begins so has no named subject.
const FORBIDDEN_STARTS: &[&str] = &["what", "who", "whose", "so", "such"];

/// Containerd and docker call the extraction of a layer into a snapshot "unpack".
const UNPACK_ALLOWED: &[&str] = &["src/transport/engine/", "src/transport/containerd/"];

/// A stretch of prose in a file.
struct Text {
    line: usize,
    words: String,
    doc_start: bool,
}

/// The comments and the string literals with a space of Rust code, up to its unit tests. Raw strings are data.
fn in_rust(code: &str) -> Vec<Text> {
    let code = code.split("\n#[cfg(test)]\nmod ").next().unwrap_or(code);
    let mut texts: Vec<Text> = Vec::new();
    let (mut rest, mut line) = (code, 1);
    let mut comment_before = 0;
    while let Some(first) = rest.chars().next() {
        let taken = if rest.starts_with("//") {
            let end = rest.find('\n').unwrap_or(rest.len());
            let is_doc = rest.starts_with("///") || rest.starts_with("//!");
            let words = rest[..end].trim_start_matches(['/', '!']).to_owned();
            match texts.last_mut() {
                // A comment of several lines is one text.
                Some(text) if comment_before + 1 == line && !words.trim().is_empty() => text.words += &words,
                _ => texts.push(Text { line, words, doc_start: is_doc }),
            }
            comment_before = if texts.last().is_some_and(|text| text.words.trim().is_empty()) { 0 } else { line };
            end
        } else if let Some(hashes) = raw_string(rest) {
            let close = format!("\"{}", "#".repeat(hashes));
            let open = 2 + hashes;
            rest[open..].find(&close).map_or(rest.len(), |end| open + end + close.len())
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
            rest[1..].find('\'').map_or(1, |end| end + 2)
        } else if first == '"' {
            let end = string_end(rest);
            let words = rest[1..end - 1].to_owned();
            if words.contains(' ') {
                texts.push(Text { line, words, doc_start: false });
            }
            end
        } else {
            first.len_utf8()
        };
        line += rest[..taken].matches('\n').count();
        rest = &rest[taken..];
    }
    texts
}

/// The number of `#` of the raw string that `text` begins with.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(hashes)
}

/// The length in bytes of the string literal that `text` begins with.
fn string_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

fn in_markdown(text: &str) -> Vec<Text> {
    let numbered = text.lines().enumerate();
    numbered.map(|(n, words)| Text { line: n + 1, words: words.to_owned(), doc_start: false }).collect()
}

/// The words of `text` in lower case; `code` in backquotes is left out, and ends a phrase.
fn words(text: &str) -> Vec<String> {
    let prose: Vec<&str> = text.split('`').step_by(2).collect();
    let prose = prose.join(" ` ").replace("\\n", " ").to_lowercase();
    let split = prose.split(|c: char| !(c.is_alphanumeric() || "'`{}.;:,".contains(c)));
    let cut = split.flat_map(|word| word.split_inclusive(['.', ';', ':', ',']));
    cut.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Each forbidden phrase in `text`.
fn found(text: &Text, path: &str) -> Vec<String> {
    let words = words(&text.words);
    let plain = |word: &String| word.trim_matches(['.', ';', ':', ',', '\'']).to_owned();
    let mut found: Vec<String> = Vec::new();
    for phrase in FORBIDDEN {
        let wanted: Vec<&str> = phrase.split(' ').collect();
        let hit = words.windows(wanted.len()).any(|window| {
            let (last, before) = window.split_last().unwrap();
            // A sentence or clause that ends inside the phrase divides it.
            before.iter().zip(&wanted).all(|(word, wanted)| word == wanted) && plain(last) == wanted[wanted.len() - 1]
        });
        let allowed = phrase.contains("unpack") && UNPACK_ALLOWED.iter().any(|room| path.starts_with(room));
        if hit && !allowed {
            found.push((*phrase).to_owned());
        }
    }
    if text.doc_start && words.first().is_some_and(|first| FORBIDDEN_STARTS.contains(&&plain(first)[..])) {
        found.push(format!("a doc comment that begins with {:?}", words[0]));
    }
    found
}

fn check(path: &str, texts: &[Text]) -> Vec<String> {
    let lines = texts.iter().flat_map(|text| {
        found(text, path)
            .into_iter()
            .map(move |phrase| format!("{path}:{}: {phrase}: {}", text.line, text.words.trim()))
    });
    lines.collect()
}

#[test]
fn comments_help_and_messages_follow_the_wording_rule() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong: Vec<String> = Vec::new();
    let (mut files, mut texts) = (0, 0);
    for entry in walkdir::WalkDir::new(root.join("src")).sort_by_file_name() {
        let entry = entry.unwrap();
        if entry.path().extension().is_none_or(|ending| ending != "rs") {
            continue;
        }
        let path = entry.path().strip_prefix(root).unwrap().display().to_string();
        let pieces = in_rust(&fs::read_to_string(entry.path()).unwrap());
        (files, texts) = (files + 1, texts + pieces.len());
        wrong.extend(check(&path, &pieces));
    }
    for path in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        wrong.extend(check(path, &in_markdown(&fs::read_to_string(root.join(path)).unwrap())));
    }
    assert!(files > 200 && texts > 5000, "only {files} files with {texts} texts were read");
    assert!(wrong.is_empty(), "{} phrases:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_forbidden_phrase_is_found_wherever_prose_is() {
    let code = "//! Nobody reads this.\n\n/// What it is.\n/// So it continues.\nfn f() {\n    // packed anew\n    \
                say(\"there is no \\\"image\\\" here\");\n    let s = r#\"nobody in data\"#;\n    let c = '\"';\n    \
                let word = \"nobody\";\n    let t = \"it is `nobody`; is. No image\";\n}\n\n#[cfg(test)]\nmod tests { /* nobody */ }\n";
    let wrong = check("src/x.rs", &in_rust(code));
    let told: Vec<String> = wrong.iter().map(|line| line.splitn(4, ':').skip(1).take(2).collect()).collect();
    let expected =
        ["1 nobody", "3 a doc comment that begins with \"what\"", "6 anew", "6 packed", "7 is no"].map(str::to_owned);
    assert_eq!(told, expected, "{wrong:#?}");
}
