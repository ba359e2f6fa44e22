use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use gray_config::{Faults, KeyPath};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::properties::{DEFAULT, UpstreamProperties};

/// How TLS is spoken to the services that want it.
#[derive(Clone, Default)]
pub(crate) struct UpstreamTls(BTreeMap<Arc<str>, (Arc<ClientConfig>, Option<ServerName<'static>>)>);

impl std::fmt::Debug for UpstreamTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UpstreamTls({} services)", self.0.len())
    }
}

impl UpstreamTls {
    /// Gets ready to speak TLS to a service, noting what is wrong.
    pub(crate) fn add(
        &mut self,
        service: &str,
        properties: &UpstreamProperties,
        at: &KeyPath,
        faults: &mut Faults,
    ) {
        let roots = match &properties.ca_file {
            Some(path) => roots_of(path),
            None => Ok(system_roots()),
        };
        let roots = faults.check(&at.key("caFile"), roots);
        // Where no name is given, certificates are for the service's own, which only a call tells for the
        // services that are not named.
        let name = properties.server_name.as_deref().or((service != DEFAULT).then_some(service));
        let name = name.map(|name| ServerName::try_from(name.to_owned())).transpose();
        let name = name.map_err(|_| "this is no server name".to_owned());
        let name = faults.check(&at.key("serverName"), name);
        if let (Some(roots), Some(name)) = (roots, name) {
            let mut config =
                ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            self.0.insert(service.into(), (Arc::new(config), name));
        }
    }

    /// Shakes hands, and tells whether HTTP/2 was agreed upon.
    pub(super) async fn handshake<S>(
        &self,
        service: &str,
        stream: S,
    ) -> io::Result<(TlsStream<S>, bool)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some((config, name)) = self.0.get(service).or_else(|| self.0.get(DEFAULT)) else {
            let message = format!("service {service} is not configured for https");
            return Err(io::Error::other(message));
        };
        let name = match name {
            Some(name) => name.clone(),
            None => ServerName::try_from(service.to_owned()).map_err(io::Error::other)?,
        };
        let connector = TlsConnector::from(Arc::clone(config));
        let stream = connector.connect(name, stream).await?;
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((stream, h2))
    }
}

fn roots_of(path: &Path) -> Result<RootCertStore, String> {
    let read = CertificateDer::pem_file_iter(path);
    let certificates = read.and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates =
        certificates.map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(format!("{} holds no certificate", path.display()));
    }
    Ok(roots)
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}
