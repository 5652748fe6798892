//! What every verb is given.

use super::output::answer::Answer;
use super::output::progress::Screen;
use super::signals::Signals;
use crate::cancel::Cancel;
use crate::progress::Watch;
use std::sync::Arc;

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
    pub fn member(&self, name: &str) -> Run {
        Run { watch: Screen::member(&self.screen, name), ..self.clone() }
    }

    pub fn watch(&self) -> Arc<dyn Watch> {
        self.watch.clone()
    }
}
