//! `imgmv completions`: what a shell needs to complete words.

use crate::Result;
use crate::cli::context::Run;
use clap::{Args, Command};
use clap_complete::Shell;

/// Print what a shell needs to complete imgmv's words
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgmv completions bash > ~/.local/share/bash-completion/completions/imgmv
  imgmv completions zsh > \"${fpath[1]}/_imgmv\"
  imgmv completions fish > ~/.config/fish/completions/imgmv.fish")]
pub struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completions {
    pub fn run(self, run: &Run, mut whole: Command) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut whole, "imgmv", &mut script);
        run.answer.bytes(&script)
    }
}
