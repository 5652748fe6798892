//! Errors of connections, of requests without a response and of incomplete responses, and which of them a retry may
//! fix.

use super::connect::verifier;
use super::proxy::Proxy;
use crate::error::Error;
use crate::transport::registry::options::Access;
use rustls::{AlertDescription, CertificateError};
use std::{fmt, io};
use ureq::Timeout;

/// The failure of a request or of reading its response.
#[derive(Debug)]
pub enum TransportError {
    /// The connection broke or stalled; a retry may succeed.
    Transient(String),
    /// The host refuses connections, or its name does not exist.
    Unreachable(String),
    /// The server does not speak TLS.
    NotTls,
    /// A proxy refuses connections to this host and port.
    TunnelRefused(Error),
    /// A retry would fail the same way.
    Permanent(Error),
}

/// ureq carries this error from a connection to the request.
impl std::error::Error for TransportError {}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransportError::Transient(why) | TransportError::Unreachable(why) => f.write_str(why),
            TransportError::NotTls => f.write_str("it does not speak TLS"),
            TransportError::TunnelRefused(error) | TransportError::Permanent(error) => error.fmt(f),
        }
    }
}

/// Classifies the error of a request to `host`, which is reached with `access`.
pub fn from_request(error: ureq::Error, host: &str, access: &Access) -> TransportError {
    let seconds = access.timeout.as_secs_f32();
    match error {
        ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
            TransportError::Transient(format!("no connection within {seconds} seconds"))
        }
        ureq::Error::Timeout(Timeout::RecvResponse) => TransportError::Transient("no response in time".to_owned()),
        ureq::Error::Timeout(_) => TransportError::Transient(format!("no data was transferred for {seconds} seconds")),
        other => classify(other, host, Some(access)),
    }
}

/// Classifies the error of a connection to `proxy`.
pub fn from_proxy(error: ureq::Error, proxy: &Proxy) -> TransportError {
    let at_proxy = |why: String| format!("no connection to the proxy {proxy}: {why}");
    match classify(error, proxy.host(), None) {
        TransportError::Transient(why) => TransportError::Transient(at_proxy(why)),
        TransportError::Unreachable(why) => TransportError::Unreachable(at_proxy(why)),
        TransportError::NotTls => TransportError::Permanent(Error::network(format!(
            "the proxy {proxy} does not speak TLS; use http:// in its URL"
        ))),
        TransportError::TunnelRefused(error) | TransportError::Permanent(error) => {
            TransportError::Permanent(error.at(format!("the proxy {proxy}")))
        }
    }
}

/// Classifies the error of reading a body.
pub fn from_body(error: io::Error) -> TransportError {
    match ureq::Error::from(error) {
        ureq::Error::Timeout(_) => TransportError::Transient("no data arrived in time".to_owned()),
        error @ (ureq::Error::Io(_) | ureq::Error::Other(_)) => classify(error, "the registry", None),
        other => TransportError::Transient(other.to_string()),
    }
}

fn classify(error: ureq::Error, host: &str, access: Option<&Access>) -> TransportError {
    match error {
        ureq::Error::Other(other) => match other.downcast::<TransportError>() {
            Ok(own) => *own,
            Err(other) => TransportError::Permanent(Error::network(format!("the request to {host} failed: {other}"))),
        },
        ureq::Error::Timeout(_) => TransportError::Transient("no data arrived in time".to_owned()),
        ureq::Error::HostNotFound => TransportError::Unreachable(format!("the host name {host} cannot be resolved")),
        ureq::Error::Io(error) => classify_io(error, host, access),
        ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) => {
            TransportError::Permanent(Error::network(format!("{host} does not speak HTTP")))
        }
        other => TransportError::Permanent(Error::network(format!("the request to {host} failed: {other}"))),
    }
}

fn classify_io(error: io::Error, host: &str, access: Option<&Access>) -> TransportError {
    if let Some(inside) = error.get_ref().and_then(|inside| inside.downcast_ref::<rustls::Error>()) {
        return classify_tls(inside, host, access);
    }
    let error = match Error::carried(error) {
        Ok(own) => return TransportError::Permanent(own),
        Err(error) => error,
    };
    let text = error.to_string();
    match error.kind() {
        io::ErrorKind::ConnectionRefused => TransportError::Unreachable("the connection was refused".to_owned()),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            TransportError::Unreachable("the host is unreachable".to_owned())
        }
        io::ErrorKind::UnexpectedEof => TransportError::Transient("the connection was closed".to_owned()),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
            TransportError::Transient("the connection was reset".to_owned())
        }
        _ if text.contains("lookup address") && !text.contains("emporary") => {
            TransportError::Unreachable(format!("the host name {host} cannot be resolved"))
        }
        _ => TransportError::Transient(text),
    }
}

fn classify_tls(error: &rustls::Error, host: &str, access: Option<&Access>) -> TransportError {
    let client = access.and_then(|access| access.client_cert.as_ref());
    match error {
        rustls::Error::InvalidMessage(_) => TransportError::NotTls,
        rustls::Error::InvalidCertificate(why) => {
            let why = certificate_advice(why, verifier::is_authority(error), access);
            TransportError::Permanent(Error::network(format!("the certificate of {host} {why}")))
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) if client.is_none() => {
            TransportError::Permanent(Error::denied(format!(
                "{host} requires a client certificate; name it with --src-cert and --src-key or --dst-cert and \
                 --dst-key, or copy it into /etc/containers/certs.d"
            )))
        }
        rustls::Error::AlertReceived(alert) if client.is_some() => TransportError::Permanent(Error::denied(format!(
            "{host} ended the TLS handshake ({alert:?}); it may have refused the client certificate"
        ))),
        rustls::Error::AlertReceived(alert) => {
            TransportError::Permanent(Error::network(format!("{host} ended the TLS handshake ({alert:?})")))
        }
        other => TransportError::Permanent(Error::network(format!("TLS with {host} failed: {other}"))),
    }
}

/// Explains why a certificate is not trusted, and how to fix it.
fn certificate_advice(why: &CertificateError, is_authority: bool, access: Option<&Access>) -> String {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet, NotValidYetContext,
        UnknownIssuer,
    };
    let given = access.and_then(|access| access.ca.as_ref()).map(|file| file.display());
    match (why, given) {
        (Expired | ExpiredContext { .. }, _) => format!("has expired ({why}); renew it at the registry"),
        (NotValidYet | NotValidYetContext { .. }, _) => {
            format!("is not valid yet ({why}); compare the clocks of this host and the registry")
        }
        (NotValidForName | NotValidForNameContext { .. }, _) => {
            format!("names other hosts ({why}); use a name in the certificate, or issue one for this name")
        }
        (_, Some(file)) if is_authority => {
            format!("is marked as an authority and is not in {file}; add exactly this certificate to that file")
        }
        (UnknownIssuer, Some(file)) => format!(
            "is signed neither by an authority in {file} nor by one of the system's; add the authority that signed \
             it to that file"
        ),
        (_, None) if is_authority => {
            "is marked as an authority; to trust it, name exactly this certificate with --src-ca or --dst-ca (login: \
             --ca), or copy it into /etc/containers/certs.d"
                .to_owned()
        }
        (UnknownIssuer, None) => format!(
            "is not trusted ({why}); name its authority with --src-ca or --dst-ca (login: --ca), or copy it into \
             /etc/containers/certs.d"
        ),
        (_, _) => format!("is not trusted ({why}); replace it at the registry"),
    }
}
