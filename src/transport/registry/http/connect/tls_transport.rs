//! TLS over any connection.

use super::deadline::ConnectDeadline;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{Read, Write};
use std::sync::Arc;
use ureq::Error;
use ureq::config::Config;
use ureq::unversioned::transport::{Buffers, LazyBuffers, NextTimeout, Transport, TransportAdapter};

/// Adds TLS to `connection` with a handshake with `host`, a name or an IP address, which may be in brackets.
pub fn wrap(
    connection: Box<dyn Transport>,
    host: &str,
    tls: &Arc<ClientConfig>,
    config: &Config,
    deadline: &ConnectDeadline,
) -> Result<Box<dyn Transport>, Error> {
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
    let name = name.map_err(|_| Error::Tls("the host is neither a DNS name nor an IP address"))?;
    let mut client = ClientConnection::new(tls.clone(), name).map_err(std::io::Error::other)?;
    let mut socket = TransportAdapter::new(connection, deadline.current_time.clone());
    socket.set_timeout(deadline.remaining());
    client.complete_io(&mut socket)?;
    let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
    Ok(Box::new(TlsTransport { stream: StreamOwned::new(client, socket), buffers }))
}

struct TlsTransport {
    stream: StreamOwned<ClientConnection, TransportAdapter>,
    buffers: LazyBuffers,
}

impl std::fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TLS over {:?}", self.stream.sock.inner())
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.sock.set_timeout(timeout);
        Ok(self.stream.write_all(&self.buffers.output()[..amount])?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.sock.set_timeout(timeout);
        let n = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(n);
        Ok(n > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}
