//! `imgmv man`, hidden: the man pages, made from the command line's own definition.

use super::Run;
use super::args::Cli;
use clap::{Args, Command, CommandFactory};
use imgmv::{Error, Result};
use std::path::{Path, PathBuf};

/// Write the man pages into DIR: one for each verb and imgmv.1
#[derive(Debug, Args)]
pub struct Man {
    /// The directory; it has to be there
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

impl Man {
    pub fn run(self, _: &Run) -> Result<()> {
        let mut root = Cli::command();
        root.build();
        page(&self.dir, root.clone(), "imgmv".to_owned())?;
        for verb in root.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help") {
            let name = format!("imgmv-{}", verb.get_name());
            page(&self.dir, verb.clone().version(env!("CARGO_PKG_VERSION")), name)?;
        }
        Ok(())
    }
}

fn page(dir: &Path, command: Command, name: String) -> Result<()> {
    let at = dir.join(format!("{name}.1"));
    let mut text = Vec::new();
    let man = clap_mangen::Man::new(command).title(name.to_uppercase()).manual("imgmv");
    man.render(&mut text).map_err(|error| Error::writing(at.display(), error))?;
    std::fs::write(&at, text).map_err(|error| Error::writing(at.display(), error))
}
