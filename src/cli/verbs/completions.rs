//! `imgmv completions`: what a shell needs to complete words.

use crate::cli::Run;
use crate::cli::args::Cli;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use imgmv::Result;

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
    pub fn run(self, run: &Run) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "imgmv", &mut script);
        run.answer.bytes(&script)
    }
}
