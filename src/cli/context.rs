//! The context of a run: its output, its cancel flag and its signals.

use super::output::answer::Answer;
use super::output::progress::Screen;
use super::signals::Signals;
use crate::cancel::Cancel;
use crate::progress::Watch;
use crate::transport::registry::RegistryPool;
use std::sync::Arc;

/// The context that every verb receives.
#[derive(Clone)]
pub struct CliRun {
    pub screen: Arc<Screen>,
    /// The receiver of the engine's events: the screen, or its part for one destination.
    watch: Arc<dyn Watch>,
    pub cancel: Cancel,
    pub answer: Arc<Answer>,
    pub signals: Signals,
    /// The registries that the run has used, shared by all its sources and destinations.
    pub registries: RegistryPool,
}

impl CliRun {
    pub fn new(screen: Arc<Screen>, cancel: Cancel, answer: Answer, signals: Signals) -> CliRun {
        CliRun {
            watch: screen.clone(),
            screen,
            cancel,
            answer: Arc::new(answer),
            signals,
            registries: RegistryPool::default(),
        }
    }

    /// Returns the context of one of several destinations, which the screen shows as `name`.
    pub fn for_destination(&self, name: &str) -> CliRun {
        CliRun { watch: Screen::for_destination(&self.screen, name), ..self.clone() }
    }

    pub fn watch(&self) -> Arc<dyn Watch> {
        self.watch.clone()
    }
}
