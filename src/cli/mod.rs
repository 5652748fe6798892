//! The command line: one file a verb, and the only code that prints.

mod access;
pub mod answer;
pub mod args;
mod bars;
mod blob;
mod cache;
mod chain;
mod completions;
mod copy;
mod copying;
mod digest;
mod hashed;
mod inspect;
mod limit;
mod list;
mod load;
mod login;
mod logout;
mod machines;
mod man;
mod mirroring;
mod naming;
mod open;
mod options;
mod place;
pub mod progress;
mod report;
mod save;
mod serve;
pub mod signals;
mod survey;
mod tag;
mod verify;

use answer::Answer;
use args::Verb;
use imgmv::Result;
use imgmv::cancel::Cancel;
use imgmv::progress::Watch;
use progress::Screen;
use signals::Signals;
use std::sync::Arc;

/// What every verb is given.
pub struct Run {
    pub screen: Arc<Screen>,
    pub cancel: Cancel,
    pub answer: Answer,
    pub signals: Signals,
}

impl Run {
    fn watch(&self) -> Arc<dyn Watch> {
        self.screen.clone()
    }
}

impl Verb {
    pub fn run(self, run: &Run) -> Result<()> {
        match self {
            Verb::Copy(copy) => copy.run(run),
            Verb::Save(save) => save.run(run),
            Verb::Load(load) => load.run(run),
            Verb::Serve(serve) => serve.run(run),
            Verb::Tag(tag) => tag.run(run),
            Verb::List(list) => list.run(run),
            Verb::Inspect(inspect) => inspect.run(run),
            Verb::Blob(blob) => blob.run(run),
            Verb::Digest(digest) => digest.run(run),
            Verb::Verify(verify) => verify.run(run),
            Verb::Cache(cache) => cache.run(run),
            Verb::Login(login) => login.run(run),
            Verb::Logout(logout) => logout.run(run),
            Verb::Completions(completions) => completions.run(run),
            Verb::Man(man) => man.run(run),
        }
    }
}
