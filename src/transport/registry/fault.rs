//! Why a request has no answer, or an answer no end, and whether another try may do better.

use crate::error::Error;
use std::{io, time::Duration};
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
    /// Another try would end alike.
    Lasting(Error),
}

/// Why a request to `host` has no answer; `timeout` is how long nothing may move.
pub fn of_request(error: ureq::Error, host: &str, timeout: Duration) -> Fault {
    let seconds = timeout.as_secs_f32();
    match error {
        ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
            Fault::Broken(format!("no connection within {seconds} seconds"))
        }
        ureq::Error::Timeout(Timeout::RecvResponse) => Fault::Broken("no answer in time".to_owned()),
        ureq::Error::Timeout(_) => Fault::Broken(format!("nothing moved for {seconds} seconds")),
        ureq::Error::HostNotFound => Fault::Unreachable(format!("the name {host} is not known")),
        ureq::Error::Rustls(error) => of_tls(&error, host),
        ureq::Error::Io(error) => of_io(error, host),
        ureq::Error::ConnectProxyFailed(_) => {
            Fault::Lasting(Error::network(format!("the proxy does not let us through to {host}")))
        }
        ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) => {
            Fault::Lasting(Error::network(format!("{host} does not answer as a web server does")))
        }
        other => Fault::Lasting(Error::network(format!("the request to {host} failed: {other}"))),
    }
}

fn of_io(error: io::Error, host: &str) -> Fault {
    if let Some(inside) = error.get_ref().and_then(|inside| inside.downcast_ref::<rustls::Error>()) {
        return of_tls(inside, host);
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

fn of_tls(error: &rustls::Error, host: &str) -> Fault {
    match error {
        rustls::Error::InvalidMessage(_) => Fault::NotTls,
        rustls::Error::InvalidCertificate(why) => Fault::Lasting(Error::network(format!(
            "the certificate of {host} is not trusted ({why}); name its authority with --src-ca or --dst-ca, or put it \
             into /etc/containers/certs.d"
        ))),
        rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired) => {
            Fault::Lasting(Error::denied(format!(
                "{host} wants a client certificate; give it with --src-cert and --src-key or --dst-cert and --dst-key, or \
                 put it into /etc/containers/certs.d"
            )))
        }
        rustls::Error::AlertReceived(alert) => {
            Fault::Lasting(Error::network(format!("{host} ended the TLS handshake ({alert:?})")))
        }
        other => Fault::Lasting(Error::network(format!("TLS with {host} failed: {other}"))),
    }
}

/// Why reading a body failed.
pub fn of_body(error: io::Error) -> Fault {
    match error.downcast::<ureq::Error>() {
        Ok(ureq::Error::Timeout(_)) => Fault::Broken("nothing came in time".to_owned()),
        Ok(ureq::Error::Io(error)) => of_io(error, "the registry"),
        Ok(other) => Fault::Broken(other.to_string()),
        Err(error) => of_io(error, "the registry"),
    }
}
