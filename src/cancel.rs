//! Stopping early: a flag that every loop over bytes looks at, and what has to be done at once when it is raised
//! (end child processes that would otherwise hold a pipe).

use crate::error::{Error, Result};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

type Hook = Box<dyn Fn() + Send>;

/// Shared by everything one run does.
#[derive(Clone, Default)]
pub struct Cancel(Arc<State>);

#[derive(Default)]
struct State {
    raised: AtomicBool,
    hooks: Mutex<Vec<Hook>>,
}

impl Cancel {
    /// Stops everything that shares this.
    pub fn raise(&self) {
        self.0.raised.store(true, Ordering::SeqCst);
        for hook in self.0.hooks.lock().unwrap_or_else(|e| e.into_inner()).iter() {
            hook();
        }
    }

    pub fn raised(&self) -> bool {
        self.0.raised.load(Ordering::Relaxed)
    }

    /// An error once it is raised.
    pub fn check(&self) -> Result<()> {
        if self.raised() { Err(Error::interrupted()) } else { Ok(()) }
    }

    /// Something to be done at once on [`Cancel::raise`], from the raising thread; must not block.
    pub fn on_raise(&self, hook: impl Fn() + Send + 'static) {
        self.0.hooks.lock().unwrap_or_else(|e| e.into_inner()).push(Box::new(hook));
    }
}
