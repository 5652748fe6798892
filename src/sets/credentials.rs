//! The credentials of documents: which host they are for, and their templates.
//!
//! A template is expanded in a user name or a password only, and only if the user allows it. Messages never have the
//! value of a credential.

use super::tree::Value;
use super::{HostOptions, Login, ReadOptions};
use crate::error::{Error, Result};
use crate::image::is_host;
use crate::message::shortened;
use crate::transport::registry::Secret;

/// The maximum length of a user name or password.
const MAX_CREDENTIAL_BYTES: usize = 64 << 10;

/// How a format writes templates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Templates {
    /// The format has no templates.
    None,
    /// `{{env "NAME"}}` and `{{file "PATH"}}` anywhere in the text.
    Go,
    /// The complete text is `${NAME}` or `$NAME`.
    Variable,
}

/// Options for one host while they are read.
#[derive(Default)]
pub(super) struct HostFields<'t> {
    pub user: Option<Value<'t>>,
    pub password: Option<Value<'t>>,
    pub insecure: bool,
}

impl HostFields<'_> {
    /// The options for `registry`: `HOST[:PORT]` or `HOST[:PORT]/PATH`.
    ///
    /// # Errors
    /// `Invalid`: the host is not one, or half of the credentials is missing. `Usage`: a template that is not allowed.
    pub fn options(
        &self,
        registry: &str,
        at: Value<'_>,
        templates: Templates,
        read: &ReadOptions<'_>,
    ) -> Result<HostOptions> {
        let (host, path) = registry.split_once('/').unwrap_or((registry, ""));
        if !is_host(host) {
            return Err(at.problem(format!("{:?} is not a registry; expected HOST[:PORT]", shortened(registry))));
        }
        let login = match (self.user, self.password) {
            (Some(user), Some(password)) => Some(Login {
                user: expanded(user, templates, read)?,
                password: Secret::new(expanded(password, templates, read)?),
            }),
            (None, None) => None,
            (user, _) => {
                let missing = if user.is_some() { "password" } else { "user name" };
                return Err(at.problem(format!("the {missing} is missing; write both or leave both out")));
            }
        };
        // The names by which docker knows its registry are one host.
        let host = if matches!(host, "index.docker.io" | "registry-1.docker.io") { "docker.io" } else { host };
        Ok(HostOptions { host: host.into(), path: path.trim_end_matches('/').into(), login, insecure: self.insecure })
    }
}

/// The text of a credential, with its templates expanded.
fn expanded(value: Value<'_>, templates: Templates, read: &ReadOptions<'_>) -> Result<String> {
    let text = value.text()?;
    let has_template = match templates {
        Templates::None => false,
        Templates::Go => text.contains("{{"),
        Templates::Variable => variable(text).is_some(),
    };
    if has_template && !read.allow_templates {
        let problem =
            "the credential is a template; expand templates with --allow-templates, or log in with imgmv login";
        return Err(Error::usage(value.problem(problem).to_string()));
    }
    let text = match variable(text).filter(|_| templates == Templates::Variable) {
        Some(name) => environment(name, read).map_err(|problem| value.problem(problem))?,
        None if has_template => go_template(text, value, read)?,
        None => text.to_owned(),
    };
    if text.len() > MAX_CREDENTIAL_BYTES || text.contains(|c: char| c.is_control()) {
        let problem = format!("the credential has control characters or more than {MAX_CREDENTIAL_BYTES} bytes");
        return Err(value.problem(problem));
    }
    Ok(text)
}

/// The name in `${NAME}` or `$NAME`.
fn variable(text: &str) -> Option<&str> {
    let name = text.strip_prefix('$')?;
    let name = name.strip_prefix('{').and_then(|name| name.strip_suffix('}')).unwrap_or(name);
    is_variable_name(name).then_some(name)
}

fn is_variable_name(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    first && name.len() <= 255 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn environment(name: &str, read: &ReadOptions<'_>) -> Result<String, String> {
    (read.env)(name).ok_or_else(|| format!("the variable {name} is not set; set it"))
}

/// Expands `{{env "NAME"}}` and `{{file "PATH"}}`. The line end of a file is not a part of the credential.
fn go_template(text: &str, value: Value<'_>, read: &ReadOptions<'_>) -> Result<String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((literal, behind)) = rest.split_once("{{") {
        expanded += literal;
        let Some((call, behind)) = behind.split_once("}}") else {
            return Err(value.problem("a template is not closed; add }}"));
        };
        rest = behind;
        expanded += &match parse_call(call) {
            Some(("env", name)) if is_variable_name(name) => {
                environment(name, read).map_err(|problem| value.problem(problem))?
            }
            Some(("file", path)) => {
                let content = (read.file)(path).map_err(|error| error.at(value.place()))?;
                content.trim_end_matches(['\r', '\n']).to_owned()
            }
            _ => return Err(value.problem("the call of a template is unknown; expected env \"NAME\" or file \"PATH\"")),
        };
        if expanded.len() > MAX_CREDENTIAL_BYTES {
            break;
        }
    }
    Ok(expanded + rest)
}

/// The function and the argument of `FUNCTION "ARGUMENT"`. An escape in the argument is not known.
fn parse_call(call: &str) -> Option<(&str, &str)> {
    let (function, argument) = call.trim().split_once(char::is_whitespace).unwrap_or((call.trim(), ""));
    let argument = argument.trim();
    let quoted = |quote| argument.strip_prefix(quote)?.strip_suffix(quote);
    let argument = quoted('"').filter(|text| !text.contains('\\')).or_else(|| quoted('`'))?;
    (!argument.is_empty() && !argument.contains(['"', '`'])).then_some((function, argument))
}
