//! `containerd:[REF]`: containerd on this host. It is read from its directory or by its socket, and written by its socket
//! or by an engine's commands.

use crate::progress::Event;
use crate::sink::Sink;
use crate::source::Selector;
use crate::transport::address::{Address, AddressProfile, Parsed, SelectedSource, ServeSource, Transport};
use crate::transport::containerd;
use crate::transport::engine::Engine;
use crate::transport::engine::address::EngineAddress;
use crate::transport::options::{Context, ReadOptions, WriteOptions};
use crate::transport::syntax::selector;
use crate::{Error, Kind, Result};
use std::fmt;

pub(crate) const CONTAINERD: Transport = Transport {
    scheme: "containerd:",
    syntax: "containerd:REF",
    help: &["containerd on this host, or of another one by a forwarded socket"],
    serve_forms: &[("containerd:", "containerd's images")],
    parse,
};

fn parse(_: &str, rest: &str) -> Parsed {
    Ok(Box::new(ContainerdAddress(EngineAddress::here("containerd:", &Engine::CONTAINERD, selector(rest)?))))
}

/// containerd of this host, and an image that it has.
#[derive(Debug)]
struct ContainerdAddress(EngineAddress);

impl fmt::Display for ContainerdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Address for ContainerdAddress {
    fn source(&self, options: &ReadOptions<'_>, context: &Context) -> Result<SelectedSource> {
        containerd::address::source(self.selector(), options, context)
    }

    /// Opens the socket; where it cannot be opened and is not named, an engine that uses it.
    fn sink(&self, options: &WriteOptions<'_>, context: &Context) -> Result<Box<dyn Sink>> {
        let by_command = match (options.engine, options.remote_command) {
            (Some(engine), _) => Some(format!("--engine {}", engine.name())),
            (None, Some(_)) => Some("--remote-command".to_owned()),
            (None, None) => None,
        };
        match (&by_command, options.address) {
            (Some(option), Some(_)) => Err(Error::usage(format!(
                "{option} loads by a command and --dst-address by the socket; remove one of them"
            ))),
            (Some(_), None) => self.0.sink(options, context),
            (None, Some(_)) => containerd::address::sink(options, context),
            (None, None) => match containerd::address::sink(options, context) {
                Err(error) if has_other_way(&error) => {
                    context.watch.event(Event::Detail(&format!("{error}; an engine's commands are used instead")));
                    self.0.sink(options, context)
                }
                opened => opened,
            },
        }
    }

    fn identity(&self) -> Option<String> {
        self.0.identity()
    }

    fn selector(&self) -> Option<&Selector> {
        self.0.selector()
    }

    fn profile(&self) -> AddressProfile {
        self.0.profile()
    }

    fn serve_source(&self, options: &ReadOptions<'_>, context: &Context) -> Result<ServeSource> {
        containerd::address::serve_source(self.selector(), options, context)
    }
}

/// Whether an engine's commands may reach a containerd whose socket failed with `error`.
fn has_other_way(error: &Error) -> bool {
    matches!(error.kind(), Kind::NotFound | Kind::Denied | Kind::RemoteHost)
}
