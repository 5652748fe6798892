//! `imgmv man` (hidden): generates the man pages from the definition of the command line.

use crate::{Error, Result};
use clap::{Args, Command};
use std::io;
use std::path::{Path, PathBuf};

/// Write the man pages to DIR: imgmv.1 and one for each verb
#[derive(Debug, Args)]
pub struct ManVerb {
    /// Existing directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

impl ManVerb {
    pub fn run(self, command: Command) -> Result<()> {
        let mut command = command.disable_help_subcommand(true);
        command.build();
        write(&self.dir, command.clone(), "imgmv")?;
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            write(&self.dir, verb.clone(), &format!("imgmv-{}", verb.get_name()))?;
        }
        Ok(())
    }
}

fn write(dir: &Path, command: Command, name: &str) -> Result<()> {
    let file = dir.join(format!("{name}.1"));
    let page = page(command, name).map_err(|error| Error::failed(format!("{name}: {error}")))?;
    std::fs::write(&file, page).map_err(|error| Error::writing(file.display(), error))
}

fn page(mut command: Command, name: &str) -> io::Result<Vec<u8>> {
    let usage = command.render_usage().to_string();
    let after = command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string);
    let usage = usage.trim_start_matches("Usage: ").to_owned();
    let verbs = command.has_subcommands();
    let man = clap_mangen::Man::new(command.override_usage(usage).disable_help_subcommand(true))
        .title(name.to_uppercase())
        .source(concat!("imgmv ", env!("CARGO_PKG_VERSION")))
        .manual("imgmv");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if verbs {
        man.render_subcommands_section(&mut page)?;
    }
    man.render_options_section(&mut page)?;
    page.extend(sections(&after.unwrap_or_default()).into_bytes());
    Ok(page)
}

/// The text after the help, as roff. A block whose first line ends in a colon becomes a section with unfilled lines.
fn sections(text: &str) -> String {
    let mut page = String::new();
    for block in text.split("\n\n") {
        match block.split_once(":\n") {
            Some((heading, lines)) if !heading.contains('\n') => {
                page += &format!(".SH \"{}\"\n.nf\n{}\n.fi\n", escaped(&heading.to_uppercase()), escaped(lines));
            }
            _ => page += &format!(".PP\n{}\n", escaped(block)),
        }
    }
    page
}

/// Escapes `text` for roff.
fn escaped(text: &str) -> String {
    let line = |line: &str| {
        let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        format!("{guard}{}", line.replace('\\', "\\e").replace('-', "\\-"))
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_below_the_help_is_never_taken_for_roff() {
        let page = sections("Examples:\n  a --b\n.SH c \\d\n\nplain");
        assert_eq!(page, ".SH \"EXAMPLES\"\n.nf\n  a \\-\\-b\n\\&.SH c \\ed\n.fi\n.PP\nplain\n");
    }
}
