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
pub enum Fault {
    /// The connection broke or stalled: another try may do better.
    Broken(String),
    /// Nobody there, or no such name.
    Unreachable(String),
    /// Something answered that does not speak TLS.
    NotTls,
    /// A proxy refuses the way to this host and port, and will refuse it again.
    NoTunnel(Error),
    /// Another try would end alike.
    Lasting(Error),
}

/// A fault travels through ureq as an error of its own.
impl std::error::Error for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Broken(why) | Fault::Unreachable(why) => f.write_str(why),
            Fault::NotTls => f.write_str("it does not speak TLS"),
            Fault::NoTunnel(error) | Fault::Lasting(error) => error.fmt(f),
        }
    }
}

/// Why a request to `host`, which is reached by `access`, has no answer.
pub fn of_request(error: ureq::Error, host: &str, access: &Access) -> Fault {
    let seconds = access.timeout.as_secs_f32();
    match error {
        ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
            Fault::Broken(format!("no connection within {seconds} seconds"))
        }
        ureq::Error::Timeout(Timeout::RecvResponse) => Fault::Broken("no answer in time".to_owned()),
        ureq::Error::Timeout(_) => Fault::Broken(format!("nothing moved for {seconds} seconds")),
        other => of_error(other, host, Some(access)),
    }
}

/// Why `proxy` cannot be reached.
pub fn of_proxy(error: ureq::Error, proxy: &Proxy) -> Fault {
    let told = |why: String| format!("no connection to the proxy {proxy}: {why}");
    match of_error(error, proxy.host(), None) {
        Fault::Broken(why) => Fault::Broken(told(why)),
        Fault::Unreachable(why) => Fault::Unreachable(told(why)),
        Fault::NotTls => {
            Fault::Lasting(Error::network(format!("the proxy {proxy} does not speak TLS; write its URL with http://")))
        }
        Fault::NoTunnel(error) | Fault::Lasting(error) => Fault::Lasting(error.at(format!("the proxy {proxy}"))),
    }
}

/// Why reading a body failed.
pub fn of_body(error: io::Error) -> Fault {
    match ureq::Error::from(error) {
        ureq::Error::Timeout(_) => Fault::Broken("nothing came in time".to_owned()),
        error @ (ureq::Error::Io(_) | ureq::Error::Other(_)) => of_error(error, "the registry", None),
        other => Fault::Broken(other.to_string()),
    }
}

fn of_error(error: ureq::Error, host: &str, access: Option<&Access>) -> Fault {
    match error {
        ureq::Error::Other(other) => match other.downcast::<Fault>() {
            Ok(own) => *own,
            Err(other) => Fault::Lasting(Error::network(format!("the request to {host} failed: {other}"))),
        },
        ureq::Error::Timeout(_) => Fault::Broken("nothing came in time".to_owned()),
        ureq::Error::HostNotFound => Fault::Unreachable(format!("the name {host} is not known")),
        ureq::Error::Io(error) => of_io(error, host, access),
        ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) => {
            Fault::Lasting(Error::network(format!("{host} does not answer as a web server does")))
        }
        other => Fault::Lasting(Error::network(format!("the request to {host} failed: {other}"))),
    }
}

fn of_io(error: io::Error, host: &str, access: Option<&Access>) -> Fault {
    if let Some(inside) = error.get_ref().and_then(|inside| inside.downcast_ref::<rustls::Error>()) {
        return of_tls(inside, host, access);
    }
    let error = match Error::carried(error) {
        Ok(own) => return Fault::Lasting(own),
        Err(error) => error,
    };
    let text = error.to_string();
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Fault::Unreachable("the connection was refused".to_owned()),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Fault::Unreachable("the host cannot be reached".to_owned())
        }
        io::ErrorKind::UnexpectedEof => Fault::Broken("the connection was closed".to_owned()),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
            Fault::Broken("the connection was reset".to_owned())
        }
        _ if text.contains("lookup address") && !text.contains("emporary") => {
            Fault::Unreachable(format!("the name {host} is not known"))
        }
        _ => Fault::Broken(text),
    }
}

fn of_tls(error: &rustls::Error, host: &str, access: Option<&Access>) -> Fault {
    let client = access.and_then(|access| access.client_cert.as_ref());
    match error {
        rustls::Error::InvalidMessage(_) => Fault::NotTls,
        rustls::Error::InvalidCertificate(why) => {
            let why = untrusted(why, verifier::is_authority(error), access);
            Fault::Lasting(Error::network(format!("the certificate of {host} {why}")))
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) if client.is_none() => {
            Fault::Lasting(Error::denied(format!(
                "{host} wants a client certificate; give it with --src-cert and --src-key or --dst-cert and --dst-key, or \
                 put it into /etc/containers/certs.d"
            )))
        }
        rustls::Error::AlertReceived(alert) if client.is_some() => Fault::Lasting(Error::denied(format!(
            "{host} ended the TLS handshake ({alert:?}); it may not take the client certificate that it was shown"
        ))),
        rustls::Error::AlertReceived(alert) => {
            Fault::Lasting(Error::network(format!("{host} ended the TLS handshake ({alert:?})")))
        }
        other => Fault::Lasting(Error::network(format!("TLS with {host} failed: {other}"))),
    }
}

/// Why a certificate is not believed, and what may be done besides what the user did.
fn untrusted(why: &CertificateError, is_authority: bool, access: Option<&Access>) -> String {
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
