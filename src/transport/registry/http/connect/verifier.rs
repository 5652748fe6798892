//! The certificates that a TLS client trusts: those that rustls's own verifier accepts, and self-signed certificates
//! that the user named. Most recipes for a private registry make a self-signed certificate that is marked as an
//! authority; curl, docker and skopeo accept it, rustls does not (`CaUsedAsEndEntity`).

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::sync::Arc;

/// The certificates of a server that are accepted.
#[derive(Debug)]
pub enum Verifier {
    /// Those that the standard verifier accepts, and those that the user named.
    Named { standard: Arc<WebPkiServerVerifier>, named: Vec<CertificateDer<'static>> },
    /// Every certificate, as `--src-insecure` asks for.
    AcceptAny(Arc<CryptoProvider>),
}

impl Verifier {
    /// `roots` are all authorities, the user's and the system's; `named` are the user's alone. Returns `None` if
    /// `roots` is empty.
    pub fn named(
        roots: RootCertStore,
        named: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Option<Verifier> {
        let standard = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().ok()?;
        Some(Verifier::Named { standard, named })
    }

    /// Checks a handshake's signature; not if every certificate is accepted.
    fn check_signature(
        &self,
        check: impl FnOnce(&WebPkiServerVerifier) -> Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self {
            Verifier::Named { standard, .. } => check(standard),
            Verifier::AcceptAny(_) => Ok(HandshakeSignatureValid::assertion()),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Verifier::Named { standard, named } = self else { return Ok(ServerCertVerified::assertion()) };
        let refused = match standard.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(error) if is_authority(&error) => error,
            verdict => return verdict,
        };
        // The standard verifier has checked the dates before it reports that the certificate is an authority's.
        if !named.iter().any(|own| own.as_ref() == end_entity.as_ref()) {
            return Err(refused);
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(|standard| standard.verify_tls12_signature(message, certificate, signed))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(|standard| standard.verify_tls13_signature(message, certificate, signed))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        match self {
            Verifier::Named { standard, .. } => standard.supported_verify_schemes(),
            Verifier::AcceptAny(provider) => provider.signature_verification_algorithms.supported_schemes(),
        }
    }
}

/// Whether a certificate's only fault is that it is marked as an authority.
pub fn is_authority(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(other)) = error else { return false };
    matches!(other.0.downcast_ref::<webpki::Error>(), Some(webpki::Error::CaUsedAsEndEntity))
}
