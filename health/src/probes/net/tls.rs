//! Errors of TLS connections.

use std::io;

use rustls::Error;

use crate::error::{ProbeErrorKind, chain, classify_io};

/// Returns the kind of an I/O error that may contain an error of rustls.
pub(super) fn classify_tls(error: &io::Error) -> ProbeErrorKind {
    match chain(error).find_map(|link| link.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(_) | Error::AlertReceived(_) | Error::NoCertificatesPresented) => {
            ProbeErrorKind::Rejected
        }
        Some(_) => ProbeErrorKind::Failed,
        // Connectors wrap the errors of streams.
        None => classify_io(chain(error).filter_map(|link| link.downcast_ref()).last().unwrap_or(error)),
    }
}

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, CertificateError};

    use super::*;

    #[test]
    fn errors_of_rustls_are_found_however_they_are_wrapped() {
        let classified =
            |error: Error| classify_tls(&io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error)));
        assert_eq!(classified(CertificateError::UnknownIssuer.into()), ProbeErrorKind::Rejected);
        assert_eq!(classified(Error::AlertReceived(AlertDescription::AccessDenied)), ProbeErrorKind::Rejected);
        assert_eq!(classified(Error::DecryptError), ProbeErrorKind::Failed);
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(classify_tls(&io::Error::other(refused)), ProbeErrorKind::Unreachable);
    }
}
