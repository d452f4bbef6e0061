//! TLS for `http::Get`.

use std::{io, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    http::Get,
    tls::{client_config, crypto_provider},
};
use crate::probes::support::endpoint::InvalidProbe;

pub(super) use super::tls::classify_tls as classify;

/// Opens TLS connections to one host, and verifies its certificate.
#[derive(Clone)]
pub(super) struct TlsClient {
    server_name: ServerName<'static>,
    roots: RootCertStore,
    config: Arc<ClientConfig>,
}

impl TlsClient {
    /// Trusts the root certificates of the system.
    pub(super) fn new(host: &str) -> Result<Self, InvalidProbe> {
        let server_name = ServerName::try_from(host.to_owned());
        let server_name =
            server_name.map_err(|_| InvalidProbe::new("the URL's host is not a name that a certificate can be for"))?;
        let mut roots = RootCertStore::empty();
        // A system without roots is not an error, because the application may add its own. Unreadable ones are not trusted.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Ok(Self { server_name, config: config(&roots)?, roots })
    }

    /// Adds the certificates in `pem` to the trusted roots.
    pub(super) fn trust(&mut self, pem: &[u8]) -> Result<(), InvalidProbe> {
        const INVALID: InvalidProbe = InvalidProbe::new("expected certificates in the PEM format");
        let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|_| INVALID)?;
        match self.roots.add_parsable_certificates(certificates) {
            (1.., 0) => {
                self.config = config(&self.roots)?;
                Ok(())
            }
            _ => Err(INVALID),
        }
    }

    pub(super) async fn handshake(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsConnector::from(self.config.clone()).connect(self.server_name.clone(), stream).await
    }
}

fn config(roots: &RootCertStore) -> Result<Arc<ClientConfig>, InvalidProbe> {
    let mut config = client_config(crypto_provider()?, |builder| builder.with_root_certificates(roots.clone()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl Get {
    /// Also trusts the certificates of these authorities, in the PEM format. Defaults to those that the system trusts.
    ///
    /// # Errors
    ///
    /// Returns an error if `pem` contains no certificate or an unreadable one, or if the URL is not an `https://` URL.
    pub fn trusting(self, pem: impl AsRef<[u8]>) -> Result<Self, InvalidProbe> {
        self.try_with(|target| {
            let tls = target.tls_mut().ok_or(InvalidProbe::new("only `https://` URLs have certificates"))?;
            tls.trust(pem.as_ref())
        })
    }
}
