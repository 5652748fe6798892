//! How a load ends: what came is proved and named, or the load is taken back, and perhaps everything is sent.

use super::kind::{DetectedEngine, Loader};
use super::sink::{EngineSink, Form, Load, State};
use super::verify;
use crate::error::{Error, Result};
use crate::remote::capture;
use crate::sink::Finish;
use std::sync::atomic::Ordering;

impl EngineSink {
    /// What the load left is what was promised, under its names.
    pub(super) fn verify_load(&self, state: &State) -> Result<()> {
        let mut expected = state.expected.to_verify(&self.found);
        let inspector = self.inspector(state);
        if state.form == Form::Relayed {
            // The engine made the manifests; podman a config of its own, too.
            expected.iter_mut().for_each(|one| one.root = None);
            if self.found.loader == Loader::Podman {
                expected.iter_mut().for_each(|one| one.config = None);
            }
        }
        if !state.temporary.is_empty() {
            return state.temporary.verify_and_rename(self.host.as_ref(), self.tagger(state), inspector, &expected);
        }
        verify::verify(self.host.as_ref(), inspector, &expected)
    }

    fn inspector<'s>(&'s self, state: &'s State) -> &'s DetectedEngine {
        state.inspector.as_ref().unwrap_or(&self.found)
    }

    /// Who gives names. nerdctl's `tag` may want content that was left at the source.
    fn tagger<'s>(&'s self, state: &'s State) -> &'s DetectedEngine {
        match self.found.loader {
            Loader::Docker(_) => &self.found,
            _ => self.inspector(state),
        }
    }

    /// A load that failed keeps its pin for the next run, as it must when nobody is left to say otherwise.
    pub(super) fn unpin(&self, state: &State) {
        let inspector = self.inspector(state);
        if inspector.loader == Loader::Ctr {
            let pin = self.run_id.pin().to_string();
            let argv = inspector.command(&["content", "rm", &pin]);
            // What cannot be reached now the next run sweeps.
            let _ = capture(self.host.as_ref(), &argv.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }

    /// Why a delta failed in a way that sending everything may mend; else the error.
    pub(super) fn recover(&self, state: &mut State, load: &Load, error: Error) -> Result<Finish> {
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
        *state = State { asked: true, ..State::default() };
        Ok(Finish::SendAll(format!("{error} (layers that the host held were not sent)")))
    }
}
