//! Why a request has no answer, or an answer no end, and whether another try may do better.

use super::connect::verifier;
use super::proxy::Proxy;
use crate::error::Error;
use crate::transport::registry::options::Access;
use rustls::{AlertDescription, CertificateError};
use std::{fmt, io};
use ureq::Timeout;

/// Why there is no answer.
#[derive(Debug)]
pub enum TransportError {
    /// The connection broke or stalled: another try may do better.
    Transient(String),
    /// Nobody there, or no such name.
    Unreachable(String),
    /// Something answered that does not speak TLS.
    NotTls,
    /// A proxy refuses the way to this host and port, and will refuse it again.
    TunnelRefused(Error),
    /// Another try would end alike.
    Permanent(Error),
}

/// A fault travels through ureq as an error of its own.
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

/// Why a request to `host`, which is reached by `access`, has no answer.
pub fn from_request(error: ureq::Error, host: &str, access: &Access) -> TransportError {
    let seconds = access.timeout.as_secs_f32();
    match error {
        ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
            TransportError::Transient(format!("no connection within {seconds} seconds"))
        }
        ureq::Error::Timeout(Timeout::RecvResponse) => TransportError::Transient("no answer in time".to_owned()),
        ureq::Error::Timeout(_) => TransportError::Transient(format!("nothing moved for {seconds} seconds")),
        other => classify(other, host, Some(access)),
    }
}

/// Why `proxy` cannot be reached.
pub fn from_proxy(error: ureq::Error, proxy: &Proxy) -> TransportError {
    let told = |why: String| format!("no connection to the proxy {proxy}: {why}");
    match classify(error, proxy.host(), None) {
        TransportError::Transient(why) => TransportError::Transient(told(why)),
        TransportError::Unreachable(why) => TransportError::Unreachable(told(why)),
        TransportError::NotTls => TransportError::Permanent(Error::network(format!(
            "the proxy {proxy} does not speak TLS; write its URL with http://"
        ))),
        TransportError::TunnelRefused(error) | TransportError::Permanent(error) => {
            TransportError::Permanent(error.at(format!("the proxy {proxy}")))
        }
    }
}

/// Why reading a body failed.
pub fn from_body(error: io::Error) -> TransportError {
    match ureq::Error::from(error) {
        ureq::Error::Timeout(_) => TransportError::Transient("nothing came in time".to_owned()),
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
        ureq::Error::Timeout(_) => TransportError::Transient("nothing came in time".to_owned()),
        ureq::Error::HostNotFound => TransportError::Unreachable(format!("the name {host} is not known")),
        ureq::Error::Io(error) => classify_io(error, host, access),
        ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) => {
            TransportError::Permanent(Error::network(format!("{host} does not answer as a web server does")))
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
            TransportError::Unreachable("the host cannot be reached".to_owned())
        }
        io::ErrorKind::UnexpectedEof => TransportError::Transient("the connection was closed".to_owned()),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
            TransportError::Transient("the connection was reset".to_owned())
        }
        _ if text.contains("lookup address") && !text.contains("emporary") => {
            TransportError::Unreachable(format!("the name {host} is not known"))
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
                "{host} wants a client certificate; give it with --src-cert and --src-key or --dst-cert and --dst-key, or \
                 put it into /etc/containers/certs.d"
            )))
        }
        rustls::Error::AlertReceived(alert) if client.is_some() => TransportError::Permanent(Error::denied(format!(
            "{host} ended the TLS handshake ({alert:?}); it may not take the client certificate that it was shown"
        ))),
        rustls::Error::AlertReceived(alert) => {
            TransportError::Permanent(Error::network(format!("{host} ended the TLS handshake ({alert:?})")))
        }
        other => TransportError::Permanent(Error::network(format!("TLS with {host} failed: {other}"))),
    }
}

/// Why a certificate is not believed, and what may be done besides what the user did.
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
            format!("names other hosts ({why}); use a name that it has, or make one for this name")
        }
        (_, Some(file)) if is_authority => {
            format!("is an authority's and is not in {file}; put exactly this certificate into that file")
        }
        (UnknownIssuer, Some(file)) => format!(
            "is signed neither by an authority in {file} nor by one of the system's; that file has to hold the \
             authority that signed it"
        ),
        (_, None) if is_authority => {
            "is an authority's own; if it is the right one, name exactly this certificate with \
                                      --src-ca or --dst-ca (login: --ca), or put it into /etc/containers/certs.d"
                .to_owned()
        }
        (UnknownIssuer, None) => format!(
            "is not trusted ({why}); name its authority with --src-ca or --dst-ca (login: --ca), or put it into \
             /etc/containers/certs.d"
        ),
        (_, _) => format!("is not trusted ({why}); make a new one at the registry"),
    }
}
