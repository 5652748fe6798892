//! The end of a load: the images are verified and tagged, or the load is undone and possibly repeated completely.

use super::kind::{DetectedEngine, Loader};
use super::sink::{EngineSink, Form, RunningLoad, SinkState};
use super::verify;
use crate::error::{Error, Result};
use crate::remote::capture;
use crate::sink::Finish;
use std::sync::atomic::Ordering;

impl EngineSink {
    /// Verifies that the engine has the expected images under their names.
    pub(super) fn verify_load(&self, state: &SinkState) -> Result<()> {
        let mut expected = state.expected.to_verify(&self.found);
        let inspector = self.inspector(state);
        if state.form == Form::Relayed {
            // The engine created the manifests; podman also created a new config.
            expected.iter_mut().for_each(|image| image.root = None);
            if self.found.loader == Loader::Podman {
                expected.iter_mut().for_each(|image| image.config = None);
            }
        }
        if !state.temporary.is_empty() {
            return state.temporary.verify_and_rename(self.host.as_ref(), self.tagger(state), inspector, &expected);
        }
        verify::verify(self.host.as_ref(), inspector, &expected)
    }

    fn inspector<'s>(&'s self, state: &'s SinkState) -> &'s DetectedEngine {
        state.inspector.as_ref().unwrap_or(&self.found)
    }

    /// The engine that tags. nerdctl's `tag` may need content of other platforms that was not sent, so ctr is
    /// preferred.
    fn tagger<'s>(&'s self, state: &'s SinkState) -> &'s DetectedEngine {
        match self.found.loader {
            Loader::Docker(_) => &self.found,
            _ => self.inspector(state),
        }
    }

    /// Removes the pin of a failed load. The script keeps it for the next run, since this process may have been killed.
    pub(super) fn unpin(&self, state: &SinkState) {
        let inspector = self.inspector(state);
        if inspector.loader == Loader::Ctr {
            let pin = self.run_id.pin().to_string();
            let argv = inspector.command(&["content", "rm", &pin]);
            // The next run sweeps a pin that cannot be removed now.
            let _ = capture(self.host.as_ref(), &argv.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }

    /// Returns `SendAll` with the reason if sending the complete image can help; otherwise fails with `error`.
    pub(super) fn recover(&self, state: &mut SinkState, load: &RunningLoad, error: Error) -> Result<Finish> {
        let first = self.attempt.load(Ordering::SeqCst) == 0;
        let unrecoverable = load.command.is_unrecoverable() || self.cancel.raised();
        if !load.command.is_connection_lost() {
            state.temporary.remove(self.host.as_ref(), self.tagger(state));
            self.unpin(state);
        }
        if state.delta.skipped.is_empty() || !first || unrecoverable {
            return Err(error);
        }
        self.attempt.store(1, Ordering::SeqCst);
        *state = SinkState { queried: true, ..SinkState::default() };
        Ok(Finish::SendAll(format!("{error} (layers that the host reported were skipped)")))
    }
}
