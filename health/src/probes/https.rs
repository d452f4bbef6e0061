//! TLS for `http::Get`.

use std::{io, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    InvalidProbe,
    http::Get,
    security::{configuration, provider},
};

pub(super) use super::security::classify_tls as classify;

/// What a server's certificate is judged by.
#[derive(Clone)]
pub(super) struct Security {
    name: ServerName<'static>,
    roots: RootCertStore,
    config: Arc<ClientConfig>,
}

impl Security {
    /// With the roots that the system trusts.
    pub(super) fn of(host: &str) -> Result<Self, InvalidProbe> {
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| InvalidProbe::new("the URL's host is no name that a certificate can be for"))?;
        let mut roots = RootCertStore::empty();
        // None is no error: the application may bring its own. What can't be read is not trusted.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Ok(Self { name, config: config(&roots)?, roots })
    }

    pub(super) fn trust(&mut self, pem: &[u8]) -> Result<(), InvalidProbe> {
        const NONE: InvalidProbe = InvalidProbe::new("expected certificates in the PEM format");
        let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|_| NONE)?;
        match self.roots.add_parsable_certificates(certificates) {
            (1.., 0) => {
                self.config = config(&self.roots)?;
                Ok(())
            }
            _ => Err(NONE),
        }
    }

    pub(super) async fn secure(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsConnector::from(self.config.clone()).connect(self.name.clone(), stream).await
    }
}

fn config(roots: &RootCertStore) -> Result<Arc<ClientConfig>, InvalidProbe> {
    let mut config = configuration(provider()?, |begun| begun.with_root_certificates(roots.clone()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl Get {
    /// Trusts the certificates of these authorities too, in the PEM format, in addition to those that the system trusts.
    ///
    /// # Errors
    ///
    /// It holds no certificate, or one that can't be read; or the URL is not one of `https://`.
    pub fn trusting(self, pem: impl AsRef<[u8]>) -> Result<Self, InvalidProbe> {
        self.try_with(|target| {
            let security = target.security_mut().ok_or(InvalidProbe::new("only `https://` URLs have certificates"))?;
            security.trust(pem.as_ref())
        })
    }
}
