//! Cancellation: a flag that every loop over bytes checks, and hooks that run as soon as it is raised (they end child
//! processes that would otherwise keep a pipe open).

use crate::error::{Error, Result};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

type Hook = Box<dyn Fn() + Send>;

/// The cancel flag of a run; clones share it.
#[derive(Clone, Default)]
pub struct Cancel(Arc<CancelState>);

#[derive(Default)]
struct CancelState {
    raised: AtomicBool,
    hooks: Mutex<Vec<Hook>>,
}

impl Cancel {
    /// Sets the flag and runs the hooks.
    pub fn raise(&self) {
        self.0.raised.store(true, Ordering::SeqCst);
        for hook in self.0.hooks.lock().unwrap_or_else(|e| e.into_inner()).iter() {
            hook();
        }
    }

    /// Whether the flag is set.
    pub fn raised(&self) -> bool {
        self.0.raised.load(Ordering::Relaxed)
    }

    /// Fails with `Interrupted` once the flag is set.
    pub fn check(&self) -> Result<()> {
        if self.raised() { Err(Error::interrupted()) } else { Ok(()) }
    }

    /// Adds a hook. [`Cancel::raise`] runs it on the thread that raises the flag, so it must not block.
    pub fn on_raise(&self, hook: impl Fn() + Send + 'static) {
        self.0.hooks.lock().unwrap_or_else(|e| e.into_inner()).push(Box::new(hook));
    }
}
