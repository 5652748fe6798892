//! Parses `WWW-Authenticate` (RFC 9110, sections 11.2 to 11.6.1): several challenges in one header, quoted and bare
//! values, and commas between parameters as well as between challenges. The input is untrusted.

/// A longer header is ignored.
const MAX_HEADER_BYTES: usize = 16 << 10;
/// A longer value is ignored.
const MAX_VALUE_BYTES: usize = 4 << 10;
/// Further challenges in one header are ignored.
const MAX_CHALLENGES: usize = 16;
const MAX_PARAMETERS: usize = 32;

/// An authentication scheme that a server offers, with its parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Challenge {
    /// In lower case: `basic`, `bearer`.
    pub scheme: String,
    /// Names in lower case.
    pub parameters: Vec<(String, String)>,
}

impl Challenge {
    /// Returns the URL of the token service, if this is `bearer` and has one.
    pub fn realm(&self) -> Option<&str> {
        self.parameter("realm").filter(|realm| self.scheme == "bearer" && !realm.is_empty())
    }

    /// Returns the first parameter called `name` (lower case).
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// Returns the challenges of one header value, in order. Skips text that is not a challenge, and values that are too
/// long or have no closing quote. Never fails.
pub fn parse(header: &str) -> Vec<Challenge> {
    if header.len() > MAX_HEADER_BYTES {
        return Vec::new();
    }
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = ChallengeText(header);
    loop {
        rest.skip(|c| c == ',' || c == ' ' || c == '\t');
        if rest.0.is_empty() {
            return challenges;
        }
        let word = rest.take(is_token);
        if word.is_empty() {
            rest.skip_one();
            continue;
        }
        match rest.value() {
            Some(value) => {
                if let (Some(current), Some(value)) = (challenges.last_mut(), value)
                    && value.len() <= MAX_VALUE_BYTES
                    && current.parameters.len() < MAX_PARAMETERS
                {
                    current.parameters.push((word.to_ascii_lowercase(), value));
                }
            }
            None if challenges.len() == MAX_CHALLENGES => return challenges,
            None => {
                challenges.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
                rest.skip_token68();
            }
        }
    }
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

struct ChallengeText<'a>(&'a str);

impl<'a> ChallengeText<'a> {
    fn take(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.0.find(|c| !wanted(c)).unwrap_or(self.0.len());
        let (head, tail) = self.0.split_at(end);
        self.0 = tail;
        head
    }

    fn skip(&mut self, unwanted: impl Fn(char) -> bool) {
        self.take(unwanted);
    }

    fn skip_one(&mut self) {
        let mut chars = self.0.chars();
        chars.next();
        self.0 = chars.as_str();
    }

    /// Reads the value after a parameter's name: `= "…"` or `= token`. Returns `None`, and reads nothing, without an
    /// `=`; `Some(None)` without a closing quote.
    fn value(&mut self) -> Option<Option<String>> {
        let after = self.0.trim_start_matches([' ', '\t']).strip_prefix('=')?;
        let mut rest = ChallengeText(after.trim_start_matches([' ', '\t']));
        let value = match rest.0.strip_prefix('"') {
            Some(quoted) => rest.quoted(quoted),
            // Some servers omit the quotes around URLs, so characters beyond a token's are accepted.
            None => Some(rest.take(|c| c != ',' && c != ' ' && c != '\t').to_owned()),
        };
        self.0 = rest.0;
        Some(value)
    }

    /// Reads a quoted string after its opening quote. Returns `None`, and reads to the end, without a closing quote.
    fn quoted(&mut self, text: &'a str) -> Option<String> {
        let mut value = String::new();
        let mut chars = text.chars();
        let closed = loop {
            match chars.next() {
                None => break false,
                Some('"') => break true,
                Some('\\') => value.extend(chars.next()),
                Some(c) => value.push(c),
            }
        };
        self.0 = chars.as_str();
        closed.then_some(value)
    }

    /// Skips a token68 after the scheme, as in `Negotiate TlRMTVNT==`; it is not a parameter.
    fn skip_token68(&mut self) {
        let mut ahead = ChallengeText(self.0.trim_start_matches([' ', '\t']));
        let word = ahead.take(|c| c.is_ascii_alphanumeric() || "-._~+/".contains(c));
        ahead.skip(|c| c == '=');
        let ends = ahead.0.trim_start_matches([' ', '\t']);
        if !word.is_empty() && (ends.is_empty() || ends.starts_with(',')) {
            self.0 = ahead.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(scheme: &str, parameters: &[(&str, &str)]) -> Challenge {
        let parameters = parameters.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Challenge { scheme: scheme.to_owned(), parameters }
    }

    #[test]
    fn every_shape_of_header_that_registries_send_is_read() {
        let bearer = one(
            "bearer",
            &[("realm", "https://auth/t?a=b,c"), ("service", "r"), ("scope", "repository:a/b:pull,push")],
        );
        let cases: &[(&str, Vec<Challenge>)] = &[
            (r#"Basic realm="a \"b\", c""#, vec![one("basic", &[("realm", r#"a "b", c"#)])]),
            (
                r#"Bearer realm="https://auth/t?a=b,c",service="r",scope="repository:a/b:pull,push""#,
                vec![bearer.clone()],
            ),
            (
                r#"Basic realm="x", BEARER Realm = "https://auth/t?a=b,c" , service=r ,scope="repository:a/b:pull,push""#,
                vec![one("basic", &[("realm", "x")]), bearer.clone()],
            ),
            (
                r#"Negotiate TlRMTVNT==, NTLM, Basic realm=x"#,
                vec![one("negotiate", &[]), one("ntlm", &[]), one("basic", &[("realm", "x")])],
            ),
            ("Bearer realm=https://auth/t", vec![one("bearer", &[("realm", "https://auth/t")])]),
            (r#"Basic realm="never closed"#, vec![one("basic", &[])]),
            (
                r#"Bearer realm="http://auth/t,service="r""#,
                vec![one("bearer", &[("realm", "http://auth/t,service=")]), one("r", &[])],
            ),
            (r#", ,, Basic ,"#, vec![one("basic", &[])]),
            ("", vec![]),
            ("\"\" = é", vec![]),
        ];
        for (header, expected) in cases {
            assert_eq!(&parse(header), expected, "{header}");
        }
    }

    #[test]
    fn a_flood_of_challenges_is_bounded() {
        assert_eq!(parse(&"Basic realm=x, ".repeat(1000)).len(), MAX_CHALLENGES);
        assert_eq!(parse(&"Basic realm=x, ".repeat(100_000)), []);
        assert_eq!(parse(&format!("Bearer realm=\"{}\"", "x".repeat(MAX_VALUE_BYTES + 1))), [one("bearer", &[])]);
        let many = format!("Bearer {}", "a=b,".repeat(1000));
        assert_eq!(parse(&many)[0].parameters.len(), MAX_PARAMETERS);
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_it_fail(header in "\\PC{0,200}") {
            parse(&header);
        }
    }
}
