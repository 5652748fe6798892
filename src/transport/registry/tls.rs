//! What is trusted over TLS: the system's authorities, the user's own, and docker's and containers' `certs.d`
//! (containers-certs.d(5)); and the certificate that a registry may be shown.

use super::access::Access;
use crate::error::{Error, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// In bytes; a larger PEM file is refused.
const MAX_PEM: u64 = 4 << 20;

/// For connections to the registry's own host.
pub fn of_registry(access: &Access, host: &str) -> Result<TlsConfig> {
    let mut authorities = Vec::new();
    let mut client = access.client_cert.clone();
    for dir in access.certs_dirs.iter().map(|dir| dir.join(host)) {
        let here = CertsDir::read(&dir)?;
        for path in here.authorities {
            authorities.extend(certificates(&path)?);
        }
        client = client.or(here.client);
    }
    let client = client.map(|(certificate, key)| client_cert(&certificate, &key)).transpose()?;
    config(access, authorities, client)
}

/// For token services and storage on other hosts: the same authorities of the user's, no certificate of the client.
pub fn of_others(access: &Access) -> Result<TlsConfig> {
    config(access, Vec::new(), None)
}

/// Trusts nobody, and reads no file for that: enough to find out whether a server speaks TLS at all.
pub fn of_a_probe() -> TlsConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let nobody = RootCerts::Specific(Arc::default());
    TlsConfig::builder().unversioned_rustls_crypto_provider(provider).root_certs(nobody).build()
}

/// The system's authorities, read once: they are a few hundred files.
fn of_the_system() -> &'static [Certificate<'static>] {
    static READ: OnceLock<Vec<Certificate<'static>>> = OnceLock::new();
    READ.get_or_init(|| {
        // A system with a few files that cannot be read still has the others; with none at all no handshake succeeds.
        let found = rustls_native_certs::load_native_certs().certs;
        found.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect()
    })
}

fn config(access: &Access, more: Vec<Certificate<'static>>, client: Option<ClientCert>) -> Result<TlsConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = TlsConfig::builder().unversioned_rustls_crypto_provider(provider).client_cert(client);
    if access.insecure {
        return Ok(builder.disable_verification(true).build());
    }
    let mut trusted = more;
    if let Some(path) = &access.ca {
        trusted.extend(certificates(path)?);
    }
    trusted.extend_from_slice(of_the_system());
    Ok(builder.root_certs(RootCerts::Specific(Arc::new(trusted))).build())
}

/// One host's directory of certificates.
#[derive(Default)]
struct CertsDir {
    authorities: Vec<PathBuf>,
    client: Option<(PathBuf, PathBuf)>,
}

impl CertsDir {
    fn read(dir: &Path) -> Result<CertsDir> {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            // Most hosts have no such directory, and one that may not be read is docker's business.
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
                            "the client certificate {} has no key beside it; expected {}",
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

fn pem(path: &Path) -> Result<Vec<PemItem<'static>>> {
    let failed = |e| Error::reading(format!("the certificate file {}", path.display()), e);
    if fs::metadata(path).map_err(failed)?.len() > MAX_PEM {
        return Err(Error::invalid(format!("{} has more than {MAX_PEM} bytes: not a PEM file", path.display())));
    }
    let bytes = fs::read(path).map_err(failed)?;
    parse_pem(&bytes)
        .collect::<std::result::Result<_, _>>()
        .map_err(|_| Error::invalid(format!("{} is not a PEM file", path.display())))
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let found: Vec<_> = pem(path)?
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err(Error::invalid(format!("{} holds no certificate in PEM form", path.display())));
    }
    Ok(found)
}

fn client_cert(certificate: &Path, key: &Path) -> Result<ClientCert> {
    let chain = certificates(certificate)?;
    let private = pem(key)?.into_iter().find_map(|item| match item {
        PemItem::PrivateKey(key) => Some(key),
        _ => None,
    });
    let private = private.ok_or_else(|| {
        Error::invalid(format!("{} holds no private key in PEM form (one without a passphrase)", key.display()))
    })?;
    fits(&chain, &private).map_err(|why| {
        Error::invalid(format!("{} and {} do not go together: {why}", certificate.display(), key.display()))
    })?;
    Ok(ClientCert::new_with_certs(&chain, private))
}

/// ureq takes it for granted that certificate and key fit; rustls says whether they do.
fn fits(chain: &[Certificate<'static>], key: &PrivateKey<'static>) -> std::result::Result<(), rustls::Error> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = chain.iter().map(|certificate| CertificateDer::from(certificate.der().to_vec())).collect();
    let key = PrivateKeyDer::try_from(key.der().to_vec()).map_err(|why| rustls::Error::General(why.to_owned()))?;
    let provider = rustls::crypto::ring::default_provider();
    let key = provider.key_provider.load_private_key(key)?;
    rustls::sign::CertifiedKey::new(chain, key).keys_match()
}
