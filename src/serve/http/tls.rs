//! The server's TLS certificate.

use crate::error::{Error, Result};
use crate::serve::backend::reload::Reloading;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsAcceptor;

/// The files of a certificate chain and its private key (both PEM).
#[derive(Debug, Clone)]
pub struct Certificate {
    pub chain: PathBuf,
    pub key: PathBuf,
}

impl Certificate {
    /// Loads the files, and reloads them when the chain changes. If reloading fails, the old certificate stays.
    ///
    /// Fails with `Invalid` if a file is not valid, or the key does not match the chain.
    pub(crate) fn reloading_acceptor(&self) -> Result<Reloading<TlsAcceptor>> {
        let certificate = self.clone();
        let acceptor = Reloading::new(vec![self.chain.clone()], Duration::ZERO, move || certificate.load());
        acceptor.current()?;
        Ok(acceptor)
    }

    fn load(&self) -> Result<TlsAcceptor> {
        let wrong = |what: &str, why: &dyn std::fmt::Display| Error::invalid(format!("{what}: {why}"));
        let (chain, key) = (self.chain.display().to_string(), self.key.display().to_string());
        let read = |path: &PathBuf| std::fs::read(path).map_err(|e| Error::reading(path.display(), e));
        let certificates = CertificateDer::pem_slice_iter(&read(&self.chain)?).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.map_err(|e| wrong(&chain, &e))?;
        if certificates.is_empty() {
            return Err(wrong(&chain, &"the file does not contain a PEM certificate"));
        }
        let private = PrivateKeyDer::from_pem_slice(&read(&self.key)?).map_err(|e| wrong(&key, &e))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::failed(format!("cannot set up TLS: {e}")))?;
        let config = builder.with_no_client_auth().with_single_cert(certificates, private);
        let mut config = config.map_err(|e| wrong(&format!("{chain} and {key}"), &e))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
