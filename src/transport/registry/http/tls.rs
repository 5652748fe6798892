//! The TLS settings: trusted authorities from the system, the user and `certs.d` of docker and containers
//! (containers-certs.d(5)), and the client certificate.

use super::connect::verifier::Verifier;
use crate::error::{Error, Result};
use crate::transport::registry::options::{Access, Insecure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

/// The limit on a PEM file.
const MAX_PEM_BYTES: u64 = 4 << 20;

type Certificates = Vec<CertificateDer<'static>>;
type Builder = rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>;

/// Returns the settings for the registry's own host.
pub fn for_registry(access: &Access, host: &str) -> Result<Arc<ClientConfig>> {
    let mut named = Vec::new();
    let mut client = access.client_cert.clone();
    for dir in access.certs_dirs.iter().map(|dir| dir.join(host)) {
        let host_certs = CertsDir::read(&dir)?;
        for path in host_certs.authorities {
            named.extend(read_certificates(&path)?);
        }
        client = client.or(host_certs.client);
    }
    let client = client.map(|(certificate, key)| read_client_cert(&certificate, &key)).transpose()?;
    match access.insecure.is_allowed() {
        true => client_config(Trust::Anything, client),
        false => trusting(access, named, client),
    }
}

/// Returns the settings for token services and storage on other hosts, and for proxies: the same authorities of the
/// user, and no client certificate.
pub fn for_other_hosts(access: &Access) -> Result<Arc<ClientConfig>> {
    match access.insecure {
        Insecure::ByUser => client_config(Trust::Anything, None),
        Insecure::ByFiles | Insecure::ByDocument | Insecure::No => trusting(access, Vec::new(), None),
    }
}

/// Returns settings that trust no certificate and read no file, to detect whether a server speaks TLS.
pub fn for_probe() -> Result<Arc<ClientConfig>> {
    client_config(Trust::NoAuthority, None)
}

/// Returns the system's authorities. They may be a few hundred files, so they are read once.
fn system_authorities() -> &'static [CertificateDer<'static>] {
    static AUTHORITIES: OnceLock<Certificates> = OnceLock::new();
    // Unreadable files are skipped. Without any authority no handshake succeeds.
    AUTHORITIES.get_or_init(|| rustls_native_certs::load_native_certs().certs)
}

/// Trusts the `named` certificates, those in the user's own file, and the system's authorities.
fn trusting(access: &Access, mut named: Certificates, client: Option<ClientIdentity>) -> Result<Arc<ClientConfig>> {
    if let Some(path) = &access.ca {
        named.extend(read_certificates(path)?);
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(named.iter().chain(system_authorities()).cloned());
    client_config(Trust::Authorities(roots, named), client)
}

/// The server certificates that are trusted.
enum Trust {
    NoAuthority,
    Anything,
    /// Certificates of these authorities, and the certificates that the user named.
    Authorities(RootCertStore, Certificates),
}

fn client_config(trust: Trust, client: Option<ClientIdentity>) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(failed)?;
    let no_authority = |builder: Builder| builder.with_root_certificates(RootCertStore::empty());
    let builder = match trust {
        Trust::NoAuthority => no_authority(builder),
        Trust::Anything => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Verifier::AcceptAny(provider)))
        }
        Trust::Authorities(roots, named) => match Verifier::named(roots, named, &provider) {
            Some(verifier) => builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)),
            None => no_authority(builder),
        },
    };
    Ok(Arc::new(match client {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(failed)?,
        None => builder.with_no_client_auth(),
    }))
}

fn failed(error: rustls::Error) -> Error {
    Error::failed(format!("TLS: cannot apply the settings: {error}"))
}

/// The certificates for one host in a `certs.d` directory.
#[derive(Default)]
struct CertsDir {
    authorities: Vec<PathBuf>,
    client: Option<(PathBuf, PathBuf)>,
}

impl CertsDir {
    fn read(dir: &Path) -> Result<CertsDir> {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            // Most hosts have no such directory. One that is not readable is meant for docker only.
            Err(_) => return Ok(CertsDir::default()),
        };
        let mut found = CertsDir::default();
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        for path in paths {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => found.authorities.push(path),
                Some("cert") if found.client.is_none() => {
                    let key = path.with_extension("key");
                    if !key.exists() {
                        return Err(Error::not_found(format!(
                            "the client certificate {} has no key; expected {}",
                            path.display(),
                            key.display()
                        )));
                    }
                    found.client = Some((path, key));
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

/// Reads a PEM file.
fn read_pem(path: &Path) -> Result<Vec<u8>> {
    let failed = |e| Error::reading(format!("the certificate file {}", path.display()), e);
    if fs::metadata(path).map_err(failed)?.len() > MAX_PEM_BYTES {
        return Err(Error::invalid(format!(
            "{} is not a PEM file: it is larger than {MAX_PEM_BYTES} bytes",
            path.display()
        )));
    }
    fs::read(path).map_err(failed)
}

fn read_certificates(path: &Path) -> Result<Certificates> {
    let found: std::result::Result<Certificates, _> = CertificateDer::pem_slice_iter(&read_pem(path)?).collect();
    match found {
        Ok(found) if found.is_empty() => {
            Err(Error::invalid(format!("{} does not contain a certificate in PEM form", path.display())))
        }
        Ok(found) => Ok(found),
        Err(_) => Err(Error::invalid(format!("{} is not a PEM file", path.display()))),
    }
}

/// A certificate chain and the key of its first certificate.
type ClientIdentity = (Certificates, PrivateKeyDer<'static>);

fn read_client_cert(certificate: &Path, key: &Path) -> Result<ClientIdentity> {
    let chain = read_certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_slice(&read_pem(key)?).map_err(|_| {
        Error::invalid(format!("{} does not contain a private key in PEM form without a passphrase", key.display()))
    })?;
    check_key_matches(&chain, &private).map_err(|why| {
        Error::invalid(format!(
            "the key {1} does not belong to the certificate {0}: {why}",
            certificate.display(),
            key.display()
        ))
    })?;
    Ok((chain, private))
}

/// Fails if the key does not belong to the first certificate.
fn check_key_matches(chain: &Certificates, key: &PrivateKeyDer<'static>) -> std::result::Result<(), rustls::Error> {
    let provider = rustls::crypto::ring::default_provider();
    let key = provider.key_provider.load_private_key(key.clone_key())?;
    rustls::sign::CertifiedKey::new(chain.clone(), key).keys_match()
}
