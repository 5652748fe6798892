//! The command line: one file a verb, and the only code that prints.

mod address;
pub mod args;
mod copy_many;
mod open;
mod options;
pub mod output;
pub mod signals;
mod verbs;
mod verify_blobs;
mod vm_hosts;

use args::Verb;
use imgmv::Result;
use imgmv::cancel::Cancel;
use imgmv::progress::Watch;
use output::answer::Answer;
use output::progress::Screen;
use signals::Signals;
use std::sync::Arc;

/// What every verb is given.
#[derive(Clone)]
pub struct Run {
    pub screen: Arc<Screen>,
    /// Who hears of what happens: the screen, or one member's part of it.
    watch: Arc<dyn Watch>,
    pub cancel: Cancel,
    pub answer: Arc<Answer>,
    pub signals: Signals,
}

impl Run {
    pub fn new(screen: Arc<Screen>, cancel: Cancel, answer: Answer, signals: Signals) -> Run {
        Run { watch: screen.clone(), screen, cancel, answer: Arc::new(answer), signals }
    }

    /// The same for one of several destinations, called `name` on the screen.
    fn member(&self, name: &str) -> Run {
        Run { watch: Screen::member(&self.screen, name), ..self.clone() }
    }

    fn watch(&self) -> Arc<dyn Watch> {
        self.watch.clone()
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
