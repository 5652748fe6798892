//! `imgmv completions`: the completion script for a shell.

use crate::Result;
use crate::cli::context::CliRun;
use clap::{Args, Command};
use clap_complete::Shell;

/// Print the completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgmv completions bash > ~/.local/share/bash-completion/completions/imgmv
  imgmv completions zsh > \"${fpath[1]}/_imgmv\"
  imgmv completions fish > ~/.config/fish/completions/imgmv.fish")]
pub struct CompletionsVerb {
    /// Shell to print the script for
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl CompletionsVerb {
    pub fn run(self, run: &CliRun, mut command: Command) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "imgmv", &mut script);
        run.answer.bytes(&script)
    }
}
